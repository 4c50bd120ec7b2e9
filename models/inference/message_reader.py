"""Encodes messages with a cache of words: each distinct word goes through `models.text.encoder.TextEncoder` once.

A message is split at white space, and each piece ("word") is looked up in the cache. Only new words are cleaned, cut
into tokens and read. The result is the same as when the encoder reads the whole message, because its rules look across
white space in few cases. Messages with one of these cases go through the encoder whole: possible spaced-out letters, a
currency sign followed by a space and a digit, characters that are read as white space, and messages whose end is cut
off. A test checks that both ways give equal results.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.hashing.arrow_strings import Buffers, join_strings
from models.hashing.compiled import compiled
from models.inference.token_reader import FastTokenReader
from models.inference.word_cache import TokenCache, WordCache
from models.inference.word_cutter import WordCutter
from models.inference.word_loops import (
    ENDS_IN_CURRENCY,
    IS_LETTER,
    LETTER_AT_EDGE,
    MAY_BE_SPACED,
    NEEDS_CONTEXT,
    STARTS_WITH_DIGIT,
    BoolArray,
    ByteArray,
    FlagArray,
    IntArray,
)
from models.text.cleaning import NOT_PLAIN, max_bytes
from models.text.encoder import Characters, EncodedMessages, TextEncoder, expand_runs
from models.text.texts import Texts, as_buffers

# Maximum number of words, and of tokens. Beyond it those that did not recur are dropped, so that memory does not grow
# with the messages: a token with the network's cached inputs takes about a kilobyte.
MAX_CACHED = 45_000
_SLICE_MESSAGES = 20_000
_SLICE_BYTES = 8 * 2**20
# Spaced-out letters, or any character that folding may change into a letter. Letters of plain messages are ASCII.
_SPACED_OR_FOLDED = re.compile(rf"\b(?:[A-Za-z][ ._*+-]){{3,}}[A-Za-z]\b|{NOT_PLAIN}", re.ASCII)
# In UTF-8 every byte of a character except the first is 10xxxxxx.
_TOP_BITS, _CONTINUATION = 0xC0, 0x80
_VERTICAL_TAB, _SPACE = 0x0B, 0x20


class _Encoded(NamedTuple):
    """Some messages, encoded.

    Attributes:
        rows: rows of the token table, int32 [tokens of all].
        lengths: number of tokens of each message, int64 [messages].
        codes: code points, as `TextEncoder.characters` returns them, int32 [characters of all].
        code_counts: number of code points of each message, int64 [messages].
    """

    rows: npt.NDArray[np.int32]
    lengths: IntArray
    codes: npt.NDArray[np.int32]
    code_counts: IntArray


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
        """Encodes messages."""
        return self.read_buffers(*as_buffers(texts))

    def read_buffers(self, content: ByteArray, starts: IntArray) -> EncodedMessages:
        """Encodes messages.

        Args:
            content: concatenated bytes of the messages, which are UTF-8.
            starts: offset of each message followed by the end of the last one, int64 [messages + 1].
        """
        if max(len(self._words.tokens), len(self._words)) > self._max_cached:
            self._words = self._words.recurring(self._max_cached // 2)
        parts = [self._read_slice(*part) for part in _slices(content, starts, max_bytes(self._text))]
        rows, lengths, codes, code_counts = (
            parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        )
        characters = Characters(codes, _starts_of(code_counts))
        return EncodedMessages(rows, _starts_of(lengths), self._words.tokens.table(), characters)

    def _read_slice(self, content: ByteArray, starts: IntArray) -> _Encoded:
        """Encodes a slice of messages."""
        if self._splits_words:
            encoded = self._read_by_word(content, starts)
        else:
            encoded = self._read_whole(_texts_at(content, starts, range(len(starts) - 1)))
        rows, lengths = self._fit_lengths(encoded.rows, encoded.lengths)
        return encoded._replace(rows=rows, lengths=lengths)

    def _read_by_word(self, content: ByteArray, starts: IntArray) -> _Encoded:
        words, word_starts = self._words.numbers(content, starts)
        needs_whole = np.zeros(len(starts) - 1, bool)
        may_be_spaced = np.zeros(len(starts) - 1, bool)
        _find_context_dependent(
            content, starts, words, word_starts, self._words.flags, self._text.max_characters, needs_whole,
            may_be_spaced,
        )  # fmt: skip
        if may_be_spaced.any():
            indices = np.flatnonzero(may_be_spaced & ~needs_whole)
            texts = _texts_at(content, starts, indices)
            needs_whole[indices] = [_SPACED_OR_FOLDED.search(text.decode()) is not None for text in texts]
        runs, code_runs = self._words.runs(words), self._words.code_runs(words)
        if needs_whole.any():
            # A message of white space only has no words and no tokens.
            whole = np.flatnonzero(needs_whole & (np.diff(word_starts) > 0))
            encoded = self._read_whole(_texts_at(content, starts, whole))
            runs = runs.replace_words(encoded.rows, encoded.lengths, word_starts, whole)
            # Without the last space, which `join` adds.
            code_starts = np.cumsum(encoded.code_counts) - encoded.code_counts
            codes = np.delete(encoded.codes, code_starts + encoded.code_counts - 1)
            code_runs = code_runs.replace_words(codes, encoded.code_counts - 1, word_starts, whole)
        return _Encoded(*runs.join(word_starts), *code_runs.join(word_starts, last=_SPACE))

    def _read_whole(self, texts: Sequence[bytes]) -> _Encoded:
        """Encodes messages that go through the encoder whole."""
        tokens, lengths, characters = self._cutter.cut_whole(texts)
        rows = self._words.tokens.rows(*tokens).astype(np.int32)
        return _Encoded(rows, lengths, characters.codes, np.diff(characters.starts))

    def _fit_lengths(self, rows: npt.NDArray[np.int32], lengths: IntArray) -> tuple[npt.NDArray[np.int32], IntArray]:
        """Truncates messages to [text] max_tokens, and gives empty messages the empty token."""
        if lengths.max(initial=0) > self._text.max_tokens:
            within = expand_runs(np.zeros_like(lengths), lengths)
            rows, lengths = rows[within < self._text.max_tokens], np.minimum(lengths, self._text.max_tokens)
        if not lengths.all():
            is_empty = lengths == 0
            rows = np.insert(rows, (np.cumsum(lengths) - lengths)[is_empty], self._words.tokens.empty_row())
            lengths = np.maximum(lengths, 1)
        return rows, lengths


def _starts_of(lengths: IntArray) -> IntArray:
    """Returns the start of each item of the given lengths, and the end of the last one."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _texts_at(content: ByteArray, starts: IntArray, indices: Iterable[int]) -> list[bytes]:
    """Returns the bytes of some messages."""
    return [content[starts[index] : starts[index + 1]].tobytes() for index in indices]


