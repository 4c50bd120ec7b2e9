"""Caches of words and tokens with their encoding, bounded in size.

When the caches are full, words that occurred in one call only are dropped. Words that recurred stay.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.hashing.compiled import compiled
from models.inference.growing_array import GrowingArray
from models.inference.interner import Interner
from models.inference.token_reader import FastTokenReader, TokenFeatures
from models.inference.word_cutter import WordCutter
from models.inference.word_loops import ByteArray, FlagArray, IntArray
from models.text.encoder import TableIdentity, TokenTable, expand_runs

_NO_VALUE = -1


class Runs(NamedTuple):
    """Words as runs of values: rows of the token table, or code points.

    Attributes:
        firsts: index in `values` of each word's first value, int64 [words].
        sizes: number of values of each word, int64 [words].
        values: int32.
    """

    firsts: IntArray
    sizes: IntArray
    values: npt.NDArray[np.int32]

    def join(self, starts: IntArray, last: int = _NO_VALUE) -> tuple[npt.NDArray[np.int32], IntArray]:
        """Joins the values of the words of texts.

        Args:
            starts: index of each text's first word followed by the number of words, int64 [texts + 1].
            last: a value that each text gets at its end; -1 for none.

        Returns:
            The values of all words, in order, int32; and the number of values of each text, int64.
        """
        texts = len(starts) - 1
        values = np.empty(int(self.sizes.sum()) + (texts if last != _NO_VALUE else 0), np.int32)
        sizes = np.empty(texts, np.int64)
        _join_runs(self.values, self.firsts, self.sizes, starts, last, values, sizes)
        return values, sizes

    def replace_words(self, values: npt.NDArray[np.int32], sizes: IntArray, starts: IntArray, texts: IntArray) -> Runs:
        """Replaces the words of some texts: the first one by values of the whole text, the others by none.

        Args:
            values: of these texts, concatenated.
            sizes: number of values of each of these texts.
            starts: index of each text's first word followed by the number of words, int64 [texts + 1].
            texts: indices of these texts; each has a word.
        """
        # These arrays may be changed, because they are copies of the cache.
        firsts = starts[texts]
        self.sizes[expand_runs(firsts, starts[texts + 1] - firsts)] = 0
        self.sizes[firsts] = sizes
        self.firsts[firsts] = len(self.values) + np.cumsum(sizes) - sizes
        return Runs(self.firsts, self.sizes, np.concatenate([self.values, values]))


class TokenCache:
    """The tokens seen so far, each with its row in the token table. Row 0 is padding."""

    def __init__(self, reader: FastTokenReader) -> None:
        """Starts with padding only.

        Args:
            reader: reads new tokens.
        """
        self._reader = reader
        self._tokens = Interner()  # number 0 is row 1
        self._identity = TableIdentity()
        self._columns = [GrowingArray(np.int32) for _ in range(3)]
        self._starts = GrowingArray(np.int64)
        self._starts.append(np.zeros(1, np.int64))
        padding = np.zeros(1, np.int32)
        self._append(TokenFeatures(padding, padding, np.zeros(0, np.int32), np.zeros(1, np.int64)))

    def __len__(self) -> int:
        return len(self._tokens)

    def table(self) -> TokenTable:
        """Returns the current table."""
        words, shapes, ngrams = (column.values for column in self._columns)
        return TokenTable(words, shapes, ngrams, self._starts.values, self._identity)

    def empty_row(self) -> int:
        """Returns the row of the empty token, which stands for an empty message."""
        return int(self.rows(np.zeros(0, np.uint8), np.zeros(2, np.int64))[0])

    def rows(self, content: ByteArray, starts: IntArray) -> IntArray:
        """Returns the rows of tokens, int64 [tokens]. New tokens are read and added.

        Args:
            content: concatenated bytes of the tokens.
            starts: offset of each token followed by the end of the last one, int64 [tokens + 1].
        """
        count = len(self._tokens)
        with self._tokens.undo_on_error():
            numbers = self._tokens.intern(content, starts)
            if len(self._tokens) > count:
                self._append(self._reader.read(*self._tokens.buffers(count)))
        return 1 + numbers

    def subset(self, rows: IntArray) -> TokenCache:
        """Returns a new cache with some of the tokens.

        Args:
            rows: of the tokens without padding, ascending, int64 [tokens]. The first of them gets row 1.
        """
        subset = TokenCache(self._reader)
        subset._tokens = self._tokens.subset(rows - 1)
        words, shapes, ngrams = (column.values for column in self._columns)
        starts = self._starts.values
        counts = starts[rows + 1] - starts[rows]
        subset._append(TokenFeatures(words[rows], shapes[rows], ngrams[expand_runs(starts[rows], counts)], counts))
        moved = np.flatnonzero(rows != np.arange(1, len(rows) + 1))
        subset._identity = TableIdentity(self._identity, 1 + int(moved[0] if len(moved) else len(rows)))
        return subset

    def _append(self, features: TokenFeatures) -> None:
        self._starts.append(len(self._columns[2]) + np.cumsum(features.counts))
        for column, values in zip(self._columns, (features.words, features.shapes, features.ngrams), strict=True):
            column.append(values)


class WordCache:
    """The words seen so far, each with its tokens.

    Attributes:
        tokens: the tokens of these words, and other tokens that were read.
    """

    def __init__(self, cutter: WordCutter, tokens: TokenCache) -> None:
        """Starts without words.

        Args:
            cutter: cuts new words into tokens.
            tokens: the token cache to use.
        """
        self.tokens = tokens
        self._cutter = cutter
        self._words = Interner()
        self._flags, self._recurred = GrowingArray(np.uint8), GrowingArray(np.bool_)
        self._firsts, self._sizes = GrowingArray(np.int64), GrowingArray(np.int64)
        self._rows = GrowingArray(np.int32)
        self._code_firsts, self._code_sizes = GrowingArray(np.int64), GrowingArray(np.int64)
        self._codes = GrowingArray(np.int32)

    def __len__(self) -> int:
        return len(self._words)

    def numbers(self, content: ByteArray, starts: IntArray) -> tuple[IntArray, IntArray]:
        """Returns the numbers of the words of texts. New words are cut and added.

        Args:
            content: concatenated bytes of the texts.
            starts: offset of each text followed by the end of the last one, int64 [texts + 1].

        Returns:
            Numbers, int64 [words]; and the index of each text's first word followed by the number of words, int64
            [texts + 1].
        """
        count = len(self._words)
        with self._words.undo_on_error():
            numbers, firsts = self._words.intern_words(content, starts)
            if len(self._words) > count:
                self._add(*self._words.buffers(count))
        self._recurred.values[numbers] = True
        self._recurred.values[count:] = False
        return numbers, firsts

    def recurring(self, max_size: int) -> WordCache:
        """Returns a new cache with the words that recurred in a later call, or an empty one if they are too many.

        Args:
            max_size: maximum number of words, and of tokens.
        """
        numbers = np.flatnonzero(self._recurred.values)
        rows, inverse = np.unique(self.runs(numbers).join(np.array([0, len(numbers)]))[0], return_inverse=True)
        if max(len(numbers), len(rows)) > max_size:
            numbers, rows, inverse = numbers[:0], rows[:0], inverse[:0]
        subset = WordCache(self._cutter, self.tokens.subset(rows.astype(np.int64)))
        subset._words = self._words.subset(numbers)
        sizes = self._sizes.values[numbers]
        subset._append(np.cumsum(sizes) - sizes, sizes, (1 + inverse).astype(np.int32), self.flags[numbers])
        subset._append_codes(*self.code_runs(numbers).join(np.arange(len(numbers) + 1)))
        subset._recurred.values[:] = True
        return subset

    @property
    def flags(self) -> FlagArray:
        """How each word interacts with its neighbours, by number: flags of `models.inference.word_cutter`."""
        return self._flags.values

    def runs(self, numbers: IntArray) -> Runs:
        """Returns the tokens of words, as rows of the token table."""
        return Runs(self._firsts.values[numbers], self._sizes.values[numbers], self._rows.values)

    def code_runs(self, numbers: IntArray) -> Runs:
        """Returns the code points of folded words, each word with a space in front."""
        return Runs(self._code_firsts.values[numbers], self._code_sizes.values[numbers], self._codes.values)

    def _add(self, content: ByteArray, starts: IntArray) -> None:
        cut = self._cutter.cut(content, starts)
        rows = self.tokens.rows(cut.content, cut.starts)
        self._append(cut.firsts, cut.sizes, rows.astype(np.int32), cut.flags)
        self._append_codes(cut.codes, cut.code_sizes)

    def _append(self, firsts: IntArray, sizes: IntArray, rows: npt.NDArray[np.int32], flags: FlagArray) -> None:
        self._firsts.append(len(self._rows) + firsts)
        self._sizes.append(sizes)
        self._rows.append(rows)
        self._flags.append(flags)
        self._recurred.append(np.zeros(len(sizes), bool))

    def _append_codes(self, codes: npt.NDArray[np.int32], sizes: IntArray) -> None:
        self._code_firsts.append(len(self._codes) + np.cumsum(sizes) - sizes)
        self._code_sizes.append(sizes)
        self._codes.append(codes)


@compiled
def _join_runs(
    values: npt.NDArray[np.int32],
    firsts: IntArray,
    sizes: IntArray,
    starts: IntArray,
    last: int,
    joined: npt.NDArray[np.int32],
    joined_sizes: IntArray,
) -> None:
    """Joins runs of values into `joined`, which must have capacity for all of them."""
    position = 0
    for text in range(len(starts) - 1):
        first = position
        for word in range(starts[text], starts[text + 1]):
            for index in range(firsts[word], firsts[word] + sizes[word]):
                joined[position] = values[index]
                position += 1
        if last != _NO_VALUE:
            joined[position] = last
            position += 1
        joined_sizes[text] = position - first
