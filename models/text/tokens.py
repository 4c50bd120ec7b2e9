"""What the network knows of a token: the word it counts as, how it is written, and its character n-grams.

A word the vocabulary does not hold is still known by its parts (fastText; Bojanowski et al. 2017, "Enriching Word
Vectors with Subword Information"). All of it as TensorFlow operations over distinct tokens, each of which is looked at
once.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# What a token counts as when it is no word; in capitals, as words never are.
URL, EMAIL, MONEY, NUMBER, CODE, PHONE = CLASSES = ("URL", "EMAIL", "MONEY", "NUMBER", "CODE", "PHONE")
CURRENCY = "[£$€¥₹₦₱₽]"
TOP_LEVEL = (
    "com|net|org|info|biz|io|co|me|ly|gl|gd|app|xyz|top|shop|site|online|club|link|live|vip|win|icu|cc|tv|mobi|uk|us|in|au|"
    "de|fr|es|it|nl|pt|br|ru|cn|sg|za|ng|ie|eu|ca|example|test|invalid"
)
URL_PATTERN = r"(?i:https?://|www\.)\S+|(?:[a-zA-Z0-9-]+\.)+(?i:" + TOP_LEVEL + r")\b(?:/\S*)?"
EMAIL_PATTERN = r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+"
# Of long numbers `models.text.cleaning` leaves the first three digits and how long they are about.
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
# Read as letters where letters and digits make no word; where digits come inside, whatever comes of it.
WITH_DIGITS, WITH_LETTERS = r"[a-z0-9]*\d[a-z0-9]*", r".*[a-z].*"
DIGITS_INSIDE = r"[a-z].*|.*[a-z]\d+[a-z].*"
# How a word is written; the number of its way is its place here, and its mark goes before its n-grams.
AS_WRITTEN, CAPITALS, TITLE = range(3)
SHAPES = 3
MARKS = ("", "^", "~")
NGRAM_SIZES = (2, 3, 4, 5)
CLASS_NGRAMS = 3
LEET = (("0", "o"), ("1", "i"), ("3", "e"), ("4", "a"), ("5", "s"), ("7", "t"))


def word_keys(tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What tokens count as.

    Args:
        tokens: string [tokens], as `models.text.cleaning` leaves them.

    Returns:
        Two string [tokens]: the key a token is looked up under, which is its class for addresses, sums of money and
        long numbers, and else the token in small letters; and its class, or the key again where it has none: a short
        number that the vocabulary does not hold is still a number.
    """
    small = tf.strings.lower(tokens, encoding="utf-8")
    # Most are letters alone, which no class is.
    places = tf.where(~tf.strings.regex_full_match(small, _LETTERS))
    others = tf.gather_nd(small, places)
    classes = others
    for name, pattern in reversed(CLASS_PATTERNS):
        classes = tf.where(tf.strings.regex_full_match(others, pattern), name, classes)
    masked = tf.strings.regex_full_match(others, MASKED_CODE)
    keys = tf.where((classes == NUMBER) & ~masked, others, classes)
    return tf.tensor_scatter_nd_update(small, places, keys), tf.tensor_scatter_nd_update(small, places, classes)


def shapes_of(tokens: tf.Tensor) -> tf.Tensor:
    """How tokens are written: int32 [tokens], one of `AS_WRITTEN`, `CAPITALS` (two and more letters) and `TITLE`."""
    capitals = tf.strings.regex_full_match(tokens, r"\P{L}*\p{Lu}\P{L}*\p{Lu}[\P{L}\p{Lu}]*")
    title = tf.strings.regex_full_match(tokens, r"\p{Lu}[\pL\pM\pN]*")
    return tf.where(capitals, CAPITALS, tf.where(title, TITLE, AS_WRITTEN))


