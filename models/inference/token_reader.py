"""A faster `models.text.tokens.TokenReader`, with the same results.

Nearly all tokens are ASCII, or ASCII with pound signs. Compiled loops compute their keys and shapes, and hash their
n-grams. Other tokens go through `TokenReader`. A test checks that both readers give equal results.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from models.hashing.arrow_strings import from_buffers, join_strings, to_buffers
from models.hashing.compiled import compiled
from models.hashing.farmhash import HashArray, fingerprint, fingerprints
from models.inference.interner import Interner, StringTable, find
from models.text.encoder import TextEncoder, expand_runs
from models.text.token_classes import EMAIL_CLASS, NO_CLASS, NUMBER_CLASS, find_class
from models.text.tokens import AS_WRITTEN, CAPITALS, CLASS_NGRAMS, CLASSES, LEET, MARKS, NGRAM_SIZES, TITLE
from models.text.vocabulary import SPECIAL_TOKENS, UNKNOWN_ID

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
NumberArray = npt.NDArray[np.int32]

# For these characters the loops and TensorFlow agree on lower case: ASCII without controls and white space, and £.
_LEFT_POUND, _RIGHT_POUND = "£".encode()
# In UTF-8 every byte of a character except the first is 10xxxxxx.
_TOP_BITS, _CONTINUATION, _NON_ASCII = 0xC0, 0x80, 0x80
_SPACE, _HASH, _LOWER_CASE = 0x20, 0x23, 0x20
_CLASS_NAMES, _CLASS_STARTS = join_strings([name.encode() for name in CLASSES])
_MARK_BYTES = np.array([ord(mark) if mark else 0 for mark in MARKS], np.uint8)
_LETTER_OF_DIGIT = np.arange(256).astype(np.uint8)
_LETTER_OF_DIGIT[[ord(digit) for digit, _ in LEET]] = [ord(letter) for _, letter in LEET]
# Bytes that a key may have more than its token: a space on each side, a mark, and the name of a class.
_MAX_ADDED = 3 + max(len(name) for name in CLASSES)


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
        self._vocabulary = Interner()
        tokens = encoder.vocabulary.tokens[len(SPECIAL_TOKENS) :]
        self._vocabulary.intern(*join_strings([token.encode() for token in tokens]))
        self._buckets = encoder.read.buckets
        self._read = encoder.compiled_read

    def read(self, content: ByteArray, starts: IntArray) -> TokenFeatures:
        """Computes the features of tokens.

        Args:
            content: concatenated bytes of the tokens, which are UTF-8.
            starts: offset of each token followed by the end of the last one, int64 [tokens + 1].
        """
        is_supported = np.ones(len(starts) - 1, bool)
        _find_supported(content, starts, is_supported)
        if is_supported.all():
            return self._read_supported(content, starts)
        tokens, parts = from_buffers(content, starts[:-1]), []
        for indices, read in (
            (np.flatnonzero(is_supported), self._read_supported),
            (np.flatnonzero(~is_supported), self._read_with_tensorflow),
        ):
            parts.append(_Part(indices, read(*to_buffers(tokens.take(pa.array(indices))))))
        return _merge_parts(parts, len(tokens))

    def _read_supported(self, content: ByteArray, starts: IntArray) -> TokenFeatures:
        tokens = len(starts) - 1
        words, shapes = np.empty(tokens, np.int32), np.empty(tokens, np.int32)
        classes, counts = np.empty(tokens, np.int64), np.zeros(tokens, np.int64)
        capacity = len(content) + tokens * _MAX_ADDED
        spelled, keys = np.empty(capacity, np.uint8), np.empty(capacity, np.uint8)
        spelled_starts, key_starts = np.zeros(tokens + 1, np.int64), np.zeros(tokens + 1, np.int64)
        _describe(
            content, starts, self._vocabulary.table, words, shapes, classes, spelled, spelled_starts, keys, key_starts
        )
        if not self._buckets:
            return TokenFeatures(words, shapes, np.zeros(0, np.int32), counts)
        _count_ngrams(spelled, spelled_starts, classes, counts)
        ngrams = np.empty(int(counts.sum()), np.int32)
        _hash_ngrams(
            spelled, spelled_starts, keys, key_starts, classes, _class_hashes(), np.uint64(self._buckets), ngrams
        )
        return TokenFeatures(words, shapes, ngrams, counts)

    def _read_with_tensorflow(self, content: ByteArray, starts: IntArray) -> TokenFeatures:
        tokens = [content[start:stop].tobytes() for start, stop in itertools.pairwise(starts)]
        words, shapes, ngrams = self._read(tf.constant(tokens, tf.string))
        return TokenFeatures(
            words.numpy(), shapes.numpy(), ngrams.flat_values.numpy(), ngrams.row_lengths().numpy().astype(np.int64)
        )


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
def _find_supported(content: ByteArray, starts: IntArray, is_supported: npt.NDArray[np.bool_]) -> None:
    for token in range(len(starts) - 1):
        index, stop = starts[token], starts[token + 1]
        while index < stop:
            if content[index] == _LEFT_POUND and index + 1 < stop and content[index + 1] == _RIGHT_POUND:
                index += 1
            elif not _SPACE < content[index] < 127:
                is_supported[token] = False
            index += 1


@compiled
def _describe(
    content: ByteArray,
    starts: IntArray,
    vocabulary: StringTable,
    words: NumberArray,
    shapes: NumberArray,
    classes: IntArray,
    spelled: ByteArray,
    spelled_starts: IntArray,
    keys: ByteArray,
    key_starts: IntArray,
) -> None:
    """Describes tokens as `models.text.tokens.TokenReader.describe` does, with classes as indices in `CLASSES`.

    Args:
        content: concatenated bytes of the tokens.
        starts: offset of each token followed by the end of the last one.
        vocabulary: its tokens without the special ones.
        words: output, numbers in the vocabulary.
        shapes: output, shapes.
        classes: output, indices in `CLASSES`, `NO_CLASS` for none.
        spelled: output, concatenated bytes of the strings that are cut into n-grams.
        spelled_starts: output, their offsets.
        keys: output, concatenated bytes of the strings that are hashed whole.
        key_starts: output, their offsets.
    """
    lower = content.copy()
    for index in range(len(lower)):
        if 65 <= lower[index] <= 90:
            lower[index] |= _LOWER_CASE
    for token in range(len(starts) - 1):
        start, stop = starts[token], starts[token + 1]
        shapes[token] = _find_shape(content, start, stop)
        mark, kind = _MARK_BYTES[shapes[token]], find_class(lower, start, stop)
        classes[token] = kind
        first = _open(keys, key_starts[token], mark)
        is_number = kind == NUMBER_CLASS and lower[start] != _HASH
        if kind == NO_CLASS or is_number:
            end = _copy(lower, start, stop, keys, first)
            number = find(vocabulary, keys, first, end)
            if kind == NO_CLASS and number < 0 and _read_digits_as_letters(keys, first, end, vocabulary):
                number = find(vocabulary, keys, first, end)
        else:
            end = _copy(_CLASS_NAMES, _CLASS_STARTS[kind], _CLASS_STARTS[kind + 1], keys, first)
            number = find(vocabulary, keys, first, end)
        if number < 0 and kind == NO_CLASS:
            number = find(vocabulary, lower, start, stop)
        elif number < 0:
            number = find(vocabulary, _CLASS_NAMES, _CLASS_STARTS[kind], _CLASS_STARTS[kind + 1])
        words[token] = number + len(SPECIAL_TOKENS) if number >= 0 else UNKNOWN_ID
        keys[end] = _SPACE
        key_starts[token + 1] = end + 1
        position = _open(spelled, spelled_starts[token], mark)
        if kind == NO_CLASS:
            position = _copy(keys, first, end, spelled, position)
        elif kind == EMAIL_CLASS:
            position = _copy(_CLASS_NAMES, _CLASS_STARTS[kind], _CLASS_STARTS[kind + 1], spelled, position)
        else:
            position = _copy(lower, start, stop, spelled, position)
        spelled[position] = _SPACE
        spelled_starts[token + 1] = position + 1


@compiled
def _open(output: ByteArray, position: int, mark: int) -> int:
    """Writes what is in front of a string, a space and the mark, and returns the position after it."""
    output[position] = _SPACE
    if not mark:
        return position + 1
    output[position + 1] = mark
    return position + 2


@compiled
def _copy(content: ByteArray, start: int, stop: int, output: ByteArray, position: int) -> int:
    for index in range(start, stop):
        output[position + index - start] = content[index]
    return position + stop - start


@compiled
def _read_digits_as_letters(keys: ByteArray, start: int, stop: int, vocabulary: StringTable) -> bool:
    """Reads digits of an unknown key as letters, as `models.text.tokens.TokenReader` does, and returns whether it did.

    The key is changed if digits are inside, or if the result is a known word.
    """
    letters = digits = 0
    is_inside = False  # a letter in front, or digits between letters
    for index in range(start, stop):
        is_digit = 48 <= keys[index] <= 57
        if not is_digit and not 97 <= keys[index] <= 122:
            return False
        is_inside |= (not is_digit) and (index == start or (letters > 0 and 48 <= keys[index - 1] <= 57))
        digits, letters = digits + is_digit, letters + (not is_digit)
    if not digits or not letters:
        return False
    written = keys[start:stop].copy()
    for index in range(start, stop):
        keys[index] = _LETTER_OF_DIGIT[keys[index]]
    if is_inside or find(vocabulary, keys, start, stop) >= 0:
        return True
    keys[start:stop] = written
    return False


@compiled
def _find_shape(content: ByteArray, start: int, stop: int) -> int:
    """Finds the shape of a token as `models.text.tokens.find_shapes` does, for tokens whose letters are ASCII."""
    capitals = lower = other = 0
    for index in range(start, stop):
        byte = content[index]
        capitals += 65 <= byte <= 90
        lower += 97 <= byte <= 122
        other += not (48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122)
    if capitals > 1 and not lower:
        return CAPITALS
    return TITLE if start < stop and 65 <= content[start] <= 90 and not other else AS_WRITTEN


@compiled
def _count_ngrams(text: ByteArray, starts: IntArray, classes: IntArray, counts: IntArray) -> None:
    """Counts the n-grams of each token, including those of its class and its key, into `counts`."""
    for token in range(len(starts) - 1):
        characters = 0
        for index in range(starts[token], starts[token + 1]):
            characters += (text[index] & _TOP_BITS) != _CONTINUATION
        count = 1 if classes[token] == NO_CLASS else 1 + CLASS_NGRAMS
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
    ngrams: NumberArray,
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
        if classes[token] != NO_CLASS:
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