def _slices(content: ByteArray, starts: IntArray, limit: int) -> Iterator[Buffers]:
    """Yields slices of bounded size. A message is cut at the end of the character that contains its last read byte."""
    if len(content) > limit and np.diff(starts).max() > limit:
        content, starts = join_strings(
            [_cut_bytes(text, limit) for text in _texts_at(content, starts, range(len(starts) - 1))]
        )
    start, messages = 0, len(starts) - 1
    while start < messages or start == 0:
        stop = int(np.searchsorted(starts, starts[start] + _SLICE_BYTES, side="right")) - 1
        stop = min(max(start + 1, min(stop, start + _SLICE_MESSAGES)), messages)
        yield content[starts[start] : starts[stop]], starts[start : stop + 1] - starts[start]
        start = max(stop, 1)


def _cut_bytes(text: bytes, limit: int) -> bytes:
    while limit < len(text) and text[limit] & _TOP_BITS == _CONTINUATION:
        limit += 1
    return text[:limit]


@compiled
def _find_context_dependent(
    content: ByteArray,
    starts: IntArray,
    words: IntArray,
    word_starts: IntArray,
    flags: FlagArray,
    max_bytes: int,
    needs_whole: BoolArray,
    may_be_spaced: BoolArray,
) -> None:
    """Finds the messages whose tokens depend on several words, and those that may contain spaced-out letters.

    Spaced-out letters are at least four. If no word contains two of them, there are two one-letter words between a word
    that ends with a letter and one that starts with a letter.

    Args:
        content: concatenated bytes of the messages.
        starts: offset of each message followed by the end of the last one, int64 [messages + 1].
        words: numbers of the words of all messages, int64 [words].
        word_starts: index of each message's first word followed by the number of words, int64 [messages + 1].
        flags: flags of each word, by number.
        max_bytes: of a message whose end cannot be cut off.
        needs_whole: output, whether words of a message depend on each other, [messages], at first false.
        may_be_spaced: output, whether a message may contain spaced-out letters, [messages], at first false.
    """
    for message in range(len(starts) - 1):
        needs_whole[message] = starts[message + 1] - starts[message] > max_bytes
        for index in range(starts[message], starts[message + 1]):
            # It splits words here, but not in the cleaning rules.
            needs_whole[message] |= content[index] == _VERTICAL_TAB
        previous = second_last = third_last = 0  # flags of the last three words
        for index in range(word_starts[message], word_starts[message + 1]):
            word = flags[words[index]]
            if word & NEEDS_CONTEXT or (previous & ENDS_IN_CURRENCY and word & STARTS_WITH_DIGIT):
                needs_whole[message] = True
            between = previous & second_last & IS_LETTER
            if word & MAY_BE_SPACED or (third_last & LETTER_AT_EDGE and between and word & LETTER_AT_EDGE):
                may_be_spaced[message] = True
            previous, second_last, third_last = word, previous, second_last
