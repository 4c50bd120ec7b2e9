"""A faster `models.text.tokens.TokenReader`, with the same results.

Nearly all tokens are ASCII, or ASCII with pound signs. Arrow computes their keys and shapes, and a compiled loop hashes
their n-grams. Other tokens go through `TokenReader`. A test checks that both readers give equal results.
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

from models.hashing.arrow_strings import fully_matches, matches, replace_at, to_buffers
from models.hashing.compiled import compiled
from models.hashing.farmhash import MAX_BYTES, HashArray, fingerprint, fingerprints
from models.text.arrow_tensors import arrow_to_tensor
from models.text.encoder import TextEncoder, expand_runs
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

_Description: TypeAlias = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], pa.Array, pa.Array, IntArray]
_Ngrams: TypeAlias = tuple[npt.NDArray[np.int32], IntArray]
# A word is hashed with a mark and a space on each side, which are three bytes.
_PLAIN_WORD = f"^[A-Za-z]{{1,{MAX_BYTES - 3}}}$"
# For these characters Arrow and TensorFlow agree on lower case. A pound sign has two bytes, so five characters are at
# most ten bytes, which `fingerprint` can hash.
_SUPPORTED = r"^[\x00-\x7f£]*$"
# In UTF-8 every byte of a character except the first is 10xxxxxx.
_TOP_BITS, _CONTINUATION, _NON_ASCII = 0xC0, 0x80, 0x80
_NO_CLASS = -1


@dataclass(frozen=True)
class TokenFeatures:
    """The features of tokens that the network uses.

    Attributes:
        words: numbers in the vocabulary, int32 [tokens].
        shapes: as `models.text.tokens.find_shapes` returns them, int32 [tokens].
        ngrams: hashed n-grams of all tokens, in order, int32. The last one of each token is that of its whole key.
        counts: number of n-grams of each token, int64 [tokens].
    """

    words: npt.NDArray[np.int32]
    shapes: npt.NDArray[np.int32]
    ngrams: npt.NDArray[np.int32]
    counts: IntArray


class FastTokenReader:
    """Computes the features of distinct tokens."""

    def __init__(self, encoder: TextEncoder) -> None:
        """Takes the vocabulary and the number of n-gram buckets from an encoder.

        Args:
            encoder: the encoder whose results this reader reproduces.
        """
        self._words = pa.array(encoder.vocabulary.tokens[len(SPECIAL_TOKENS) :], pa.string())
        self._buckets = encoder.read.buckets
        self._read = encoder.compiled_read

    def read(self, tokens: pa.Array) -> TokenFeatures:
        """Computes the features of tokens.

        Args:
            tokens: Arrow binary, UTF-8, [tokens].
        """
        is_plain = matches(tokens, _PLAIN_WORD)
        plain, others = np.flatnonzero(is_plain), np.flatnonzero(~is_plain)
        parts = [self._read_plain(tokens.take(pa.array(plain)).cast(pa.string()), plain)]
        if len(others):
            parts += self._read_others(tokens.take(pa.array(others)), others)
        return _merge_parts(parts, len(tokens))

    def _read_plain(self, tokens: pa.Array, indices: IntArray) -> _Part:
        lower, shapes = pc.ascii_lower(tokens), _compute_shapes(tokens)
        keys = _add_marks(lower, shapes)
        ngrams = self._hash_all_ngrams(keys, keys, np.full(len(tokens), _NO_CLASS))
        return _Part(indices, TokenFeatures(self._look_up(lower), shapes, *ngrams))

    def _read_others(self, tokens: pa.Array, indices: IntArray) -> list[_Part]:
        is_supported = matches(tokens, _SUPPORTED)
        supported = np.flatnonzero(is_supported)
        words, shapes, spelled, keys, classes = self._describe(tokens.take(pa.array(supported)).cast(pa.string()))
        is_short = pc.binary_length(keys).to_numpy() <= MAX_BYTES
        short, remaining = (
            np.flatnonzero(is_short),
            np.concatenate([supported[~is_short], np.flatnonzero(~is_supported)]),
        )
        ngrams = self._hash_all_ngrams(spelled.take(pa.array(short)), keys.take(pa.array(short)), classes[short])
        features = TokenFeatures(words[short], shapes[short], *ngrams)
        return [
            _Part(indices[supported[short]], features),
            _Part(indices[remaining], self._read_with_tensorflow(tokens.take(pa.array(remaining)))),
        ]

    def _read_with_tensorflow(self, tokens: pa.Array) -> TokenFeatures:
        words, shapes, ngrams = self._read(arrow_to_tensor(tokens))
        return TokenFeatures(
            words.numpy(), shapes.numpy(), ngrams.flat_values.numpy(), ngrams.row_lengths().numpy().astype(np.int64)
        )

    def _describe(self, tokens: pa.Array) -> _Description:
        """Describes tokens as `models.text.tokens.TokenReader.describe` does, with classes as indices in `CLASSES`."""
        lower = pc.ascii_lower(tokens)
        classes = _find_classes(lower)
        has_class = pa.array(classes >= 0)
        class_names = pa.array(CLASSES).take(pa.array(classes, mask=classes < 0))
        is_number = (classes == CLASSES.index(NUMBER)) & ~fully_matches(lower, MASKED_CODE)
        keys = pc.if_else(pa.array((classes < 0) | is_number), lower, class_names)
        keys = self._read_digits_as_letters(keys, np.flatnonzero(fully_matches(keys, WITH_DIGITS) & ~is_number))
        words = self._look_up(keys)
        words = np.where(words == UNKNOWN_ID, self._look_up(pc.coalesce(class_names, lower)), words)
        shapes = _compute_shapes(tokens)
        is_email = pa.array(classes == CLASSES.index(EMAIL))
        spelled = pc.if_else(has_class, pc.if_else(is_email, EMAIL, lower), keys)
        return words, shapes, _add_marks(spelled, shapes), _add_marks(keys, shapes), classes

    def _read_digits_as_letters(self, keys: pa.Array, indices: IntArray) -> pa.Array:
        """Reads digits as letters as `models.text.tokens.TokenReader` does.

        Args:
            keys: of all tokens.
            indices: of the keys that contain digits.
        """
        indices = indices[fully_matches(keys.take(pa.array(indices)), WITH_LETTERS)]
        if not len(indices):
            return keys
        written = keys.take(pa.array(indices))
        as_letters = written
        for digit, letter in LEET:
            as_letters = pc.replace_substring(as_letters, digit, letter)
        plausible = fully_matches(written, DIGITS_INSIDE) | (self._look_up(as_letters) != UNKNOWN_ID)
        is_replaced = plausible & (self._look_up(written) == UNKNOWN_ID)
        return replace_at(keys, indices[is_replaced], as_letters.filter(pa.array(is_replaced)))

    def _look_up(self, keys: pa.Array) -> npt.NDArray[np.int32]:
        """Returns numbers in the vocabulary, int32 [keys]."""
        indices = pc.fill_null(pc.index_in(keys, value_set=self._words), UNKNOWN_ID - len(SPECIAL_TOKENS))
        numbers: npt.NDArray[np.int32] = indices.to_numpy() + np.int32(len(SPECIAL_TOKENS))
        return numbers

    def _hash_all_ngrams(self, spelled: pa.Array, keys: pa.Array, classes: IntArray) -> _Ngrams:
        """Hashes n-grams as `models.text.tokens.TokenReader.ngrams` does.

        Args:
            spelled: strings that are cut into n-grams, of characters of up to three bytes.
            keys: strings that are hashed whole, of up to 16 bytes.
            classes: indices in `CLASSES`, -1 for none.

        Returns:
            The hashed n-grams, int32, and the number of n-grams of each token.
        """
        counts = np.zeros(len(spelled), np.int64)
        if not self._buckets:
            return np.zeros(0, np.int32), counts
        text, starts = to_buffers(spelled)
        _count_ngrams(text, starts, classes, counts)
        ngrams = np.empty(int(counts.sum()), np.int32)
        _hash_ngrams(text, starts, *to_buffers(keys), classes, _class_hashes(), np.uint64(self._buckets), ngrams)
        return ngrams, counts


class _Part(NamedTuple):
    """Features of some tokens, and the indices of these tokens among all."""

    indices: IntArray
    features: TokenFeatures


def _merge_parts(parts: Sequence[_Part], count: int) -> TokenFeatures:
    """Merges the features of all tokens, in the order of their indices."""
    words, shapes = np.empty(count, np.int32), np.empty(count, np.int32)
    counts = np.empty(count, np.int64)
    for indices, features in parts:
        words[indices], shapes[indices], counts[indices] = features.words, features.shapes, features.counts
    starts = np.cumsum(counts) - counts
    ngrams = np.empty(int(counts.sum()), np.int32)
    for indices, features in parts:
        ngrams[expand_runs(starts[indices], features.counts)] = features.ngrams
    return TokenFeatures(words, shapes, ngrams, counts)


@compiled
def _count_ngrams(text: ByteArray, starts: IntArray, classes: IntArray, counts: IntArray) -> None:
    """Counts the n-grams of each token, including those of its class and its key, into `counts`."""
    for token in range(len(starts) - 1):
        characters = 0
        for index in range(starts[token], starts[token + 1]):
            characters += (text[index] & _TOP_BITS) != _CONTINUATION
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
    """Hashes, for each token, its n-grams (the shortest first), its class and its key, into `ngrams`."""
    position = 0
    for token in range(len(starts) - 1):
        start, stop = starts[token], starts[token + 1]
        is_ascii = True
        for index in range(start, stop):
            is_ascii &= text[index] < _NON_ASCII
        for size in NGRAM_SIZES:
            if is_ascii:
                for index in range(start, stop - size + 1):
                    ngrams[position] = fingerprint(text, index, size) % buckets
                    position += 1
                continue
            left, right, characters = start, start, 0
            while True:
                while characters < size and right < stop:
                    right = _next_character(text, right, stop)
                    characters += 1
                if characters < size:
                    break
                ngrams[position] = fingerprint(text, left, right - left) % buckets
                position += 1
                left = _next_character(text, left, stop)
                characters -= 1
        if classes[token] != _NO_CLASS:
            for hashed in class_hashes[classes[token]]:
                ngrams[position] = hashed % buckets
                position += 1
        key = key_starts[token]
        ngrams[position] = fingerprint(keys, key, key_starts[token + 1] - key) % buckets
        position += 1


@compiled
def _next_character(text: ByteArray, index: int, stop: int) -> int:
    index += 1
    while index < stop and (text[index] & _TOP_BITS) == _CONTINUATION:
        index += 1
    return index


@functools.cache  # not computed on import, because the first call of compiled code takes a third of a second
def _class_hashes() -> HashArray:
    """Returns the fingerprints of the n-grams that stand for each class, uint64 [classes, n-grams]."""
    return np.array([fingerprints([f"{name}{index}".encode() for index in range(CLASS_NGRAMS)]) for name in CLASSES])


def _find_classes(lower: pa.Array) -> IntArray:
    """Finds the classes of tokens as `models.text.tokens.word_keys` does.

    Returns:
        Indices in `CLASSES`, -1 for none, int64 [tokens].
    """
    classes = np.full(len(lower), -1)
    for name, pattern in reversed(CLASS_PATTERNS):
        classes[fully_matches(lower, pattern)] = CLASSES.index(name)
    return classes


def _add_marks(strings: pa.Array, shapes: npt.NDArray[np.int32]) -> pa.Array:
    """Adds the mark of its shape and a space on each side to each string."""
    marks = pa.array([f" {mark}" for mark in MARKS]).take(pa.array(shapes))
    return pc.binary_join_element_wise(marks, strings, " ", "")


def _compute_shapes(tokens: pa.Array) -> npt.NDArray[np.int32]:
    """Computes shapes as `models.text.tokens.find_shapes` does, for tokens whose letters are ASCII."""
    shapes = np.empty(len(tokens), np.int32)
    _fill_shapes(*to_buffers(tokens), shapes)
    return shapes


@compiled
def _fill_shapes(text: ByteArray, starts: IntArray, shapes: npt.NDArray[np.int32]) -> None:
    for token in range(len(starts) - 1):
        capitals = lower = other = 0
        for index in range(starts[token], starts[token + 1]):
            byte = text[index]
            capitals += 65 <= byte <= 90
            lower += 97 <= byte <= 122
            other += not (48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122)
        starts_with_capital = starts[token] < starts[token + 1] and 65 <= text[starts[token]] <= 90
        if capitals > 1 and not lower:
            shapes[token] = CAPITALS
        else:
            shapes[token] = TITLE if starts_with_capital and not other else AS_WRITTEN
