"""Cuts words into tokens, with the same results as `models.text.encoder.TextEncoder`, but faster.

Most words are one token, or are ASCII and can be cut where letters and signs meet. Only other words go through the
cleaning rules in TensorFlow. A test checks that both ways give equal results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from models.hashing.arrow_strings import from_buffers, matches, replace_at, to_buffers
from models.hashing.compiled import compiled
from models.text.arrow_tensors import arrow_to_tensor, tensor_to_arrow
from models.text.cleaning import NOT_PLAIN, TIE
from models.text.encoder import TextEncoder
from models.text.tokens import CURRENCY, MASKED_CODE, MASKED_PHONE, TOP_LEVEL

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FlagArray = npt.NDArray[np.uint8]

# A word that is one token. It is unchanged, except for a long number, of which it contains at most one. (A single
# letter does not match, because it may belong to spaced-out letters.) Amounts of money and numbers with a point do not
# match if they contain a long number.
_SINGLE = (
    r"^(?:[A-Za-z]{2,}|(?:[0-9]{0,4}[A-Za-z])*[0-9]+(?:[A-Za-z][0-9]{0,4})*|"
    r"[£$][0-9]{1,4}(?:[.,][0-9]{1,4})*[A-Za-z]*|[0-9]{1,4}(?:[.,:][0-9]{1,4})+[A-Za-z]*)$"
)
# A folded word that is cut wherever letters and digits meet signs. Each sign is a token, except in runs.
_ASCII = r"""^[0-9A-Za-z.,;:!?()"'/=+%&*-]+$"""
# Exceptions to that, which need the cleaning rules: a number with points, a long number before a letter, an apostrophe
# between letters, an address, spaced-out letters.
_NEEDS_RULES = (
    r"[0-9][.,:][0-9]|[0-9]{5}[0-9]*[A-Za-z]|[A-Za-z]'[A-Za-z]|(?i:www\.|https?:|\.(?:" + TOP_LEVEL + r")\b)|"
    r"[A-Za-z][.*+-][A-Za-z][.*+-]"
)
_IS_RUN_SIGN = np.isin(np.arange(256), list(b"!?.*"))
_IS_ALPHANUMERIC = np.isin(np.arange(256), list(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
# Numbers with at least so many digits are masked after the first three, as in `models.text.cleaning.LONG_NUMBERS`.
_MIN_LONG_DIGITS, _MIN_PHONE_DIGITS, _KEPT_DIGITS = 5, 7, 3
_ZERO = np.uint8(48)

# Flags, one bit each: how a word interacts with its neighbours.
NEEDS_CONTEXT = 1  # its tokens depend on the words before or after it
ENDS_IN_CURRENCY = 2  # its tokens change if the next word starts with a digit
STARTS_WITH_DIGIT = 4
MAY_BE_SPACED = 8  # it may belong to spaced-out letters, `f.r e.e`
IS_LETTER = 16  # it may be a single letter
LETTER_AT_EDGE = 32  # it may start or end spaced-out letters

# For folded words. Any character outside ASCII, except £, is assumed to be a letter, because compiling a pattern with
# all Unicode letters takes milliseconds.
_NON_ASCII = r"[^\x00-\x7f£]"
_FLAG_PATTERNS = (
    (NEEDS_CONTEXT, r"[\x00\x01\s\v" + TIE + "]"),
    (ENDS_IN_CURRENCY, CURRENCY + "$"),
    # Two letters without a letter or digit next to them or an underscore before them. An underscore may follow, with a
    # third letter after it: `f_r_e`.
    (MAY_BE_SPACED,
     r"(?:^|[^0-9A-Za-z_])[A-Za-z][._*+-][A-Za-z](?:$|[^0-9A-Za-z])|" + _NON_ASCII + r".*[._*+-]|[._*+-].*"
     + _NON_ASCII),
    (IS_LETTER, "^(?:[A-Za-z]|" + _NON_ASCII + ")$"),
    (LETTER_AT_EDGE, "(?:^|[^0-9A-Za-z_])[A-Za-z]$|^[A-Za-z](?:$|[^0-9A-Za-z_])|" + _NON_ASCII),
)  # fmt: skip


class WordTokens(NamedTuple):
    """The tokens of words.

    Attributes:
        tokens: of all words, Arrow binary. The tokens of one word are adjacent.
        firsts: index in `tokens` of each word's first token, int64 [words].
        sizes: number of tokens of each word, int64 [words].
        flags: how each word interacts with its neighbours, uint8 [words].
    """

    tokens: pa.Array
    firsts: IntArray
    sizes: IntArray
    flags: FlagArray


class WordCutter:
    """Cuts distinct words and, with the cleaning rules only, whole messages."""

    def __init__(self, encoder: TextEncoder) -> None:
        """Takes the cleaning rules from an encoder.

        Args:
            encoder: the encoder whose results this cutter reproduces.
        """
        self._fold, self._cut = encoder.compiled_fold, encoder.compiled_tokens

    def cut(self, words: pa.Array) -> WordTokens:
        """Cuts words into tokens.

        Args:
            words: Arrow strings without white space, [words].
        """
        single, other = _partition(matches(words, _SINGLE))
        singles, folded = words.take(pa.array(single)), self._fold_words(words.take(pa.array(other)))
        simple_indices, complex_indices = _partition(matches(folded, _ASCII) & ~matches(folded, _NEEDS_RULES))
        simple_tokens, simple_sizes = _cut_at_signs(folded.take(pa.array(simple_indices)))
        complex_tokens, complex_sizes = self._cut_by_rules(arrow_to_tensor(folded.take(pa.array(complex_indices))))
        indices = np.concatenate([single, other[simple_indices], other[complex_indices]])
        sizes_in_order = np.concatenate([np.ones(len(singles), np.int64), simple_sizes, complex_sizes])
        firsts, sizes = np.empty(len(words), np.int64), np.empty(len(words), np.int64)
        firsts[indices], sizes[indices] = np.cumsum(sizes_in_order) - sizes_in_order, sizes_in_order
        flags = np.empty(len(words), np.uint8)
        flags[single], flags[other] = _compute_flags(singles, ()), _compute_flags(folded, _FLAG_PATTERNS)
        tokens = pa.concat_arrays(
            [_mask_long_numbers(pa.concat_arrays([singles, simple_tokens])).cast(pa.binary()), complex_tokens]
        )
        return WordTokens(tokens, firsts, sizes, flags)

    def cut_whole(self, messages: pa.Array) -> tuple[pa.Array, IntArray]:
        """Cuts messages into tokens with the cleaning rules.

        Args:
            messages: Arrow strings, [messages].

        Returns:
            Tokens, Arrow binary; and the number of tokens of each message, int64 [messages].
        """
        return self._cut_by_rules(self._fold(arrow_to_tensor(messages)))

    def _cut_by_rules(self, folded: tf.Tensor) -> tuple[pa.Array, IntArray]:
        tokens = self._cut(folded)
        return tensor_to_arrow(tokens.flat_values), tokens.row_lengths().numpy()

    def _fold_words(self, words: pa.Array) -> pa.Array:
        """Folds the characters of words; plain words stay as they are."""
        indices = np.flatnonzero(matches(words, NOT_PLAIN))
        if not len(indices):
            return words
        folded = self._fold(arrow_to_tensor(words.take(pa.array(indices))))
        return replace_at(words, indices, tensor_to_arrow(folded).cast(pa.string()))


def _partition(mask: BoolArray) -> tuple[IntArray, IntArray]:
    """Returns the indices where the mask is true, and those where it is false."""
    return np.flatnonzero(mask), np.flatnonzero(~mask)


def _compute_flags(words: pa.Array, patterns: Sequence[tuple[int, str]]) -> FlagArray:
    """Computes the flags of words from the patterns that they match, uint8 [words]."""
    content, starts = to_buffers(words)
    flags = np.zeros(len(words), np.uint8)
    non_empty = np.flatnonzero(np.diff(starts))  # a word may be empty after folding
    flags[non_empty] = (content[starts[non_empty]] - _ZERO < 10) * np.uint8(STARTS_WITH_DIGIT)
    for flag, pattern in patterns:
        flags |= matches(words, pattern) * np.uint8(flag)
    return flags


def _cut_at_signs(words: pa.Array) -> tuple[pa.Array, IntArray]:
    """Cuts ASCII words where letters and digits meet signs.

    A sign is a token. A run of the same sign becomes one token of its first two, for signs that form runs.

    Returns:
        Tokens, Arrow strings; and the number of tokens of each word, int64 [words].
    """
    text, starts = to_buffers(words)
    is_alphanumeric, continues = _IS_ALPHANUMERIC[text], np.zeros(len(text), bool)
    continues[1:] = (is_alphanumeric[1:] & is_alphanumeric[:-1]) | (_IS_RUN_SIGN[text[1:]] & (text[1:] == text[:-1]))
    continues[starts[:-1]] = False
    is_dropped = continues & ~is_alphanumeric
    is_dropped[1:] &= continues[:-1]
    token_starts = np.flatnonzero(~continues[~is_dropped])
    sizes = np.diff(np.concatenate([[0], np.cumsum(~continues)])[starts])
    return from_buffers(text[~is_dropped], token_starts), sizes


def _mask_long_numbers(words: pa.Array) -> pa.Array:
    """Masks long numbers in tokens."""
    content, starts = to_buffers(words)
    masked, masked_starts = np.empty_like(content), np.zeros_like(starts)
    _mask(content, starts, masked, masked_starts)
    return from_buffers(masked[: masked_starts[-1]], masked_starts[:-1])


@compiled
def _mask(content: ByteArray, starts: IntArray, masked: ByteArray, masked_starts: IntArray) -> None:
    """Masks words as `models.text.cleaning.LONG_NUMBERS` does, into the last two arguments. No word gets longer."""
    position = 0
    for word in range(len(starts) - 1):
        index, stop = starts[word], starts[word + 1]
        while index < stop:
            digits = 0
            while index + digits < stop and 48 <= content[index + digits] <= 57:
                digits += 1
            keep, marks = digits, 0
            if digits >= _MIN_LONG_DIGITS:
                keep, marks = _KEPT_DIGITS, len(MASKED_PHONE) if digits >= _MIN_PHONE_DIGITS else len(MASKED_CODE)
            for offset in range(max(keep, 1)):  # not a digit: the character itself
                masked[position] = content[index + offset]
                position += 1
            for _ in range(marks):
                masked[position] = 35  # a number sign
                position += 1
            index += max(digits, 1)
        masked_starts[word + 1] = position
