"""Words cut into tokens as `models.encoder.TextEncoder` cuts them, faster: most are one token or, being ASCII, are cut
where letters and signs meet, and need TensorFlow's rules for nothing. A test holds the two equal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from models.arrow_strings import arrow_of, bytes_of, matches, replaced, strings_of, tensor_of
from models.encoder import TextEncoder
from models.text import LONG_NUMBERS, NOT_PLAIN, TIE, traced
from models.tokens import CURRENCY, TOP_LEVEL

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

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
# What follows looks for letters that stand apart, `f.r e.e`, in words once folded. That any letter outside ASCII may be
# one is presumed: to make ready a pattern with all letters there are takes milliseconds.
_OTHER = r"[^\x00-\x7f£]"
# Such a word has two, with no letter or digit beside them, nor a low line before; one behind may set a third apart,
# `f_r_e e`.
_MAY_BE_SPACED = (
    r"(?:^|[^0-9A-Za-z_])[A-Za-z][._*+-][A-Za-z](?:$|[^0-9A-Za-z])|" + _OTHER + r".*[._*+-]|[._*+-].*" + _OTHER
)
_LETTER = "^(?:[A-Za-z]|" + _OTHER + ")$"
# Words that may be the first or the last.
_AT_AN_END = "(?:^|[^0-9A-Za-z_])[A-Za-z]$|^[A-Za-z](?:$|[^0-9A-Za-z_])|" + _OTHER
# Words, once folded, that what comes before or after changes, or that are no single word.
_NOT_ALONE = r"[\x00\x01\s\v" + TIE + "]"
_ENDS_IN_CURRENCY = CURRENCY + "$"
_BEGINS_WITH_DIGIT = "^[0-9]"
_FLAGS = (_NOT_ALONE, _ENDS_IN_CURRENCY, _MAY_BE_SPACED, _LETTER, _AT_AN_END)
_LONG_NUMBER = "[0-9]{5}"


class WordFlags(NamedTuple):
    """What words may be beside others.

    Attributes:
        begins_with_digit: bool [words].
        not_alone: words that what comes before or after changes, bool [words].
        ends_in_currency: words that a digit after white space changes, bool [words].
        may_be_spaced: words that may be part of letters that stand apart, bool [words].
        is_letter: words of what may be one letter, bool [words].
        at_an_end: words that may be the first or the last of letters that stand apart, bool [words].
    """

    begins_with_digit: BoolArray
    not_alone: BoolArray
    ends_in_currency: BoolArray
    may_be_spaced: BoolArray
    is_letter: BoolArray
    at_an_end: BoolArray


class CutWords(NamedTuple):
    """Words as their tokens.

    Attributes:
        tokens: Arrow binary, those of one word after those of another.
        sizes: how many are of each word, int64 [words].
        flags: what the words may be beside others.
        order: which word is in which place, int64 [words].
    """

    tokens: pa.Array
    sizes: IntArray
    flags: WordFlags
    order: IntArray


class WordCutter:
    """Cuts distinct words and, by the rules alone, whole messages."""

    def __init__(self, encoder: TextEncoder) -> None:
        """Takes the rules.

        Args:
            encoder: what it cuts as.
        """
        self._fold, self._cut = traced(encoder.fold), traced(encoder.tokens)

    def cut(self, words: pa.Array) -> CutWords:
        """Cuts words, in an order of its own.

        Args:
            words: Arrow strings without white space, [words].
        """
        singles, others = _apart(matches(words, _SINGLE))
        single, folded = words.take(pa.array(singles)), self._folded(words.take(pa.array(others)))
        by_signs, by_rules = _apart(matches(folded, _OF_SIGNS) & ~matches(folded, _RULED))
        simple, sizes_of_simple = _cut_at_signs(folded.take(pa.array(by_signs)))
        ruled, sizes_of_ruled = self._by_rules(tensor_of(folded.take(pa.array(by_rules))))
        behind = np.concatenate([by_signs, by_rules])
        in_order = pa.concat_arrays([single, folded.take(pa.array(behind))])
        no_flags = np.zeros(len(single), bool)
        flags = [np.concatenate([no_flags, matches(in_order[len(single) :], one)]) for one in _FLAGS]
        return CutWords(
            pa.concat_arrays([_masked(pa.concat_arrays([single, simple])).cast(pa.binary()), ruled]),
            np.concatenate([np.ones(len(single), np.int64), sizes_of_simple, sizes_of_ruled]),
            WordFlags(matches(in_order, _BEGINS_WITH_DIGIT), *flags),
            np.concatenate([singles, others[behind]]),
        )

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
    places = np.flatnonzero(matches(words, _LONG_NUMBER))
    masked = words.take(pa.array(places))
    for pattern, replacement in LONG_NUMBERS:
        masked = pc.replace_substring_regex(masked, pattern, replacement)
    return replaced(words, places, masked)
