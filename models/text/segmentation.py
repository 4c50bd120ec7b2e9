"""Cuts letters that were written together, or spaced apart and joined again, into the words they most likely are.

The most likely cut by a unigram model over the vocabulary, found by dynamic programming (Viterbi 1967; for words,
Norvig, "Natural Language Corpus Data", 2009), as TensorFlow operations: it runs inside the exported model too.
"""

from __future__ import annotations

import tensorflow as tf

from models.text.vocabulary import SPECIAL_TOKENS, Vocabulary

LONGEST_WORD = 16
LONGEST_RUN = 400
# Nats that letters cost which are no word: so much a stretch of them, and so much a letter.
_UNKNOWN_STRETCH, _UNKNOWN_LETTER = 11.0, 2.5
# Who spaces letters apart spares short words, so a short word is less likely than its count says.
_SHORT_WORD, _SHORT_COST = 4, 4.0
_NEVER = -1e9
_ONE_LETTER_WORDS = ("a", "i", "u")


class Segmenter(tf.Module):
    """Cuts runs: string [runs] of small letters to string [runs], words with single spaces between."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(name="segmenter")
        # A table must hold something, and a vocabulary of another script may have no such word: "" is never looked up.
        known = {"": 1} | {
            token: count
            for token, count in zip(vocabulary.tokens, vocabulary.counts, strict=True)
            if token not in SPECIAL_TOKENS and token.isalpha() and token.islower()
            if len(token) > 1 or token in _ONE_LETTER_WORDS
        }
        total = float(max(sum(vocabulary.counts), 1))
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(known), tf.string, shape=[len(known)]),
                tf.math.log(tf.constant([count / total for count in known.values()], tf.float32, shape=[len(known)])),
            ),
            default_value=float("nan"),
        )

    def __call__(self, runs: tf.Tensor) -> tf.Tensor:
        """Cuts a batch; letters beyond the first 400 of a run go.

        Args:
            runs: string [runs], at least one, each of at least one letter.
        """
        runs = tf.strings.substr(runs, 0, LONGEST_RUN, unit="UTF8_CHAR")
        lengths = tf.strings.length(runs, unit="UTF8_CHAR")
        last_words = self._last_words(self._likelihoods(runs, lengths))
        ends = self._word_ends(last_words, lengths)
        letters = tf.strings.unicode_split(runs, "UTF-8").to_tensor("")
        apart = tf.where(ends, tf.strings.join([letters, " "]), letters)
        return tf.strings.strip(tf.strings.reduce_join(apart, axis=1))

    def _likelihoods(self, runs: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Log-likelihood of the word that ends at each letter with each size, float [runs, letters, sizes]."""
        ends, sizes = tf.range(1, tf.reduce_max(lengths) + 1), tf.range(1, LONGEST_WORD + 1)
        starts = ends[:, tf.newaxis] - sizes
        inside = (starts >= 0)[tf.newaxis] & (ends[:, tf.newaxis] <= lengths[:, tf.newaxis, tf.newaxis])
        places = tf.where(inside)
        run, end, size = tf.unstack(tf.cast(places, tf.int32), axis=1)
        size += 1
        words = tf.strings.substr(tf.gather(runs, run), end + 1 - size, size, unit="UTF8_CHAR")
        found = self._table.lookup(words)
        letters = tf.cast(size, tf.float32)
        likelihood = tf.where(tf.math.is_nan(found), -_UNKNOWN_STRETCH - _UNKNOWN_LETTER * letters, found)
        likelihood -= _SHORT_COST * tf.cast(size < _SHORT_WORD, tf.float32)
        return tf.tensor_scatter_nd_update(tf.fill(tf.shape(inside), _NEVER), places, likelihood)

    @staticmethod
    def _last_words(likelihoods: tf.Tensor) -> tf.Tensor:
        """Size of the last word in the best cut of what ends at each letter, int32 [letters, runs]."""
        runs, letters = tf.shape(likelihoods)[0], tf.shape(likelihoods)[1]
        # The best likelihoods of what ends one, two, ... letters before.
        window = tf.concat([tf.zeros([runs, 1]), tf.fill([runs, LONGEST_WORD - 1], _NEVER)], axis=1)

        def step(
            at: tf.Tensor, window: tf.Tensor, sizes: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
            sums = window + likelihoods[:, at]
            window = tf.concat([tf.reduce_max(sums, axis=1, keepdims=True), window[:, :-1]], axis=1)
            return at + 1, window, sizes.write(at, tf.argmax(sums, axis=1, output_type=tf.int32) + 1)

        sizes = tf.TensorArray(tf.int32, letters, element_shape=[None])
        return tf.while_loop(lambda at, *_: at < letters, step, (0, window, sizes))[2].stack()

    @staticmethod
    def _word_ends(last_words: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Whether a word ends after each letter, bool [runs, letters], walking back from each run's end."""

        def step(at: tf.Tensor, end: tf.Tensor, ends: tf.TensorArray) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
            here = end == at
            return at - 1, tf.where(here, end - last_words[at - 1], end), ends.write(at - 1, here)

        letters = tf.shape(last_words)[0]
        ends = tf.TensorArray(tf.bool, letters, element_shape=[None])
        return tf.transpose(tf.while_loop(lambda at, *_: at > 0, step, (letters, lengths, ends))[2].stack())
