"""Computes the features of tokens: the word that a token counts as, its shape, and its character n-grams.

The n-grams describe words that are not in the vocabulary (fastText; Bojanowski et al. 2017, "Enriching Word Vectors
with Subword Information"). All features are TensorFlow operations over distinct tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Classes of tokens that are not words. They are in capitals, which words never are.
URL, EMAIL, MONEY, NUMBER, CODE, PHONE = CLASSES = ("URL", "EMAIL", "MONEY", "NUMBER", "CODE", "PHONE")
CURRENCY = "[£$€¥₹₦₱₽]"
TOP_LEVEL = (
    "com|net|org|info|biz|io|co|me|ly|gl|gd|app|xyz|top|shop|site|online|club|link|live|vip|win|icu|cc|tv|mobi|uk|us|in|au|"
    "de|fr|es|it|nl|pt|br|ru|cn|sg|za|ng|ie|eu|ca|example|test|invalid"
)
URL_PATTERN = r"(?i:https?://|www\.)\S+|(?:[a-zA-Z0-9-]+\.)+(?i:" + TOP_LEVEL + r")\b(?:/\S*)?"
EMAIL_PATTERN = r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+"
# `models.text.cleaning` keeps the first three digits of a long number, and one of these masks for its length.
MASKED_CODE, MASKED_PHONE = "##", "####"
CLASS_PATTERNS = (
    (EMAIL, EMAIL_PATTERN),
    (URL, URL_PATTERN),
    (MONEY, CURRENCY + r"\d.*"),
    (PHONE, r".*\d" + MASKED_PHONE),
    (CODE, r".*\d" + MASKED_CODE),
    (NUMBER, r"[\d.,:]*\d|" + MASKED_CODE),
)
_LETTERS = r"\pL*"
# Digits among letters are read as letters if the token is not a known word, and the result is one or digits are inside.
WITH_DIGITS, WITH_LETTERS = r"[a-z0-9]*\d[a-z0-9]*", r".*[a-z].*"
DIGITS_INSIDE = r"[a-z].*|.*[a-z]\d+[a-z].*"
# The shape of a word, by number. Its mark is put before the n-grams.
AS_WRITTEN, CAPITALS, TITLE = range(3)
SHAPES = 3
MARKS = ("", "^", "~")
NGRAM_SIZES = (2, 3, 4, 5)
CLASS_NGRAMS = 3
LEET = (("0", "o"), ("1", "i"), ("3", "e"), ("4", "a"), ("5", "s"), ("7", "t"))


def word_keys(tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the vocabulary keys and the classes of tokens.

    Args:
        tokens: string [tokens], as `models.text.cleaning` returns them.

    Returns:
        Two string [tokens]. The key under which a token is looked up: its class for addresses, amounts of money and
        long numbers, otherwise the token in lower case. And its class, or the key if it has none. So a short number
        that is not in the vocabulary still has the class of numbers.
    """
    lower = tf.strings.lower(tokens, encoding="utf-8")
    # Most tokens consist of letters only, and no class does.
    indices = tf.where(~tf.strings.regex_full_match(lower, _LETTERS))
    candidates = tf.gather_nd(lower, indices)
    classes = candidates
    for name, pattern in reversed(CLASS_PATTERNS):
        classes = tf.where(tf.strings.regex_full_match(candidates, pattern), name, classes)
    masked = tf.strings.regex_full_match(candidates, MASKED_CODE)
    keys = tf.where((classes == NUMBER) & ~masked, candidates, classes)
    return tf.tensor_scatter_nd_update(lower, indices, keys), tf.tensor_scatter_nd_update(lower, indices, classes)


def find_shapes(tokens: tf.Tensor) -> tf.Tensor:
    """Finds the shapes of tokens: `CAPITALS` (at least two letters), `TITLE` or `AS_WRITTEN`, int32 [tokens]."""
    capitals = tf.strings.regex_full_match(tokens, r"\P{L}*\p{Lu}\P{L}*\p{Lu}[\P{L}\p{Lu}]*")
    title = tf.strings.regex_full_match(tokens, r"\p{Lu}[\pL\pM\pN]*")
    return tf.where(capitals, CAPITALS, tf.where(title, TITLE, AS_WRITTEN))


