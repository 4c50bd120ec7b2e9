"""Tokens read as `models.tokens.TokenReader` reads them, faster: what is ASCII or has a pound's sign, which nearly all
are, is described by Arrow and has its n-grams hashed by NumPy. A test holds the two equal.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.arrow_strings import bytes_of, fully_matches, matches, replaced, tensor_of
from models.encoder import TextEncoder, places_of
from models.farmhash import MOST_BYTES, HashArray, fingerprints
from models.text import traced
from models.tokens import (
    AS_WRITTEN,
    CAPITALS,
    CLASS_NGRAMS,
    CLASS_PATTERNS,
    CLASSES,
    DIGITS_INSIDE,
    EMAIL,
    LEET,
    MARKS,
    MASKED_CODE,
    NGRAM_SIZES,
    NUMBER,
    TITLE,
    WITH_DIGITS,
    WITH_LETTERS,
)
from models.vocabulary import SPECIAL_TOKENS, UNKNOWN_ID

IntArray = npt.NDArray[np.int64]

_Described: TypeAlias = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], pa.Array, pa.Array, IntArray]
_Ngrams: TypeAlias = tuple[npt.NDArray[np.int32], IntArray]
# A word is hashed with a mark and two spaces around it.
_PLAIN_WORD = f"^[A-Za-z]{{1,{MOST_BYTES - 3}}}$"
# Small letters are the same to Arrow and TensorFlow. A pound's sign is two bytes, and no five characters are too many.
_READ_HERE = r"^[\x00-\x7f£]*$"
# As `models.tokens.shapes_of` has them; to make ready a pattern with all letters there are takes milliseconds.
_IN_CAPITALS = "[^A-Za-z]*[A-Z][^A-Za-z]*[A-Z][^a-z]*"
_AS_A_TITLE = "[A-Z][0-9A-Za-z]*"
# In UTF-8 all bytes of a character but the first are 10xxxxxx.
_TOP_BITS, _NOT_FIRST = np.uint8(0xC0), np.uint8(0x80)
# Arrays that a processor's cache holds are computed several times faster.
_SLICE = 8_000


class ReadTokens(NamedTuple):
    """What the network knows of tokens.

    Attributes:
        words: numbers in the vocabulary, int32 [tokens].
        shapes: how they are written, int32 [tokens].
        ngrams: hashed n-grams, int32, one token after another, the last of each being that of its key as a whole.
        counts: how many are of each token, int64 [tokens].
    """

    words: npt.NDArray[np.int32]
    shapes: npt.NDArray[np.int32]
    ngrams: npt.NDArray[np.int32]
    counts: IntArray


class FastTokenReader:
    """Reads distinct tokens."""

    def __init__(self, encoder: TextEncoder) -> None:
        """Takes the vocabulary and the buckets of n-grams.

        Args:
            encoder: what it reads as.
        """
        self._words = pa.array(encoder.vocabulary.tokens[len(SPECIAL_TOKENS) :], pa.string())
        self._buckets = encoder.read.buckets
        self._read = traced(encoder.read)

    def read(self, tokens: pa.Array) -> tuple[ReadTokens, IntArray]:
        """Reads tokens, in an order of its own.

        Args:
            tokens: Arrow binary, UTF-8, [tokens].

        Returns:
            What is known of them, and which token is in which place, int64 [tokens].
        """
        is_plain = matches(tokens, _PLAIN_WORD)
        plain, others = np.flatnonzero(is_plain), np.flatnonzero(~is_plain)
        groups = [(plain, self._plain(tokens.take(pa.array(plain)).cast(pa.string())))]
        if len(others):
            groups += self._others(tokens.take(pa.array(others)), others)
        columns = (np.concatenate(column) for column in zip(*(read for _, read in groups), strict=True))
        return ReadTokens(*columns), np.concatenate([places for places, _ in groups])

    def _plain(self, tokens: pa.Array) -> ReadTokens:
        small, shapes = pc.ascii_lower(tokens), _shapes_of(tokens)
        keys = _marked(small, shapes)
        return ReadTokens(self._numbers(small), shapes, *self._ngrams(keys, keys, np.full(len(tokens), -1)))

    def _others(self, tokens: pa.Array, places: IntArray) -> list[tuple[IntArray, ReadTokens]]:
        is_here = matches(tokens, _READ_HERE)
        here = np.flatnonzero(is_here)
        words, shapes, spelled, keys, classes = self._described(tokens.take(pa.array(here)).cast(pa.string()))
        is_short = pc.binary_length(keys).to_numpy() <= MOST_BYTES
        short, rest = np.flatnonzero(is_short), np.concatenate([here[~is_short], np.flatnonzero(~is_here)])
        ngrams = self._ngrams(spelled.take(pa.array(short)), keys.take(pa.array(short)), classes[short])
        read = ReadTokens(words[short], shapes[short], *ngrams)
        return [(places[here[short]], read), (places[rest], self._by_rules(tokens.take(pa.array(rest))))]

    def _by_rules(self, tokens: pa.Array) -> ReadTokens:
        words, shapes, ngrams = self._read(tensor_of(tokens))
        return ReadTokens(
            words.numpy(), shapes.numpy(), ngrams.flat_values.numpy(), ngrams.row_lengths().numpy().astype(np.int64)
        )

    def _described(self, tokens: pa.Array) -> _Described:
        """What `models.tokens.TokenReader.describe` gives, of Arrow strings; the classes as places in `CLASSES`."""
        small = pc.ascii_lower(tokens)
        classes = _classes_of(small)
        has_class = pa.array(classes >= 0)
        class_names = pa.array(CLASSES).take(pa.array(classes, mask=classes < 0))
        is_number = (classes == CLASSES.index(NUMBER)) & ~fully_matches(small, MASKED_CODE)
        keys = pc.if_else(pa.array((classes < 0) | is_number), small, class_names)
        keys = self._with_digits_as_letters(keys, np.flatnonzero(fully_matches(keys, WITH_DIGITS) & ~is_number))
        words = self._numbers(keys)
        words = np.where(words == UNKNOWN_ID, self._numbers(pc.coalesce(class_names, small)), words)
        title = np.where(fully_matches(tokens, _AS_A_TITLE), TITLE, AS_WRITTEN)
        shapes = np.where(fully_matches(tokens, _IN_CAPITALS), CAPITALS, title).astype(np.int32)
        is_mail = pa.array(classes == CLASSES.index(EMAIL))
        spelled = pc.if_else(has_class, pc.if_else(is_mail, EMAIL, small), keys)
        return words, shapes, _marked(spelled, shapes), _marked(keys, shapes), classes

    def _with_digits_as_letters(self, keys: pa.Array, places: IntArray) -> pa.Array:
        """As `models.tokens.TokenReader` has it, of those keys that have digits."""
        places = places[fully_matches(keys.take(pa.array(places)), WITH_LETTERS)]
        if not len(places):
            return keys
        written = keys.take(pa.array(places))
        read = written
        for digit, letter in LEET:
            read = pc.replace_substring(read, digit, letter)
        plausible = fully_matches(written, DIGITS_INSIDE) | (self._numbers(read) != UNKNOWN_ID)
        wanted = plausible & (self._numbers(written) == UNKNOWN_ID)
        return replaced(keys, places[wanted], read.filter(pa.array(wanted)))

    def _numbers(self, keys: pa.Array) -> npt.NDArray[np.int32]:
        """Numbers in the vocabulary, int32 [keys]."""
        found = pc.fill_null(pc.index_in(keys, value_set=self._words), UNKNOWN_ID - len(SPECIAL_TOKENS))
        numbers: npt.NDArray[np.int32] = found.to_numpy() + np.int32(len(SPECIAL_TOKENS))
        return numbers

    def _ngrams(self, spelled: pa.Array, keys: pa.Array, classes: npt.NDArray[np.integer]) -> _Ngrams:
        """Hashed n-grams as `models.tokens.TokenReader.ngrams` has them, int32, and how many are of each token.

        Args:
            spelled: what is cut into n-grams, characters of up to three bytes.
            keys: what counts as a whole, up to 16 bytes.
            classes: places in `CLASSES`, -1 for none.
        """
        if not self._buckets:
            return np.zeros(0, np.int32), np.zeros(len(spelled), np.int64)
        hashes, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for first in range(0, len(spelled), _SLICE):
            some, their_counts = _hashes(
                spelled.slice(first, _SLICE), keys.slice(first, _SLICE), classes[first : first + _SLICE]
            )
            hashes.append(some)
            counts.append(their_counts)
        return (np.concatenate(hashes) % np.uint64(self._buckets)).astype(np.int32), np.concatenate(counts)


def _hashes(spelled: pa.Array, keys: pa.Array, classes: npt.NDArray[np.integer]) -> tuple[HashArray, IntArray]:
    """Of each token its n-grams, the shortest first, its class, and its key."""
    text, starts = bytes_of(spelled)
    characters = np.append(np.flatnonzero(text & _TOP_BITS != _NOT_FIRST), len(text))
    starts = np.searchsorted(characters, starts) if len(characters) <= len(text) else starts
    begins, lengths = starts[:-1], np.diff(starts)
    of_sizes = [np.maximum(lengths - size + 1, 0) for size in NGRAM_SIZES]
    has_class = classes >= 0
    counts = np.sum(of_sizes, axis=0) + CLASS_NGRAMS * has_class + 1
    hashes = np.empty(int(counts.sum()), np.uint64)
    next_ones = np.cumsum(counts) - counts
    for size, many in zip(NGRAM_SIZES, of_sizes, strict=True):
        if many.any():
            of_text = _ngram_hashes(text, characters, size)
            hashes[places_of(next_ones, many)] = of_text[places_of(begins, many)]
            next_ones += many
    hashes[next_ones[has_class, np.newaxis] + np.arange(CLASS_NGRAMS)] = _CLASS_HASHES[classes[has_class]]
    next_ones += CLASS_NGRAMS * has_class
    text, starts = bytes_of(keys)
    hashes[next_ones] = _run_hashes(text, starts[:-1], np.diff(starts))
    return hashes, counts


def _ngram_hashes(text: npt.NDArray[np.uint8], characters: IntArray, size: int) -> HashArray:
    """Of as many characters from each of them on, uint64; `characters` is where they begin and the last ends."""
    of_bytes = fingerprints(np.lib.stride_tricks.sliding_window_view(text, size))
    if len(characters) > len(text):
        return of_bytes
    begins = characters[:-size]
    lengths = characters[size:] - begins
    hashes: HashArray = of_bytes[begins]
    longer = np.flatnonzero(lengths > size)
    hashes[longer] = _run_hashes(text, begins[longer], lengths[longer])
    return hashes


def _run_hashes(text: npt.NDArray[np.uint8], begins: IntArray, lengths: IntArray) -> HashArray:
    """Of runs of bytes, uint64 [runs]."""
    hashes = np.empty(len(begins), np.uint64)
    for length in np.unique(lengths).tolist():
        wanted = np.flatnonzero(lengths == length)
        hashes[wanted] = fingerprints(text[begins[wanted, np.newaxis] + np.arange(length)])
    return hashes


def _class_hashes() -> HashArray:
    """Of each class the n-grams that stand for it, uint64 [classes, n-grams]."""
    texts = [[np.frombuffer(f"{name}{at}".encode(), np.uint8) for at in range(CLASS_NGRAMS)] for name in CLASSES]
    return np.array([fingerprints(np.stack(of_class)) for of_class in texts])


_CLASS_HASHES = _class_hashes()


def _classes_of(small: pa.Array) -> IntArray:
    """As `models.tokens.word_keys` has them, places in `CLASSES`, -1 for none, int64 [tokens]."""
    classes = np.full(len(small), -1)
    for name, pattern in reversed(CLASS_PATTERNS):
        classes[fully_matches(small, pattern)] = CLASSES.index(name)
    return classes


def _marked(strings: pa.Array, shapes: npt.NDArray[np.int32]) -> pa.Array:
    """Strings with the mark of their shape and spaces around."""
    marks = pa.array([f" {mark}" for mark in MARKS]).take(pa.array(shapes))
    return pc.binary_join_element_wise(marks, strings, " ", "")


def _shapes_of(words: pa.Array) -> npt.NDArray[np.int32]:
    """Of words of ASCII letters, as `models.tokens.shapes_of` has it."""
    text, starts = bytes_of(words)
    is_capital = text < ord("a")
    capitals = np.add.reduceat(is_capital, starts[:-1], dtype=np.int64)
    first = np.where(is_capital[starts[:-1]], TITLE, AS_WRITTEN)
    lengths = np.diff(starts)
    return np.where((capitals == lengths) & (lengths > 1), CAPITALS, first).astype(np.int32)
