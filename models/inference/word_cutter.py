"""Words cut into tokens as `models.text.encoder.TextEncoder` cuts them, faster: most are one token or, being ASCII,
are cut
where letters and signs meet, and need TensorFlow's rules for nothing. A test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from models.hashing.arrow_strings import bytes_of, matches, replaced, strings_of
from models.hashing.compiled import compiled
from models.text.arrow_tensors import arrow_of, tensor_of
from models.text.cleaning import NOT_PLAIN, TIE
from models.text.encoder import TextEncoder
from models.text.tokens import CURRENCY, MASKED_CODE, MASKED_PHONE, TOP_LEVEL

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FlagArray = npt.NDArray[np.uint8]

# Such a word is one token: as it is, but for a long number, of which it has one at most. (One letter may be part of
# letters that stand apart.) Sums of money and numbers with a point have no long one.
_SINGLE = (
    r"^(?:[A-Za-z]{2,}|(?:[0-9]{0,4}[A-Za-z])*[0-9]+(?:[A-Za-z][0-9]{0,4})*|"
    r"[£$][0-9]{1,4}(?:[.,][0-9]{1,4})*[A-Za-z]*|[0-9]{1,4}(?:[.,:][0-9]{1,4})+[A-Za-z]*)$"
)
# Such a word, once folded, ends a token wherever letters and digits end or begin; each sign is one, but for runs.
_OF_SIGNS = r"""^[0-9A-Za-z.,;:!?()"'/=+%&*-]+$"""
# Unless the rules know something of it: a number with points, a long one before a letter, an apostrophe between
# letters, an address, letters that stand apart.
_RULED = (
    r"[0-9][.,:][0-9]|[0-9]{5}[0-9]*[A-Za-z]|[A-Za-z]'[A-Za-z]|(?i:www\.|https?:|\.(?:" + TOP_LEVEL + r")\b)|"
    r"[A-Za-z][.*+-][A-Za-z][.*+-]"
)
_IN_RUNS = np.isin(np.arange(256), list(b"!?.*"))
_IN_WORDS = np.isin(np.arange(256), list(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
# Of numbers with so many digits and more, so many are kept: as `models.text.cleaning.LONG_NUMBERS` has it.
_LONG, _OF_PHONES, _KEPT_DIGITS = 5, 7, 3
_ZERO = np.uint8(48)

# What a word may be beside others, a bit each.
NOT_ALONE = 1  # what comes before or after changes it
ENDS_IN_CURRENCY = 2  # a digit after white space changes it
BEGINS_WITH_DIGIT = 4
MAY_BE_SPACED = 8  # it may be part of letters that stand apart, `f.r e.e`
IS_LETTER = 16  # it is what may be one letter
AT_AN_END = 32  # it may be the first or the last of letters that stand apart

# Of folded words. That any letter outside ASCII may be one that stands apart is presumed: to make ready a pattern with
# all letters there are takes milliseconds.
_OTHER = r"[^\x00-\x7f£]"
_FLAGGED = (
    (NOT_ALONE, r"[\x00\x01\s\v" + TIE + "]"),
    (ENDS_IN_CURRENCY, CURRENCY + "$"),
    # Two letters with no letter or digit beside them, nor a low line before; one behind may set a third apart: `f_r_e`.
    (MAY_BE_SPACED,
     r"(?:^|[^0-9A-Za-z_])[A-Za-z][._*+-][A-Za-z](?:$|[^0-9A-Za-z])|" + _OTHER + r".*[._*+-]|[._*+-].*" + _OTHER),
    (IS_LETTER, "^(?:[A-Za-z]|" + _OTHER + ")$"),
    (AT_AN_END, "(?:^|[^0-9A-Za-z_])[A-Za-z]$|^[A-Za-z](?:$|[^0-9A-Za-z_])|" + _OTHER),
)  # fmt: skip


class CutWords(NamedTuple):
    """Words as their tokens.

    Attributes:
        tokens: Arrow binary, those of one word after those of another.
        firsts: where in them those of each word begin, int64 [words].
        sizes: how many they are, int64 [words].
        flags: what each word may be beside others, uint8 [words].
    """

    tokens: pa.Array
    firsts: IntArray
    sizes: IntArray
    flags: FlagArray


class WordCutter:
    """Cuts distinct words and, by the rules alone, whole messages."""

    def __init__(self, encoder: TextEncoder) -> None:
        """Takes the rules.

        Args:
            encoder: what it cuts as.
        """
        self._fold, self._cut = encoder.compiled_fold, encoder.compiled_tokens

    def cut(self, words: pa.Array) -> CutWords:
        """Cuts words.

        Args:
            words: Arrow strings without white space, [words].
        """
        singles, others = _apart(matches(words, _SINGLE))
        single, folded = words.take(pa.array(singles)), self._folded(words.take(pa.array(others)))
        by_signs, by_rules = _apart(matches(folded, _OF_SIGNS) & ~matches(folded, _RULED))
        simple, sizes_of_simple = _cut_at_signs(folded.take(pa.array(by_signs)))
        ruled, sizes_of_ruled = self._by_rules(tensor_of(folded.take(pa.array(by_rules))))
        places = np.concatenate([singles, others[by_signs], others[by_rules]])
        sizes_there = np.concatenate([np.ones(len(single), np.int64), sizes_of_simple, sizes_of_ruled])
        firsts, sizes = np.empty(len(words), np.int64), np.empty(len(words), np.int64)
        firsts[places], sizes[places] = np.cumsum(sizes_there) - sizes_there, sizes_there
        flags = np.empty(len(words), np.uint8)
        flags[singles], flags[others] = _flagged(single, ()), _flagged(folded, _FLAGGED)
        tokens = pa.concat_arrays([_masked(pa.concat_arrays([single, simple])).cast(pa.binary()), ruled])
        return CutWords(tokens, firsts, sizes, flags)

    def cut_whole(self, messages: pa.Array) -> tuple[pa.Array, IntArray]:
        """Cuts messages.

        Args:
            messages: Arrow strings, [messages].

        Returns:
            Tokens, Arrow binary, and how many are of each message, int64 [messages].
        """
        return self._by_rules(self._fold(tensor_of(messages)))

    def _by_rules(self, folded: tf.Tensor) -> tuple[pa.Array, IntArray]:
        cut = self._cut(folded)
        return arrow_of(cut.flat_values), cut.row_lengths().numpy()

    def _folded(self, words: pa.Array) -> pa.Array:
        """Words as they are read, those that are plain as they are."""
        places = np.flatnonzero(matches(words, NOT_PLAIN))
        if not len(places):
            return words
        folded = self._fold(tensor_of(words.take(pa.array(places))))
        return replaced(words, places, arrow_of(folded).cast(pa.string()))


def _apart(which: BoolArray) -> tuple[IntArray, IntArray]:
    """The places of these, and those of the others."""
    return np.flatnonzero(which), np.flatnonzero(~which)


def _flagged(words: pa.Array, patterns: Sequence[tuple[int, str]]) -> FlagArray:
    """What words may be beside others, uint8 [words], by the patterns that are found in them."""
    content, starts = bytes_of(words)
    flags = np.zeros(len(words), np.uint8)
    some = np.flatnonzero(np.diff(starts))  # a word may be nothing once it is folded
    flags[some] = (content[starts[some]] - _ZERO < 10) * np.uint8(BEGINS_WITH_DIGIT)
    for flag, pattern in patterns:
        flags |= matches(words, pattern) * np.uint8(flag)
    return flags


def _cut_at_signs(words: pa.Array) -> tuple[pa.Array, IntArray]:
    """Tokens of ASCII words, Arrow strings, and how many are of each word, int64 [words].

    A sign is a token of its own; of those that come in runs, the first two are one and the rest is dropped.
    """
    text, starts = bytes_of(words)
    in_word, again = _IN_WORDS[text], np.zeros(len(text), bool)
    again[1:] = (in_word[1:] & in_word[:-1]) | (_IN_RUNS[text[1:]] & (text[1:] == text[:-1]))
    again[starts[:-1]] = False
    dropped = again & ~in_word
    dropped[1:] &= again[:-1]
    begins = np.flatnonzero(~again[~dropped])
    sizes = np.diff(np.concatenate([[0], np.cumsum(~again)])[starts])
    return strings_of(text[~dropped], begins), sizes


def _masked(words: pa.Array) -> pa.Array:
    """Tokens, of long numbers what is kept of them."""
    content, starts = bytes_of(words)
    masked, masked_starts = np.empty_like(content), np.zeros_like(starts)
    _mask(content, starts, masked, masked_starts)
    return strings_of(masked[: masked_starts[-1]], masked_starts[:-1])


@compiled
def _mask(content: ByteArray, starts: IntArray, masked: ByteArray, masked_starts: IntArray) -> None:
    """What `models.text.cleaning.LONG_NUMBERS` makes of words, which is never longer; the last two arguments take
    it.
    """
    place = 0
    for word in range(len(starts) - 1):
        at, end = starts[word], starts[word + 1]
        while at < end:
            digits = 0
            while at + digits < end and 48 <= content[at + digits] <= 57:
                digits += 1
            kept, marks = digits, 0
            if digits >= _LONG:
                kept, marks = _KEPT_DIGITS, len(MASKED_PHONE) if digits >= _OF_PHONES else len(MASKED_CODE)
            for step in range(max(kept, 1)):  # no digit: the sign itself
                masked[place] = content[at + step]
                place += 1
            for _ in range(marks):
                masked[place] = 35  # a number sign
                place += 1
            at += max(digits, 1)
        masked_starts[word + 1] = place
