"""Messages to encoded ones, with a memory: each distinct word goes through `models.text.encoder.TextEncoder` once,
however
many messages it occurs in.

A message is cut at its white space, and each piece ("word") looked up among those that came before; only new ones are
cleaned, cut into tokens and read. That gives what the encoder makes of the whole message, for its rules look across
white space in few cases, and messages with one of these go through the encoder whole: letters that may stand apart, a
currency sign with a digit behind a space, signs that are read as white space, messages of which the end is cut off. A
test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.hashing.arrow_strings import matches
from models.hashing.compiled import compiled
from models.inference.token_reader import FastTokenReader
from models.inference.word_cache import Cuts, IntArray, RememberedTokens, RememberedWords
from models.inference.word_cutter import (
    AT_AN_END,
    BEGINS_WITH_DIGIT,
    ENDS_IN_CURRENCY,
    IS_LETTER,
    MAY_BE_SPACED,
    NOT_ALONE,
    BoolArray,
    FlagArray,
    WordCutter,
)
from models.text.arrow_tensors import Texts, as_arrow
from models.text.cleaning import NOT_PLAIN, most_bytes
from models.text.encoder import EncodedMessages, TextEncoder, places_of

# Beyond so many words or tokens, those that occurred once are forgotten, so that memory does not grow with the
# messages: a token takes about a kilobyte with what the network knows of it.
MOST_REMEMBERED = 45_000
_SLICE_MESSAGES = 20_000
_SLICE_CHARACTERS = 8 * 2**20
# Of a message that is not plain it is not known before it is folded; the letters of the others are ASCII.
_SPACED_OR_FOLDED = rf"\b(?:[A-Za-z][ ._*+-]){{3,}}[A-Za-z]\b|{NOT_PLAIN}"
_VERTICAL_TAB = 0x0B


class MessageReader:
    """Encodes messages as `models.text.encoder.encode_messages` does, and remembers words and tokens from call to call.

    For one thread at a time.
    """

    def __init__(self, encoder: TextEncoder, most_remembered: int = MOST_REMEMBERED) -> None:
        """Begins with an empty memory.

        Args:
            encoder: what words go through.
            most_remembered: words, and tokens, from which on those that came in one call alone are forgotten before the
                next; all are, where more than half as many came again.
        """
        self._text = encoder.vocabulary.text
        self._by_words = self._text.cleaning == "signal"
        self._most = most_remembered
        self._cutter = WordCutter(encoder)
        self._words = RememberedWords(self._cutter, RememberedTokens(FastTokenReader(encoder)))

    def read(self, texts: Texts) -> EncodedMessages:
        """Encodes messages.

        Args:
            texts: messages.
        """
        if max(len(self._words.tokens), len(self._words)) > self._most:
            self._words = self._words.recurring(self._most // 2)
        most = most_bytes(self._text)
        parts = [self._read_slice(some) for some in _slices(as_arrow(texts), most)]
        rows = [np.zeros(0, np.int32), *(rows for rows, _ in parts)]
        lengths = [np.zeros(0, np.int64), *(lengths for _, lengths in parts)]
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        return EncodedMessages(np.concatenate(rows), starts, self._words.tokens.table())

    def _read_slice(self, texts: pa.Array) -> tuple[npt.NDArray[np.int32], IntArray]:
        """Rows of the table, int32 [tokens], and how many are of each message, int64 [messages]."""
        rows, lengths = self._by_word(texts) if self._by_words else self._whole(texts)
        return self._fitted(rows, lengths)

    def _by_word(self, texts: pa.Array) -> tuple[npt.NDArray[np.int32], IntArray]:
        words, starts = self._words.numbers(texts)
        whole = self._may_be_cut(texts) | _holds_vertical_tab(texts)
        suspects = np.zeros(len(texts), bool)
        _look_across(words, starts, self._words.flags, whole, suspects)
        places = np.flatnonzero(suspects & ~whole)
        whole[places[matches(texts.take(pa.array(places)), _SPACED_OR_FOLDED)]] = True
        cuts = self._words.cuts(words)
        if whole.any():
            # One with nothing but white space has no word, and no token.
            cuts = self._with_whole(cuts, texts, starts, np.flatnonzero(whole & (np.diff(starts) > 0)))
        ends = np.concatenate([[0], np.cumsum(cuts.sizes)])[starts]
        return cuts.tokens(), np.diff(ends)

    def _with_whole(self, cuts: Cuts, texts: pa.Array, starts: IntArray, whole: IntArray) -> Cuts:
        """The words of some messages replaced: the first by all tokens that the message has, the others by none."""
        rows, sizes = self._whole(texts.take(pa.array(whole)))
        # What may be written over: the arrays of these cuts are copies of what is remembered.
        firsts = starts[whole]
        cuts.sizes[places_of(firsts, starts[whole + 1] - firsts)] = 0
        cuts.sizes[firsts] = sizes
        cuts.firsts[firsts] = len(cuts.rows) + np.cumsum(sizes) - sizes
        return Cuts(cuts.firsts, cuts.sizes, np.concatenate([cuts.rows, rows]))

    def _whole(self, texts: pa.Array) -> tuple[npt.NDArray[np.int32], IntArray]:
        """The same of messages that go through the encoder whole."""
        tokens, lengths = self._cutter.cut_whole(texts)
        return self._words.tokens.rows(tokens).astype(np.int32), lengths

    def _may_be_cut(self, texts: pa.Array) -> BoolArray:
        """Which messages may be longer than is read of them."""
        return pc.binary_length(texts).to_numpy(zero_copy_only=False) > self._text.max_characters

    def _fitted(self, rows: npt.NDArray[np.int32], lengths: IntArray) -> tuple[npt.NDArray[np.int32], IntArray]:
        """No message longer than [text] max_tokens, none without a token."""
        if lengths.max(initial=0) > self._text.max_tokens:
            within = places_of(np.zeros_like(lengths), lengths)
            rows, lengths = rows[within < self._text.max_tokens], np.minimum(lengths, self._text.max_tokens)
        empty = lengths == 0
        if empty.any():
            rows = np.insert(rows, (np.cumsum(lengths) - lengths)[empty], self._words.tokens.empty())
            lengths = np.maximum(lengths, 1)
        return rows, lengths


def _holds_vertical_tab(texts: pa.Array) -> BoolArray:
    """Which messages hold a vertical tab: white space to who cuts here, and none to the rules of the cleaning."""
    content = texts.buffers()[2]
    if content is None or _VERTICAL_TAB not in np.frombuffer(content, np.uint8):
        return np.zeros(len(texts), bool)
    return pc.match_substring(texts, "\v").to_numpy(zero_copy_only=False)


def _slices(texts: pa.Array, most: int) -> Iterator[pa.Array]:
    """Messages in slices of bounded size, each cut to the characters that can be among its first `most` bytes."""
    lengths = pc.binary_length(texts).to_numpy(zero_copy_only=False)
    if lengths.max(initial=0) > most:
        texts = pc.utf8_slice_codeunits(texts, 0, most)
    ends = np.cumsum(np.minimum(lengths, most), dtype=np.int64)
    first = 0
    while first < len(texts):
        before = ends[first - 1] if first else 0
        end = int(np.searchsorted(ends, before + _SLICE_CHARACTERS, side="right"))
        end = max(first + 1, min(end, first + _SLICE_MESSAGES))
        yield texts.slice(first, end - first).cast(pa.string())
        first = end


@compiled
def _look_across(words: IntArray, starts: IntArray, flags: FlagArray, whole: BoolArray, suspects: BoolArray) -> None:
    """Which messages the rules look across the words of, and which may hold letters that stand apart.

    Such letters are four at least. Where no word has two of them, two words of one letter stand between two that end,
    or begin, with one.

    Args:
        words: numbers of the words of all messages, int64 [words].
        starts: where those of each message begin and the last ends, int64 [messages + 1].
        flags: what each word may be beside others, by number.
        whole: takes the former, [messages]; what is true stays so.
        suspects: takes the latter, [messages].
    """
    for message in range(len(starts) - 1):
        before = second = third = 0  # what the last three words are, the last first
        for place in range(starts[message], starts[message + 1]):
            word = flags[words[place]]
            if word & NOT_ALONE or (before & ENDS_IN_CURRENCY and word & BEGINS_WITH_DIGIT):
                whole[message] = True
            between = before & second & IS_LETTER
            if word & MAY_BE_SPACED or (third & AT_AN_END and between and word & AT_AN_END):
                suspects[message] = True
            before, second, third = word, before, second
