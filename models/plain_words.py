"""Words of a few ASCII letters, which most tokens are, read with NumPy: the same as `models.tokens.TokenReader` makes
of them, in a small part of its time. A test holds the two equal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.encoder import places_of
from models.farmhash import MOST_BYTES, fingerprints
from models.tokens import AS_WRITTEN, CAPITALS, MARKS, NGRAM_SIZES, TITLE
from models.vocabulary import SPECIAL_TOKENS, UNKNOWN_ID, Vocabulary

IntArray = npt.NDArray[np.int64]

# A word is hashed with a mark and two spaces around it.
PLAIN_WORD = f"^[A-Za-z]{{1,{MOST_BYTES - 3}}}$"
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


class PlainWordReader:
    """Reads words that match `PLAIN_WORD`."""

    def __init__(self, vocabulary: Vocabulary, buckets: int) -> None:
        """Takes the vocabulary.

        Args:
            vocabulary: of the model.
            buckets: numbers that n-grams are hashed to; 0 for none.
        """
        self._words = pa.array(vocabulary.tokens[len(SPECIAL_TOKENS) :], pa.string())
        self._buckets = buckets

    def read(self, tokens: pa.Array) -> ReadTokens:
        """Reads words.

        Args:
            tokens: Arrow strings [tokens].
        """
        small, shapes = pc.ascii_lower(tokens), _shapes_of(tokens)
        found = pc.fill_null(pc.index_in(small, value_set=self._words), UNKNOWN_ID - len(SPECIAL_TOKENS))
        ngrams, counts = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        for first in range(0, len(tokens) if self._buckets else 0, _SLICE):
            some, their_counts = self._ngrams(small.slice(first, _SLICE), shapes[first : first + _SLICE])
            ngrams.append(some)
            counts.append(their_counts)
        return ReadTokens(
            found.to_numpy() + np.int32(len(SPECIAL_TOKENS)),
            shapes,
            np.concatenate(ngrams),
            np.concatenate(counts) if self._buckets else np.zeros(len(tokens), np.int64),
        )

    def _ngrams(self, small: pa.Array, shapes: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], IntArray]:
        """Hashed n-grams of words in small letters, and how many are of each: the shortest of a word come first."""
        marks = pa.array([f" {mark}" for mark in MARKS]).take(pa.array(shapes))
        text, starts = _bytes_of(pc.binary_join_element_wise(marks, small, " ", ""))
        begins, lengths = starts[:-1], np.diff(starts)
        of_sizes = [np.maximum(lengths - size + 1, 0) for size in NGRAM_SIZES]
        counts = np.sum(of_sizes, axis=0) + 1
        hashes = np.empty(int(counts.sum()), np.uint64)
        next_ones = np.cumsum(counts) - counts
        for size, many in zip(NGRAM_SIZES, of_sizes, strict=True):
            if many.any():
                of_text = fingerprints(np.lib.stride_tricks.sliding_window_view(text, size))
                hashes[places_of(next_ones, many)] = of_text[places_of(begins, many)]
                next_ones += many
        for length in np.unique(lengths).tolist():
            wanted = lengths == length
            hashes[next_ones[wanted]] = fingerprints(text[begins[wanted, np.newaxis] + np.arange(length)])
        return (hashes % np.uint64(self._buckets)).astype(np.int32), counts


def _shapes_of(tokens: pa.Array) -> npt.NDArray[np.int32]:
    """As `models.tokens.shapes_of` has it."""
    text, starts = _bytes_of(tokens)
    is_capital = text < ord("a")
    capitals = np.add.reduceat(is_capital, starts[:-1], dtype=np.int64)
    lengths = np.diff(starts)
    first = np.where(is_capital[starts[:-1]], TITLE, AS_WRITTEN)
    return np.where((capitals == lengths) & (lengths > 1), CAPITALS, first).astype(np.int32)


def _bytes_of(strings: pa.Array) -> tuple[npt.NDArray[np.uint8], IntArray]:
    """Bytes of Arrow strings, one behind another, and where each begins and the last ends, int64 [strings + 1]."""
    _, offsets, content = strings.buffers()
    starts = np.frombuffer(offsets, np.int32)[strings.offset : strings.offset + len(strings) + 1].astype(np.int64)
    return np.frombuffer(content, np.uint8)[starts[0] : starts[-1]], starts - starts[0]
