"""Tokens read as `models.tokens.TokenReader` reads them, faster: what is ASCII, which nearly all are, has its n-grams
hashed by NumPy, and words of letters alone, which most are, need TensorFlow for nothing. A test holds the two equal.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from models.arrow_strings import bytes_of, matches, tensor_of
from models.encoder import TextEncoder, places_of
from models.farmhash import MOST_BYTES, HashArray, fingerprints
from models.text import traced
from models.tokens import AS_WRITTEN, CAPITALS, CLASS_NGRAMS, CLASSES, MARKS, NGRAM_SIZES, TITLE
from models.vocabulary import SPECIAL_TOKENS, UNKNOWN_ID

IntArray = npt.NDArray[np.int64]

_Ngrams: TypeAlias = tuple[npt.NDArray[np.int32], IntArray]
# A word is hashed with a mark and two spaces around it.
_PLAIN_WORD = f"^[A-Za-z]{{1,{MOST_BYTES - 3}}}$"
_NOT_ASCII = r"[^\x00-\x7f]"
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
        self._describe, self._hash = traced(encoder.read.describe), traced(encoder.read.ngrams, 3)

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
        found = pc.fill_null(pc.index_in(small, value_set=self._words), UNKNOWN_ID - len(SPECIAL_TOKENS))
        marks = pa.array([f" {mark}" for mark in MARKS]).take(pa.array(shapes))
        keys = pc.binary_join_element_wise(marks, small, " ", "")
        words = found.to_numpy() + np.int32(len(SPECIAL_TOKENS))
        return ReadTokens(words, shapes, *self._ngrams(keys, keys, np.full(len(tokens), -1)))

    def _others(self, tokens: pa.Array, places: IntArray) -> list[tuple[IntArray, ReadTokens]]:
        words, shapes, *strings = (one.numpy() for one in self._describe(tensor_of(tokens)))
        spelled, keys, classes = (pa.array(one, pa.binary()) for one in strings)
        is_ascii = ~(matches(spelled, _NOT_ASCII) | matches(keys, _NOT_ASCII))
        is_short = is_ascii & (pc.binary_length(keys).to_numpy() <= MOST_BYTES)
        short, long = np.flatnonzero(is_short), np.flatnonzero(~is_short)
        numbers = pc.fill_null(pc.index_in(classes, value_set=pa.array(CLASSES, pa.binary())), -1).to_numpy()
        fast = self._ngrams(spelled.take(pa.array(short)), keys.take(pa.array(short)), numbers[short])
        slow = self._hash(*(tf.constant(one[long], tf.string) for one in strings))
        slow = (slow.flat_values.numpy(), slow.row_lengths().numpy())
        return [
            (places[some], ReadTokens(words[some], shapes[some], *ngrams))
            for some, ngrams in ((short, fast), (long, slow))
        ]

    def _ngrams(self, spelled: pa.Array, keys: pa.Array, classes: npt.NDArray[np.integer]) -> _Ngrams:
        """Hashed n-grams as `models.tokens.TokenReader.ngrams` has them, int32, and how many are of each token.

        Args:
            spelled: what is cut into n-grams, ASCII.
            keys: what counts as a whole, ASCII of up to 16 bytes.
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
    begins, lengths = starts[:-1], np.diff(starts)
    of_sizes = [np.maximum(lengths - size + 1, 0) for size in NGRAM_SIZES]
    has_class = classes >= 0
    counts = np.sum(of_sizes, axis=0) + CLASS_NGRAMS * has_class + 1
    hashes = np.empty(int(counts.sum()), np.uint64)
    next_ones = np.cumsum(counts) - counts
    for size, many in zip(NGRAM_SIZES, of_sizes, strict=True):
        if many.any():
            of_text = fingerprints(np.lib.stride_tricks.sliding_window_view(text, size))
            hashes[places_of(next_ones, many)] = of_text[places_of(begins, many)]
            next_ones += many
    hashes[next_ones[has_class, np.newaxis] + np.arange(CLASS_NGRAMS)] = _CLASS_HASHES[classes[has_class]]
    next_ones += CLASS_NGRAMS * has_class
    text, starts = bytes_of(keys)
    begins, lengths = starts[:-1], np.diff(starts)
    for length in np.unique(lengths).tolist():
        wanted = lengths == length
        hashes[next_ones[wanted]] = fingerprints(text[begins[wanted, np.newaxis] + np.arange(length)])
    return hashes, counts


def _class_hashes() -> HashArray:
    """Of each class the n-grams that stand for it, uint64 [classes, n-grams]."""
    texts = [[np.frombuffer(f"{name}{at}".encode(), np.uint8) for at in range(CLASS_NGRAMS)] for name in CLASSES]
    return np.array([fingerprints(np.stack(of_class)) for of_class in texts])


_CLASS_HASHES = _class_hashes()


def _shapes_of(words: pa.Array) -> npt.NDArray[np.int32]:
    """Of words of ASCII letters, as `models.tokens.shapes_of` has it."""
    text, starts = bytes_of(words)
    is_capital = text < ord("a")
    capitals = np.add.reduceat(is_capital, starts[:-1], dtype=np.int64)
    first = np.where(is_capital[starts[:-1]], TITLE, AS_WRITTEN)
    lengths = np.diff(starts)
    return np.where((capitals == lengths) & (lengths > 1), CAPITALS, first).astype(np.int32)