class TokenReader(tf.Module):
    """Reads distinct tokens: what they count as, how they are written, what they are made of."""

    def __init__(self, lookup: Callable[[tf.Tensor], tf.Tensor], unknown: int, buckets: int) -> None:
        """Takes the vocabulary as a function.

        Args:
            lookup: keys, string [tokens], to their numbers in the vocabulary, int64 [tokens].
            unknown: the number it gives for what it does not hold.
            buckets: numbers that n-grams are hashed to; 0 for none.
        """
        super().__init__(name="token_reader")
        self._lookup, self._unknown, self.buckets = lookup, unknown, buckets

    def __call__(self, tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reads tokens.

        Args:
            tokens: string [tokens].

        Returns:
            Numbers in the vocabulary, int32 [tokens]; shapes, int32 [tokens]; hashed n-grams, ragged int32
            [tokens, (n-grams)], the last of each token being that of its key as a whole.
        """
        words, shapes, spelled, keys, classes = self.describe(tokens)
        return words, shapes, self.ngrams(spelled, keys, classes)

    def describe(self, tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """What there is to know of tokens before n-grams are hashed.

        Args:
            tokens: string [tokens].

        Returns:
            Numbers in the vocabulary and shapes, int32 [tokens]; as strings [tokens], what is cut into n-grams and what
            is hashed as a whole, each with the shape's mark and spaces around it; and the class, empty where none.
        """
        keys, classes = word_keys(tokens)
        keys = self._read_digits_as_letters(keys, keys != classes)
        words = self._lookup(keys)
        words = tf.where(words == self._unknown, self._lookup(classes), words)
        shapes = shapes_of(tokens)
        has_class = tf.reduce_any(classes[:, tf.newaxis] == tf.constant(CLASSES), axis=1)
        small = tf.strings.lower(tokens, encoding="utf-8")
        # The characters of addresses and numbers still say something, but for those of mail, which are people's own.
        spelled = tf.where(has_class, tf.where(classes == EMAIL, EMAIL, small), keys)
        marks = tf.gather(tf.constant(MARKS), shapes)
        spelled, keys = (tf.strings.join([" ", marks, one, " "]) for one in (spelled, keys))
        return tf.cast(words, tf.int32), shapes, spelled, keys, tf.where(has_class, classes, "")

    def _read_digits_as_letters(self, keys: tf.Tensor, is_number: tf.Tensor) -> tf.Tensor:
        """`fr33` as `free`: where letters and digits make no known word, but do when read so, or digits come inside."""
        mixed = tf.strings.regex_full_match(keys, WITH_DIGITS) & ~is_number
        places = tf.where(mixed & tf.strings.regex_full_match(keys, WITH_LETTERS))
        written = tf.gather_nd(keys, places)
        read = written
        for digit, letter in LEET:
            read = tf.strings.regex_replace(read, digit, letter)
        inside = tf.strings.regex_full_match(written, DIGITS_INSIDE)
        plausible = inside | (self._lookup(read) != self._unknown)
        wanted = (self._lookup(written) == self._unknown) & plausible
        return tf.tensor_scatter_nd_update(keys, places, tf.where(wanted, read, written))

    def ngrams(self, spelled: tf.Tensor, keys: tf.Tensor, classes: tf.Tensor) -> tf.RaggedTensor:
        """Hashed n-grams, ragged int32 [tokens, (n-grams)], of what `describe` gives."""
        if not self.buckets:
            return tf.RaggedTensor.from_row_lengths(
                tf.zeros([0], tf.int32), tf.zeros_like(keys, tf.int64), validate=False
            )
        has_class = classes != ""
        # A class stands there several times, or the many n-grams of a long address would drown it.
        repeated = [tf.strings.join([tf.boolean_mask(classes, has_class), str(at)]) for at in range(CLASS_NGRAMS)]
        ngrams = [
            tf.strings.ngrams(tf.strings.unicode_split(spelled, "UTF-8"), list(NGRAM_SIZES), separator=""),
            tf.RaggedTensor.from_row_lengths(
                tf.reshape(tf.stack(repeated, axis=1), [-1]),
                tf.cast(has_class, tf.int64) * CLASS_NGRAMS,
                validate=False,
            ),
            tf.RaggedTensor.from_uniform_row_length(keys, 1),
        ]
        # Numbers are put together faster than strings.
        hashed = [tf.strings.to_hash_bucket_fast(one, self.buckets) for one in ngrams]
        return tf.cast(tf.concat(hashed, axis=1), tf.int32)
