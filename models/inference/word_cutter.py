"""Cuts words into tokens, with the same results as `models.text.encoder.TextEncoder`, but faster.

Most words are one token, or are ASCII and can be cut where letters and signs meet: a compiled loop cuts them. The
cleaning rules cut the others, in Python (`models.text.word_rules`) or, where that cannot, in TensorFlow. Tests
check that all ways give equal results.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.hashing.arrow_strings import Buffers, join_strings, replace_at
from models.inference.word_loops import (
    BY_RULES,
    ByteArray,
    FlagArray,
    IntArray,
    cut_words,
    decode_words,
    find_not_plain,
)
from models.text.encoder import Characters, TextEncoder
from models.text.word_rules import cut_word, fold_word

# Python takes some twenty microseconds for a word that needs the rules. TensorFlow takes a millisecond for a call, and
# then two microseconds a word.
MANY_WORDS = 64


class WordTokens(NamedTuple):
    """The tokens of words.

    Attributes:
        content: concatenated bytes of the tokens. The tokens of one word are adjacent.
        starts: offset of each token followed by the end of the last one, int64 [tokens + 1].
        firsts: index of each word's first token, int64 [words].
        sizes: number of tokens of each word, int64 [words].
        flags: how each word interacts with its neighbours, uint8 [words].
        codes: code points of the folded words, each word with a space in front, int32.
        code_sizes: number of codes of each word, int64 [words].
    """

    content: ByteArray
    starts: IntArray
    firsts: IntArray
    sizes: IntArray
    flags: FlagArray
    codes: npt.NDArray[np.int32]
    code_sizes: IntArray


class WordCutter:
    """Cuts distinct words and, with the cleaning rules only, whole messages."""

    def __init__(self, encoder: TextEncoder) -> None:
        """Takes the cleaning rules from an encoder.

        Args:
            encoder: the encoder whose results this cutter reproduces.
        """
        self._fold, self._cut = encoder.compiled_fold, encoder.compiled_tokens
        self._read_characters = encoder.compiled_characters
        self._max_characters = encoder.vocabulary.text.max_characters

    def cut(self, content: ByteArray, starts: IntArray) -> WordTokens:
        """Cuts words into tokens.

        Args:
            content: concatenated bytes of the words, which are UTF-8 without white space.
            starts: offset of each word followed by the end of the last one, int64 [words + 1].
        """
        content, starts = _fold_words(content, starts)
        words = len(starts) - 1
        codes, code_sizes = np.empty(len(content) + words, np.int32), np.empty(words, np.int64)
        decode_words(content, starts, codes, code_sizes)
        firsts, sizes, flags = np.empty(words, np.int64), np.empty(words, np.int64), np.empty(words, np.uint8)
        # No token is longer than its part of a word.
        tokens, token_starts = np.empty(len(content), np.uint8), np.zeros(len(content) + 1, np.int64)
        count = cut_words(content, starts, firsts, sizes, flags, tokens, token_starts)
        token_starts = token_starts[: count + 1]
        tokens = tokens[: token_starts[-1]]
        remaining = np.flatnonzero(sizes == BY_RULES)
        if len(remaining):
            cut = self._cut_by_rules([content[starts[word] : starts[word + 1]].tobytes() for word in remaining])
            sizes[remaining] = [len(word) for word in cut]
            firsts[remaining] = count + np.cumsum(sizes[remaining]) - sizes[remaining]
            more, more_starts = join_strings(list(itertools.chain.from_iterable(cut)))
            token_starts = np.concatenate([token_starts, len(tokens) + more_starts[1:]])
            tokens = np.concatenate([tokens, more])
        return WordTokens(tokens, token_starts, firsts, sizes, flags, codes[: code_sizes.sum()], code_sizes)

    def cut_whole(self, messages: Sequence[bytes]) -> tuple[Buffers, IntArray, Characters]:
        """Cuts messages into tokens with the cleaning rules.

        Returns:
            The tokens; the number of tokens of each message, int64 [messages]; and the characters of the messages.
        """
        folded = self._fold(tf.constant(messages, tf.string, [len(messages)]))
        tokens, characters = self._cut(folded), self._read_characters(folded)
        return (
            join_strings(tokens.flat_values.numpy()),
            tokens.row_lengths().numpy(),
            Characters(characters.flat_values.numpy(), characters.row_splits.numpy()),
        )

    def _cut_by_rules(self, words: Sequence[bytes]) -> list[list[bytes]]:
        """Cuts folded words with the cleaning rules."""
        if len(words) > MANY_WORDS:
            return self._cut_by_encoder(words)
        cut = [cut_word(word.decode(), self._max_characters) for word in words]
        others = [word for word, tokens in zip(words, cut, strict=True) if tokens is None]
        by_encoder = iter(self._cut_by_encoder(others) if others else [])
        return [next(by_encoder) if tokens is None else tokens for tokens in cut]

    def _cut_by_encoder(self, words: Sequence[bytes]) -> list[list[bytes]]:
        tokens = self._cut(tf.constant(words, tf.string))
        flat, ends = tokens.flat_values.numpy().tolist(), np.cumsum(tokens.row_lengths().numpy()).tolist()
        return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _fold_words(content: ByteArray, starts: IntArray) -> Buffers:
    """Folds the characters of words; plain words stay as they are."""
    needs_folding = np.zeros(len(starts) - 1, bool)
    find_not_plain(content, starts, needs_folding)
    if not needs_folding.any():
        return content, starts
    indices = np.flatnonzero(needs_folding)
    words = (content[starts[index] : starts[index + 1]].tobytes().decode() for index in indices)
    return replace_at((content, starts), indices, [fold_word(word).encode() for word in words])
