"""Words and tokens that were read before, and what the encoder made of them.

Words that came up again and again stay; what occurred in one call alone is forgotten when there is no room left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.encoder import TableMemory, TokenTable, places_of
from models.growing import GrowingArray
from models.token_reader import FastTokenReader, ReadTokens
from models.word_cutter import WordCutter, WordFlags

IntArray = npt.NDArray[np.int64]


class Cuts(NamedTuple):
    """Words as the tokens they are cut into.

    Attributes:
        firsts: where those of each begin in `rows`, int64 [words].
        sizes: how many they are, int64 [words].
        rows: rows of the table, int32.
    """

    firsts: IntArray
    sizes: IntArray
    rows: npt.NDArray[np.int32]

    def tokens(self) -> npt.NDArray[np.int32]:
        """Rows of the table, one word after another, int32 [tokens of all words]."""
        tokens: npt.NDArray[np.int32] = self.rows[places_of(self.firsts, self.sizes)]
        return tokens


class RememberedTokens:
    """The tokens that occurred, each with its row in the table; row 0 is padding's."""

    def __init__(self, reader: FastTokenReader) -> None:
        """Begins with padding alone.

        Args:
            reader: of new tokens.
        """
        self._reader = reader
        self._tokens = pa.array([], pa.binary())  # that of row 1 first
        self._memory = TableMemory()
        self._columns = [GrowingArray(np.int32) for _ in range(3)]
        self._starts = GrowingArray(np.int64)
        self._starts.append(np.zeros(1, np.int64))
        padding = np.zeros(1, np.int32)
        self._append(ReadTokens(padding, padding, np.zeros(0, np.int32), np.zeros(1, np.int64)))

    def __len__(self) -> int:
        return len(self._tokens)

    def table(self) -> TokenTable:
        """The table as it is now."""
        words, shapes, ngrams = (one.values for one in self._columns)
        return TokenTable(words, shapes, ngrams, self._starts.values, self._memory)

    def empty(self) -> int:
        """The row of a token with nothing in it, which stands for a message with nothing in it."""
        return int(self.rows(pa.array([b""]))[0])

    def rows(self, tokens: pa.Array) -> IntArray:
        """Rows of tokens, Arrow binary [tokens], int64 [tokens]; new ones are read."""
        return 1 + _numbers(tokens, self._tokens, self._learn)

    def _learn(self, tokens: pa.Array) -> IntArray:
        read, order = self._reader.read(tokens)
        self._append(read)
        # Last, for what raises before must leave no token that has no row.
        numbers: IntArray = len(self._tokens) + np.argsort(order)
        self._tokens = pa.concat_arrays([self._tokens, tokens.take(pa.array(order))])
        return numbers

    def only(self, rows: IntArray) -> RememberedTokens:
        """Some tokens, in a table of their own.

        Args:
            rows: theirs, int64 [tokens], padding's left out, rising. The first of them is row 1 of the new table.
        """
        few = RememberedTokens(self._reader)
        few._tokens = self._tokens.take(pa.array(rows - 1))
        words, shapes, ngrams = (one.values for one in self._columns)
        starts = self._starts.values
        counts = starts[rows + 1] - starts[rows]
        few._append(ReadTokens(words[rows], shapes[rows], ngrams[places_of(starts[rows], counts)], counts))
        moved = np.flatnonzero(rows != np.arange(1, len(rows) + 1))
        few._memory = TableMemory(self._memory, 1 + int(moved[0] if len(moved) else len(rows)))
        return few

    def _append(self, read: ReadTokens) -> None:
        self._starts.append(len(self._columns[2]) + np.cumsum(read.counts))
        for column, values in zip(self._columns, (read.words, read.shapes, read.ngrams), strict=True):
            column.append(values)


class RememberedWords:
    """The words that occurred, each with the tokens it is cut into.

    Attributes:
        tokens: of these words, and of whatever else was read.
    """

    def __init__(self, cutter: WordCutter, tokens: RememberedTokens) -> None:
        """Begins with no word.

        Args:
            cutter: of new words.
            tokens: those that are known.
        """
        self.tokens = tokens
        self._cutter = cutter
        self._words = pa.array([], pa.string())
        self._flags = [GrowingArray(np.bool_) for _ in WordFlags._fields]
        self._came_again = GrowingArray(np.bool_)
        self._firsts, self._sizes = GrowingArray(np.int64), GrowingArray(np.int64)
        self._cuts = GrowingArray(np.int32)

    def __len__(self) -> int:
        return len(self._words)

    def numbers(self, words: pa.Array) -> IntArray:
        """The number of each word, int64 [words]; new ones are cut."""
        known = len(self._words)
        numbers = _numbers(words, self._words, self._learn)
        self._came_again.values[numbers[numbers < known]] = True
        return numbers

    def recurring(self, most: int) -> RememberedWords:
        """The words that came again in a later call, with their tokens; none of them where they are too many.

        Args:
            most: words, and tokens, from which on they are too many.
        """
        numbers = np.flatnonzero(self._came_again.values)
        rows, cuts = np.unique(self.cuts(numbers).tokens(), return_inverse=True)
        if max(len(numbers), len(rows)) > most:
            numbers, rows, cuts = numbers[:0], rows[:0], cuts[:0]
        few = RememberedWords(self._cutter, self.tokens.only(rows.astype(np.int64)))
        few._words = self._words.take(pa.array(numbers))
        flags = WordFlags(*(one[numbers] for one in self.flags))
        few._append(self._sizes.values[numbers], cuts.astype(np.int32) + np.int32(1), flags)
        few._came_again.values[:] = True
        return few

    @property
    def flags(self) -> WordFlags:
        """What words may be beside others, by number."""
        return WordFlags(*(one.values for one in self._flags))

    def cuts(self, numbers: IntArray) -> Cuts:
        """What words are cut into."""
        return Cuts(self._firsts.values[numbers], self._sizes.values[numbers], self._cuts.values)

    def _learn(self, words: pa.Array) -> IntArray:
        cut = self._cutter.cut(words)
        self._append(cut.sizes, self.tokens.rows(cut.tokens).astype(np.int32), cut.flags)
        # Last, for what raises before must leave no word that has no tokens.
        numbers: IntArray = len(self._words) + np.argsort(cut.order)
        self._words = pa.concat_arrays([self._words, words.take(pa.array(cut.order))])
        return numbers

    def _append(self, sizes: IntArray, cuts: npt.NDArray[np.int32], flags: WordFlags) -> None:
        self._firsts.append(len(self._cuts) + np.cumsum(sizes) - sizes)
        self._sizes.append(sizes)
        self._cuts.append(cuts)
        self._came_again.append(np.zeros(len(sizes), bool))
        for column, values in zip(self._flags, flags, strict=True):
            column.append(values)


def _numbers(strings: pa.Array, known: pa.Array, learn: Callable[[pa.Array], IntArray]) -> IntArray:
    """Places of strings among the known ones, int64 [strings]; new ones, each once, are learnt and get what that gives.

    Arrow looks them up with no lock of Python's held, which is worth more than that it hashes the known ones each time.
    """
    numbers: IntArray = pc.fill_null(pc.index_in(strings, value_set=known), -1).to_numpy().astype(np.int64)
    new = np.flatnonzero(numbers < 0)
    if len(new):
        coded = strings.take(pa.array(new)).dictionary_encode()
        numbers[new] = learn(coded.dictionary)[coded.indices.to_numpy()]
    return numbers
