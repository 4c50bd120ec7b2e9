"""Words and tokens that were read before, and what the encoder made of them.

Words that came up again and again stay; what occurred in one call alone is forgotten when there is no room left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.arrow_strings import arrow_of, matches, tensor_of
from models.encoder import TableMemory, TokenTable, places_of
from models.growing import GrowingArray
from models.text import LONG_NUMBERS, NOT_PLAIN, TIE
from models.token_reader import FastTokenReader, ReadTokens
from models.tokens import CURRENCY

IntArray = npt.NDArray[np.int64]

# Such a word is one token: as it is, but for a long number, of which it has one at most. (One letter may be part of
# letters that stand apart.)
_SINGLE = r"^(?:[A-Za-z]{2,}|(?:[0-9]{0,4}[A-Za-z])*[0-9]+(?:[A-Za-z][0-9]{0,4})*)$"
# Words, once folded, that may be part of letters that stand apart, `f.r e.e`: such a word has two, with no letter or
# digit beside them, nor a low line before; one behind may set a third apart, `f_r_e e`. Where a letter is not ASCII, no
# such thing is presumed.
_MAY_BE_SPACED = r"(?:^|[^0-9A-Za-z_])\pL[._*+-]\pL(?:$|[^0-9A-Za-z])|[^\x00-\x7f\PL].*[._*+-]|[._*+-].*[^\x00-\x7f\PL]"
# Words, once folded, that what comes before or after changes, or that are no single word.
_NOT_ALONE = r"[\x00\x01\s\v" + TIE + "]|" + CURRENCY + "$"
_LETTER = r"^\pL$"
# Words, once folded, that may be the first or the last of letters that stand apart.
_AT_AN_END = r"(?:^|[^0-9A-Za-z_])\pL$|^\pL(?:$|[^0-9A-Za-z_])|[^\x00-\x7f\PL]"


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
        not_alone: words that what comes before or after changes, bool by number.
        may_be_spaced: words that may be part of letters that stand apart, bool by number.
        is_letter: words of one letter, bool by number.
        at_an_end: words that may be the first or the last of letters that stand apart, bool by number.
    """

    def __init__(self, fold: Any, cut: Any, tokens: RememberedTokens) -> None:
        """Begins with no word.

        Args:
            fold: `models.encoder.TextEncoder.fold`, traced.
            cut: `models.encoder.TextEncoder.tokens`, traced.
            tokens: those that are known.
        """
        self.tokens = tokens
        self._fold, self._cut = fold, cut
        self._words = pa.array([], pa.string())
        self.not_alone, self.may_be_spaced, self.is_letter, self.at_an_end = (GrowingArray(np.bool_) for _ in range(4))
        self._flags = (self.not_alone, self.may_be_spaced, self.is_letter, self.at_an_end)
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
        few = RememberedWords(self._fold, self._cut, self.tokens.only(rows.astype(np.int64)))
        few._words = self._words.take(pa.array(numbers))
        flags = (one.values[numbers] for one in self._flags)
        few._append(self._sizes.values[numbers], cuts.astype(np.int32) + np.int32(1), *flags)
        few._came_again.values[:] = True
        return few

    def cuts(self, numbers: IntArray) -> Cuts:
        """What words are cut into."""
        return Cuts(self._firsts.values[numbers], self._sizes.values[numbers], self._cuts.values)

    def _learn(self, words: pa.Array) -> IntArray:
        is_token = matches(words, _SINGLE)
        tokens, others = (words.filter(pa.array(one)) for one in (is_token, ~is_token))
        folded = self._folded(others)
        cut = self._cut(tensor_of(folded))
        rows = self.tokens.rows(pa.concat_arrays([_masked(tokens).cast(pa.binary()), arrow_of(cut.flat_values)]))
        sizes = np.concatenate([np.ones(len(tokens), np.int64), cut.row_lengths().numpy()])
        no_flags = np.zeros(len(tokens), bool)
        flags = (matches(folded, pattern) for pattern in (_NOT_ALONE, _MAY_BE_SPACED, _LETTER, _AT_AN_END))
        self._append(sizes, rows.astype(np.int32), *(np.concatenate([no_flags, one]) for one in flags))
        numbers: IntArray = len(self._words) + np.argsort(np.argsort(~is_token, kind="stable"))
        self._words = pa.concat_arrays([self._words, tokens, others])
        return numbers

    def _append(self, sizes: IntArray, cuts: npt.NDArray[np.int32], *flags: npt.NDArray[np.bool_]) -> None:
        self._firsts.append(len(self._cuts) + np.cumsum(sizes) - sizes)
        self._sizes.append(sizes)
        self._cuts.append(cuts)
        self._came_again.append(np.zeros(len(sizes), bool))
        for column, values in zip(self._flags, flags, strict=True):
            column.append(values)

    def _folded(self, words: pa.Array) -> pa.Array:
        """Words as they are read, those that are plain as they are."""
        places = np.flatnonzero(matches(words, NOT_PLAIN))
        if not len(places):
            return words
        source = np.arange(len(words))
        source[places] = len(words) + np.arange(len(places))
        folded = self._fold(tensor_of(words.take(pa.array(places)))).numpy().tolist()
        return pa.concat_arrays([words, pa.array(folded, pa.binary()).cast(pa.string())]).take(pa.array(source))


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


def _masked(words: pa.Array) -> pa.Array:
    """Words of letters and digits, of long numbers what is kept of them."""
    for pattern, replacement in LONG_NUMBERS:
        words = pc.replace_substring_regex(words, pattern, replacement)
    return words
