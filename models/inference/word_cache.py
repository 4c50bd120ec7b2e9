"""Words and tokens that were read before, and what the encoder made of them.

Words that came up again and again stay; what occurred in one call alone is forgotten when there is no room left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.hashing.arrow_strings import bytes_of
from models.hashing.compiled import compiled
from models.inference.growing_array import GrowingArray
from models.inference.interner import Interner
from models.inference.token_reader import FastTokenReader, ReadTokens
from models.inference.word_cutter import FlagArray, WordCutter
from models.text.encoder import TableMemory, TokenTable, places_of

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
        tokens = np.empty(int(self.sizes.sum()), np.int32)
        _joined(self.rows, self.firsts, self.sizes, tokens)
        return tokens


class RememberedTokens:
    """The tokens that occurred, each with its row in the table; row 0 is padding's."""

    def __init__(self, reader: FastTokenReader) -> None:
        """Begins with padding alone.

        Args:
            reader: of new tokens.
        """
        self._reader = reader
        self._tokens = Interner()  # the first one's row is 1
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
        known = len(self._tokens)
        with self._tokens.undone():
            numbers = self._tokens.numbers(*bytes_of(tokens))
            if len(self._tokens) > known:
                self._append(self._reader.read(self._tokens.strings(known).cast(pa.binary())))
        return 1 + numbers

    def only(self, rows: IntArray) -> RememberedTokens:
        """Some tokens, in a table of their own.

        Args:
            rows: theirs, int64 [tokens], padding's left out, rising. The first of them is row 1 of the new table.
        """
        few = RememberedTokens(self._reader)
        few._tokens = self._tokens.some(rows - 1)
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
        self._words = Interner()
        self._flags, self._came_again = GrowingArray(np.uint8), GrowingArray(np.bool_)
        self._firsts, self._sizes = GrowingArray(np.int64), GrowingArray(np.int64)
        self._cuts = GrowingArray(np.int32)

    def __len__(self) -> int:
        return len(self._words)

    def numbers(self, texts: pa.Array) -> tuple[IntArray, IntArray]:
        """Numbers of the words of texts; new ones are cut.

        Args:
            texts: Arrow strings, [texts].

        Returns:
            Numbers, int64 [words], and where those of each text begin and the last ends, int64 [texts + 1].
        """
        known = len(self._words)
        with self._words.undone():
            numbers, starts = self._words.numbers_of_words(*bytes_of(texts))
            if len(self._words) > known:
                self._learn(self._words.strings(known))
        self._came_again.values[numbers] = True
        self._came_again.values[known:] = False
        return numbers, starts

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
        few._words = self._words.some(numbers)
        sizes = self._sizes.values[numbers]
        few._append(np.cumsum(sizes) - sizes, sizes, (1 + cuts).astype(np.int32), self.flags[numbers])
        few._came_again.values[:] = True
        return few

    @property
    def flags(self) -> FlagArray:
        """What words may be beside others, by number, as `models.inference.word_cutter` has it."""
        return self._flags.values

    def cuts(self, numbers: IntArray) -> Cuts:
        """What words are cut into."""
        return Cuts(self._firsts.values[numbers], self._sizes.values[numbers], self._cuts.values)

    def _learn(self, words: pa.Array) -> None:
        cut = self._cutter.cut(words)
        self._append(cut.firsts, cut.sizes, self.tokens.rows(cut.tokens).astype(np.int32), cut.flags)

    def _append(self, firsts: IntArray, sizes: IntArray, cuts: npt.NDArray[np.int32], flags: FlagArray) -> None:
        self._firsts.append(len(self._cuts) + firsts)
        self._sizes.append(sizes)
        self._cuts.append(cuts)
        self._flags.append(flags)
        self._came_again.append(np.zeros(len(sizes), bool))


@compiled
def _joined(rows: npt.NDArray[np.int32], firsts: IntArray, sizes: IntArray, joined: npt.NDArray[np.int32]) -> None:
    """Runs of rows one behind another; `joined` has room for all."""
    place = 0
    for first, size in zip(firsts, sizes):  # noqa: B905 - compiled, and they are as long
        for row in range(first, first + size):
            joined[place] = rows[row]
            place += 1
