"""Tokens read as `models.text.tokens.TokenReader` reads them, faster: what is ASCII or has a pound's sign, which
nearly all
are, is described by Arrow and has its n-grams hashed in a compiled loop. A test holds the two equal.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.hashing.arrow_strings import bytes_of, fully_matches, matches, replaced
from models.hashing.compiled import compiled
from models.hashing.farmhash import MOST_BYTES, HashArray, fingerprint, fingerprints
from models.text.arrow_tensors import tensor_of
from models.text.encoder import TextEncoder, places_of
from models.text.tokens import (
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
from models.text.vocabulary import SPECIAL_TOKENS, UNKNOWN_ID

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]

_Described: TypeAlias = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], pa.Array, pa.Array, IntArray]
_Ngrams: TypeAlias = tuple[npt.NDArray[np.int32], IntArray]
# A word is hashed with a mark and two spaces around it.
_PLAIN_WORD = f"^[A-Za-z]{{1,{MOST_BYTES - 3}}}$"
# Small letters are the same to Arrow and TensorFlow. A pound's sign is two bytes, and no five characters are too many.
_READ_HERE = r"^[\x00-\x7f£]*$"
# In UTF-8 all bytes of a character but the first are 10xxxxxx.
_TOP_BITS, _NOT_FIRST, _FIRST_OF_SEVERAL = 0xC0, 0x80, 0x80
_NO_CLASS = -1


@dataclass(frozen=True)
class ReadTokens:
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
        self._read = encoder.compiled_read

    def read(self, tokens: pa.Array) -> ReadTokens:
        """Reads tokens.

        Args:
            tokens: Arrow binary, UTF-8, [tokens].
        """
        is_plain = matches(tokens, _PLAIN_WORD)
        plain, others = np.flatnonzero(is_plain), np.flatnonzero(~is_plain)
        parts = [self._plain(tokens.take(pa.array(plain)).cast(pa.string()), plain)]
        if len(others):
            parts += self._others(tokens.take(pa.array(others)), others)
        return _in_order(parts, len(tokens))

    def _plain(self, tokens: pa.Array, places: IntArray) -> _Part:
        small, shapes = pc.ascii_lower(tokens), _shapes_of(tokens)
        keys = _marked(small, shapes)
        ngrams = self._ngrams(keys, keys, np.full(len(tokens), _NO_CLASS))
        return _Part(places, ReadTokens(self._numbers(small), shapes, *ngrams))

    def _others(self, tokens: pa.Array, places: IntArray) -> list[_Part]:
        is_here = matches(tokens, _READ_HERE)
        here = np.flatnonzero(is_here)
        words, shapes, spelled, keys, classes = self._described(tokens.take(pa.array(here)).cast(pa.string()))
        is_short = pc.binary_length(keys).to_numpy() <= MOST_BYTES
        short, rest = np.flatnonzero(is_short), np.concatenate([here[~is_short], np.flatnonzero(~is_here)])
        ngrams = self._ngrams(spelled.take(pa.array(short)), keys.take(pa.array(short)), classes[short])
        read = ReadTokens(words[short], shapes[short], *ngrams)
        return [_Part(places[here[short]], read), _Part(places[rest], self._by_rules(tokens.take(pa.array(rest))))]

    def _by_rules(self, tokens: pa.Array) -> ReadTokens:
        words, shapes, ngrams = self._read(tensor_of(tokens))
        return ReadTokens(
            words.numpy(), shapes.numpy(), ngrams.flat_values.numpy(), ngrams.row_lengths().numpy().astype(np.int64)
        )

    def _described(self, tokens: pa.Array) -> _Described:
        """What `models.text.tokens.TokenReader.describe` gives, of Arrow strings; the classes as places in
        `CLASSES`.
        """
        small = pc.ascii_lower(tokens)
        classes = _classes_of(small)
        has_class = pa.array(classes >= 0)
        class_names = pa.array(CLASSES).take(pa.array(classes, mask=classes < 0))
        is_number = (classes == CLASSES.index(NUMBER)) & ~fully_matches(small, MASKED_CODE)
        keys = pc.if_else(pa.array((classes < 0) | is_number), small, class_names)
        keys = self._with_digits_as_letters(keys, np.flatnonzero(fully_matches(keys, WITH_DIGITS) & ~is_number))
        words = self._numbers(keys)
        words = np.where(words == UNKNOWN_ID, self._numbers(pc.coalesce(class_names, small)), words)
        shapes = _shapes_of(tokens)
        is_mail = pa.array(classes == CLASSES.index(EMAIL))
        spelled = pc.if_else(has_class, pc.if_else(is_mail, EMAIL, small), keys)
        return words, shapes, _marked(spelled, shapes), _marked(keys, shapes), classes

    def _with_digits_as_letters(self, keys: pa.Array, places: IntArray) -> pa.Array:
        """As `models.text.tokens.TokenReader` has it, of those keys that have digits."""
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

    def _ngrams(self, spelled: pa.Array, keys: pa.Array, classes: IntArray) -> _Ngrams:
        """Hashed n-grams as `models.text.tokens.TokenReader.ngrams` has them, int32, and how many are of each token.

        Args:
            spelled: what is cut into n-grams, characters of up to three bytes.
            keys: what counts as a whole, up to 16 bytes.
            classes: places in `CLASSES`, -1 for none.
        """
        counts = np.zeros(len(spelled), np.int64)
        if not self._buckets:
            return np.zeros(0, np.int32), counts
        text, starts = bytes_of(spelled)
        _count_ngrams(text, starts, classes, counts)
        ngrams = np.empty(int(counts.sum()), np.int32)
        _hash_ngrams(text, starts, *bytes_of(keys), classes, _class_hashes(), np.uint64(self._buckets), ngrams)
        return ngrams, counts


class _Part(NamedTuple):
    """Some tokens as they were read, and their places among all."""

    places: IntArray
    read: ReadTokens


def _in_order(parts: Sequence[_Part], count: int) -> ReadTokens:
    """All tokens, each in its place."""
    words, shapes = np.empty(count, np.int32), np.empty(count, np.int32)
    counts = np.empty(count, np.int64)
    for places, read in parts:
        words[places], shapes[places], counts[places] = read.words, read.shapes, read.counts
    starts = np.cumsum(counts) - counts
    ngrams = np.empty(int(counts.sum()), np.int32)
    for places, read in parts:
        ngrams[places_of(starts[places], read.counts)] = read.ngrams
    return ReadTokens(words, shapes, ngrams, counts)


@compiled
def _count_ngrams(text: ByteArray, starts: IntArray, classes: IntArray, counts: IntArray) -> None:
    """How many n-grams tokens have, with those of their class and their key; `counts` takes it."""
    for token in range(len(starts) - 1):
        characters = 0
        for at in range(starts[token], starts[token + 1]):
            characters += (text[at] & _TOP_BITS) != _NOT_FIRST
        count = 1 if classes[token] == _NO_CLASS else 1 + CLASS_NGRAMS
        for size in NGRAM_SIZES:
            count += max(characters - size + 1, 0)
        counts[token] = count


@compiled
def _hash_ngrams(
    text: ByteArray,
    starts: IntArray,
    keys: ByteArray,
    key_starts: IntArray,
    classes: IntArray,
    class_hashes: HashArray,
    buckets: np.uint64,
    ngrams: npt.NDArray[np.int32],
) -> None:
    """Of each token its n-grams, the shortest first, its class, and its key; `ngrams` has room for as many."""
    place = 0
    for token in range(len(starts) - 1):
        first, end = starts[token], starts[token + 1]
        is_ascii = True
        for at in range(first, end):
            is_ascii &= text[at] < _FIRST_OF_SEVERAL
        for size in NGRAM_SIZES:
            if is_ascii:
                for at in range(first, end - size + 1):
                    ngrams[place] = fingerprint(text, at, size) % buckets
                    place += 1
                continue
            begin, behind, characters = first, first, 0
            while True:
                while characters < size and behind < end:
                    behind = _next_character(text, behind, end)
                    characters += 1
                if characters < size:
                    break
                ngrams[place] = fingerprint(text, begin, behind - begin) % buckets
                place += 1
                begin = _next_character(text, begin, end)
                characters -= 1
        if classes[token] != _NO_CLASS:
            for hashed in class_hashes[classes[token]]:
                ngrams[place] = hashed % buckets
                place += 1
        key = key_starts[token]
        ngrams[place] = fingerprint(keys, key, key_starts[token + 1] - key) % buckets
        place += 1


@compiled
def _next_character(text: ByteArray, at: int, end: int) -> int:
    at += 1
    while at < end and (text[at] & _TOP_BITS) == _NOT_FIRST:
        at += 1
    return at


@functools.cache  # not made as this is imported: the first call of anything compiled takes a third of a second
def _class_hashes() -> HashArray:
    """Of each class the n-grams that stand for it, uint64 [classes, n-grams]."""
    return np.array([fingerprints([f"{name}{at}".encode() for at in range(CLASS_NGRAMS)]) for name in CLASSES])


def _classes_of(small: pa.Array) -> IntArray:
    """As `models.text.tokens.word_keys` has them, places in `CLASSES`, -1 for none, int64 [tokens]."""
    classes = np.full(len(small), -1)
    for name, pattern in reversed(CLASS_PATTERNS):
        classes[fully_matches(small, pattern)] = CLASSES.index(name)
    return classes


def _marked(strings: pa.Array, shapes: npt.NDArray[np.int32]) -> pa.Array:
    """Strings with the mark of their shape and spaces around."""
    marks = pa.array([f" {mark}" for mark in MARKS]).take(pa.array(shapes))
    return pc.binary_join_element_wise(marks, strings, " ", "")


def _shapes_of(tokens: pa.Array) -> npt.NDArray[np.int32]:
    """As `models.text.tokens.shapes_of` has them, of tokens whose letters are ASCII."""
    shapes = np.empty(len(tokens), np.int32)
    _find_shapes(*bytes_of(tokens), shapes)
    return shapes


@compiled
def _find_shapes(text: ByteArray, starts: IntArray, shapes: npt.NDArray[np.int32]) -> None:
    for token in range(len(starts) - 1):
        capitals = small = signs = 0
        for at in range(starts[token], starts[token + 1]):
            sign = text[at]
            capitals += 65 <= sign <= 90
            small += 97 <= sign <= 122
            signs += not (48 <= sign <= 57 or 65 <= sign <= 90 or 97 <= sign <= 122)
        begins = starts[token] < starts[token + 1] and 65 <= text[starts[token]] <= 90
        if capitals > 1 and not small:
            shapes[token] = CAPITALS
        else:
            shapes[token] = TITLE if begins and not signs else AS_WRITTEN