class TokenReader(tf.Module):
    """Computes the features of distinct tokens: number in the vocabulary, shape, and n-grams."""

    def __init__(self, lookup: Callable[[tf.Tensor], tf.Tensor], unknown: int, buckets: int) -> None:
        """Takes the vocabulary as a function.

        Args:
            lookup: returns the numbers in the vocabulary, int64 [tokens], of keys, string [tokens].
            unknown: the number that it returns for keys that are not in the vocabulary.
            buckets: number of buckets that n-grams are hashed to; 0 for no n-grams.
        """
        super().__init__(name="token_reader")
        self._lookup, self._unknown, self.buckets = lookup, unknown, buckets

    def __call__(self, tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Computes the features of tokens.

        Args:
            tokens: string [tokens].

        Returns:
            Numbers in the vocabulary, int32 [tokens]; shapes, int32 [tokens]; hashed n-grams, ragged int32
            [tokens, (n-grams)]. The last n-gram of each token is its whole key.
        """
        words, shapes, spelled, keys, classes = self.describe(tokens)
        return words, shapes, self.ngrams(spelled, keys, classes)

    def describe(self, tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Computes all features of tokens except the hashed n-grams.

        Args:
            tokens: string [tokens].

        Returns:
            Numbers in the vocabulary and shapes, int32 [tokens]. As strings [tokens]: the string that is cut into
            n-grams and the key that is hashed whole, each with the mark of the shape and a space on each side; and the
            class, empty if there is none.
        """
        keys, classes = word_keys(tokens)
        keys = self._read_digits_as_letters(keys, keys != classes)
        words = self._lookup(keys)
        words = tf.where(words == self._unknown, self._lookup(classes), words)
        shapes = find_shapes(tokens)
        has_class = tf.reduce_any(classes[:, tf.newaxis] == tf.constant(CLASSES), axis=1)
        lower = tf.strings.lower(tokens, encoding="utf-8")
        # The characters of addresses and numbers are informative, except those of e-mail addresses, which are personal.
        spelled = tf.where(has_class, tf.where(classes == EMAIL, EMAIL, lower), keys)
        marks = tf.gather(tf.constant(MARKS), shapes)
        spelled, keys = (tf.strings.join([" ", marks, string, " "]) for string in (spelled, keys))
        return tf.cast(words, tf.int32), shapes, spelled, keys, tf.where(has_class, classes, "")

    def _read_digits_as_letters(self, keys: tf.Tensor, is_number: tf.Tensor) -> tf.Tensor:
        """Reads `fr33` as `free`: if the token is unknown, and the result is known or digits are inside."""
        mixed = tf.strings.regex_full_match(keys, WITH_DIGITS) & ~is_number
        indices = tf.where(mixed & tf.strings.regex_full_match(keys, WITH_LETTERS))
        written = tf.gather_nd(keys, indices)
        as_letters = written
        for digit, letter in LEET:
            as_letters = tf.strings.regex_replace(as_letters, digit, letter)
        has_digits_inside = tf.strings.regex_full_match(written, DIGITS_INSIDE)
        plausible = has_digits_inside | (self._lookup(as_letters) != self._unknown)
        is_replaced = (self._lookup(written) == self._unknown) & plausible
        return tf.tensor_scatter_nd_update(keys, indices, tf.where(is_replaced, as_letters, written))

    def ngrams(self, spelled: tf.Tensor, keys: tf.Tensor, classes: tf.Tensor) -> tf.RaggedTensor:
        """Hashes the n-grams of what `describe` returns, ragged int32 [tokens, (n-grams)]."""
        if not self.buckets:
            return tf.RaggedTensor.from_row_lengths(
                tf.zeros([0], tf.int32), tf.zeros_like(keys, tf.int64), validate=False
            )
        has_class = classes != ""
        # The class is repeated, so that the many n-grams of a long address do not outweigh it.
        repeated = [tf.strings.join([tf.boolean_mask(classes, has_class), str(index)]) for index in range(CLASS_NGRAMS)]
        ngrams = [
            tf.strings.ngrams(tf.strings.unicode_split(spelled, "UTF-8"), list(NGRAM_SIZES), separator=""),
            tf.RaggedTensor.from_row_lengths(
                tf.reshape(tf.stack(repeated, axis=1), [-1]),
                tf.cast(has_class, tf.int64) * CLASS_NGRAMS,
                validate=False,
            ),
            tf.RaggedTensor.from_uniform_row_length(keys, 1),
        ]
        # Concatenating numbers is faster than concatenating strings.
        hashed = [tf.strings.to_hash_bucket_fast(strings, self.buckets) for strings in ngrams]
        return tf.cast(tf.concat(hashed, axis=1), tf.int32)
