"""Encodes messages with a cache of words: each distinct word goes through `models.text.encoder.TextEncoder` once.

A message is split at white space, and each piece ("word") is looked up in the cache. Only new words are cleaned, cut
into tokens and read. The result is the same as when the encoder reads the whole message, because its rules look across
white space in few cases. Messages with one of these cases go through the encoder whole: possible spaced-out letters, a
currency sign followed by a space and a digit, characters that are read as white space, and messages whose end is cut
off. A test checks that both ways give equal results.
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
from models.inference.word_cache import TokenCache, TokenRuns, WordCache
from models.inference.word_cutter import WordCutter
from models.inference.word_loops import (
    ENDS_IN_CURRENCY,
    IS_LETTER,
    LETTER_AT_EDGE,
    MAY_BE_SPACED,
    NEEDS_CONTEXT,
    STARTS_WITH_DIGIT,
    BoolArray,
    FlagArray,
    IntArray,
)
from models.text.arrow_tensors import Texts, as_arrow
from models.text.cleaning import NOT_PLAIN, max_bytes
from models.text.encoder import EncodedMessages, TextEncoder, expand_runs

# Maximum number of words, and of tokens. Beyond it those that did not recur are dropped, so that memory does not grow
# with the messages: a token with the network's cached inputs takes about a kilobyte.
MAX_CACHED = 45_000
_SLICE_MESSAGES = 20_000
_SLICE_CHARACTERS = 8 * 2**20
# Spaced-out letters, or any character that folding may change into a letter. Letters of plain messages are ASCII.
_SPACED_OR_FOLDED = rf"\b(?:[A-Za-z][ ._*+-]){{3,}}[A-Za-z]\b|{NOT_PLAIN}"
_VERTICAL_TAB = 0x0B


class MessageReader:
    """Encodes messages as `models.text.encoder.encode_messages` does, with a cache of words and tokens between calls.

    Not thread-safe.
    """

    def __init__(self, encoder: TextEncoder, max_cached: int = MAX_CACHED) -> None:
        """Starts with an empty cache.

        Args:
            encoder: encodes new words.
            max_cached: maximum number of words, and of tokens. When it is exceeded, the next call first drops those
                that occurred in one call only, or all if more than half of the maximum recurred.
        """
        self._text = encoder.vocabulary.text
        self._splits_words = self._text.cleaning == "signal"
        self._max_cached = max_cached
        self._cutter = WordCutter(encoder)
        self._words = WordCache(self._cutter, TokenCache(FastTokenReader(encoder)))

    def read(self, texts: Texts) -> EncodedMessages:
        """Encodes messages.

        Args:
            texts: messages.
        """
        if max(len(self._words.tokens), len(self._words)) > self._max_cached:
            self._words = self._words.recurring(self._max_cached // 2)
        limit = max_bytes(self._text)
        parts = [self._read_slice(texts_slice) for texts_slice in _slices(as_arrow(texts), limit)]
        rows = [np.zeros(0, np.int32), *(rows for rows, _ in parts)]
        lengths = [np.zeros(0, np.int64), *(lengths for _, lengths in parts)]
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        return EncodedMessages(np.concatenate(rows), starts, self._words.tokens.table())

    def _read_slice(self, texts: pa.Array) -> tuple[npt.NDArray[np.int32], IntArray]:
        """Encodes a slice of messages.

        Returns:
            Rows of the token table, int32 [tokens]; and the number of tokens of each message, int64 [messages].
        """
        rows, lengths = self._read_by_word(texts) if self._splits_words else self._read_whole(texts)
        return self._fit_lengths(rows, lengths)

    def _read_by_word(self, texts: pa.Array) -> tuple[npt.NDArray[np.int32], IntArray]:
        words, starts = self._words.numbers(texts)
        needs_whole = self._may_be_truncated(texts) | _contains_vertical_tab(texts)
        may_be_spaced = np.zeros(len(texts), bool)
        _find_context_dependent(words, starts, self._words.flags, needs_whole, may_be_spaced)
        indices = np.flatnonzero(may_be_spaced & ~needs_whole)
        needs_whole[indices[matches(texts.take(pa.array(indices)), _SPACED_OR_FOLDED)]] = True
        runs = self._words.runs(words)
        if needs_whole.any():
            # A message of white space only has no words and no tokens.
            runs = self._replace_words(runs, texts, starts, np.flatnonzero(needs_whole & (np.diff(starts) > 0)))
        ends = np.concatenate([[0], np.cumsum(runs.sizes)])[starts]
        return runs.tokens(), np.diff(ends)

    def _replace_words(self, runs: TokenRuns, texts: pa.Array, starts: IntArray, whole: IntArray) -> TokenRuns:
        """Replaces the words of messages that are read whole: the first one by all tokens, the others by none.

        Args:
            runs: tokens of all words. It is changed.
            texts: all messages.
            starts: index of each message's first word followed by the number of words, int64 [messages + 1].
            whole: indices of the messages that are read whole.
        """
        rows, sizes = self._read_whole(texts.take(pa.array(whole)))
        # These arrays may be changed, because they are copies of the cache.
        firsts = starts[whole]
        runs.sizes[expand_runs(firsts, starts[whole + 1] - firsts)] = 0
        runs.sizes[firsts] = sizes
        runs.firsts[firsts] = len(runs.rows) + np.cumsum(sizes) - sizes
        return TokenRuns(runs.firsts, runs.sizes, np.concatenate([runs.rows, rows]))

    def _read_whole(self, texts: pa.Array) -> tuple[npt.NDArray[np.int32], IntArray]:
        """Does the same for messages that go through the encoder whole."""
        content, starts, lengths = self._cutter.cut_whole(texts)
        return self._words.tokens.rows(content, starts).astype(np.int32), lengths

    def _may_be_truncated(self, texts: pa.Array) -> BoolArray:
        """Returns which messages may exceed [text] max_characters, bool [messages]."""
        return pc.binary_length(texts).to_numpy(zero_copy_only=False) > self._text.max_characters

    def _fit_lengths(self, rows: npt.NDArray[np.int32], lengths: IntArray) -> tuple[npt.NDArray[np.int32], IntArray]:
        """Truncates messages to [text] max_tokens, and gives empty messages the empty token."""
        if lengths.max(initial=0) > self._text.max_tokens:
            within = expand_runs(np.zeros_like(lengths), lengths)
            rows, lengths = rows[within < self._text.max_tokens], np.minimum(lengths, self._text.max_tokens)
        is_empty = lengths == 0
        if is_empty.any():
            rows = np.insert(rows, (np.cumsum(lengths) - lengths)[is_empty], self._words.tokens.empty_row())
            lengths = np.maximum(lengths, 1)
        return rows, lengths


def _contains_vertical_tab(texts: pa.Array) -> BoolArray:
    """Returns which messages contain a vertical tab, which splits words here but not in the cleaning rules."""
    content = texts.buffers()[2]
    if content is None or _VERTICAL_TAB not in np.frombuffer(content, np.uint8):
        return np.zeros(len(texts), bool)
    return pc.match_substring(texts, "\v").to_numpy(zero_copy_only=False)


def _slices(texts: pa.Array, limit: int) -> Iterator[pa.Array]:
    """Yields slices of bounded size. A message is cut to `limit` characters, which include its first `limit` bytes."""
    lengths = pc.binary_length(texts).to_numpy(zero_copy_only=False)
    if lengths.max(initial=0) > limit:
        texts = pc.utf8_slice_codeunits(texts, 0, limit)
    ends = np.cumsum(np.minimum(lengths, limit), dtype=np.int64)
    start = 0
    while start < len(texts):
        offset = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, offset + _SLICE_CHARACTERS, side="right"))
        stop = max(start + 1, min(stop, start + _SLICE_MESSAGES))
        yield texts.slice(start, stop - start).cast(pa.string())
        start = stop


@compiled
def _find_context_dependent(
    words: IntArray, starts: IntArray, flags: FlagArray, needs_whole: BoolArray, may_be_spaced: BoolArray
) -> None:
    """Finds the messages whose tokens depend on several words, and those that may contain spaced-out letters.

    Spaced-out letters are at least four. If no word contains two of them, there are two one-letter words between a word
    that ends with a letter and one that starts with a letter.

    Args:
        words: numbers of the words of all messages, int64 [words].
        starts: index of each message's first word followed by the number of words, int64 [messages + 1].
        flags: flags of each word, by number.
        needs_whole: output, whether words of a message depend on each other, [messages]; true values stay true.
        may_be_spaced: output, whether a message may contain spaced-out letters, [messages].
    """
    for message in range(len(starts) - 1):
        previous = second_last = third_last = 0  # flags of the last three words
        for index in range(starts[message], starts[message + 1]):
            word = flags[words[index]]
            if word & NEEDS_CONTEXT or (previous & ENDS_IN_CURRENCY and word & STARTS_WITH_DIGIT):
                needs_whole[message] = True
            between = previous & second_last & IS_LETTER
            if word & MAY_BE_SPACED or (third_last & LETTER_AT_EDGE and between and word & LETTER_AT_EDGE):
                may_be_spaced[message] = True
            previous, second_last, third_last = word, previous, second_last
