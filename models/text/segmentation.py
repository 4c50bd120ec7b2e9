"""Cuts runs of letters without spaces into their most likely words.

The runs are words that were written together, or spaced-out letters that were joined. The most likely cut under a
unigram model of the vocabulary is found by dynamic programming (Viterbi 1967; for words, Norvig, "Natural Language
Corpus Data", 2009). It consists of TensorFlow operations, because it also runs in the exported model.
"""

from __future__ import annotations

import tensorflow as tf

from models.text.vocabulary import SPECIAL_TOKENS, Vocabulary

MAX_WORD_LETTERS = 16
MAX_RUN_LETTERS = 400
# Cost, in nats, of a stretch of letters that is not a word, and of each of its letters.
_UNKNOWN_STRETCH, _UNKNOWN_LETTER = 11.0, 2.5
# Spaced-out text rarely contains short words, so a short word is less likely than its count suggests.
_SHORT_WORD, _SHORT_COST = 4, 4.0
_IMPOSSIBLE = -1e9
_ONE_LETTER_WORDS = ("a", "i", "u")


class Segmenter(tf.Module):
    """Cuts runs of lower-case letters, string [runs], into words separated by single spaces, string [runs]."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(name="segmenter")
        # A table must not be empty, and a vocabulary of another script may have no words. "" is never looked up.
        counts = {"": 1} | {
            token: count
            for token, count in zip(vocabulary.tokens, vocabulary.counts, strict=True)
            if token not in SPECIAL_TOKENS and token.isalpha() and token.islower()
            if len(token) > 1 or token in _ONE_LETTER_WORDS
        }
        total = float(max(sum(vocabulary.counts), 1))
        self._table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(list(counts), tf.string, shape=[len(counts)]),
                tf.math.log(tf.constant([count / total for count in counts.values()], tf.float32, shape=[len(counts)])),
            ),
            default_value=float("nan"),
        )

    def __call__(self, runs: tf.Tensor) -> tf.Tensor:
        """Cuts a batch of runs. Letters after the first 400 of a run are dropped.

        Args:
            runs: string [runs], at least one, each of at least one letter.
        """
        runs = tf.strings.substr(runs, 0, MAX_RUN_LETTERS, unit="UTF8_CHAR")
        lengths = tf.strings.length(runs, unit="UTF8_CHAR")
        last_sizes = self._last_word_sizes(self._log_likelihoods(runs, lengths))
        ends = self._word_ends(last_sizes, lengths)
        letters = tf.strings.unicode_split(runs, "UTF-8").to_tensor("")
        separated = tf.where(ends, tf.strings.join([letters, " "]), letters)
        return tf.strings.strip(tf.strings.reduce_join(separated, axis=1))

    def _log_likelihoods(self, runs: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Computes the log-likelihoods of words by last letter and size, float [runs, letters, sizes]."""
        ends, sizes = tf.range(1, tf.reduce_max(lengths) + 1), tf.range(1, MAX_WORD_LETTERS + 1)
        starts = ends[:, tf.newaxis] - sizes
        is_inside = (starts >= 0)[tf.newaxis] & (ends[:, tf.newaxis] <= lengths[:, tf.newaxis, tf.newaxis])
        indices = tf.where(is_inside)
        run, end, size = tf.unstack(tf.cast(indices, tf.int32), axis=1)
        size += 1
        words = tf.strings.substr(tf.gather(runs, run), end + 1 - size, size, unit="UTF8_CHAR")
        log_shares = self._table.lookup(words)
        letters = tf.cast(size, tf.float32)
        likelihood = tf.where(tf.math.is_nan(log_shares), -_UNKNOWN_STRETCH - _UNKNOWN_LETTER * letters, log_shares)
        likelihood -= _SHORT_COST * tf.cast(size < _SHORT_WORD, tf.float32)
        return tf.tensor_scatter_nd_update(tf.fill(tf.shape(is_inside), _IMPOSSIBLE), indices, likelihood)

    @staticmethod
    def _last_word_sizes(likelihoods: tf.Tensor) -> tf.Tensor:
        """Finds the size of the last word in the best cut of the letters up to each letter, int32 [letters, runs]."""
        runs, letters = tf.shape(likelihoods)[0], tf.shape(likelihoods)[1]
        # The best log-likelihoods of cuts that end one, two, ... letters earlier.
        window = tf.concat([tf.zeros([runs, 1]), tf.fill([runs, MAX_WORD_LETTERS - 1], _IMPOSSIBLE)], axis=1)

        def step(
            position: tf.Tensor, window: tf.Tensor, sizes: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
            sums = window + likelihoods[:, position]
            window = tf.concat([tf.reduce_max(sums, axis=1, keepdims=True), window[:, :-1]], axis=1)
            return position + 1, window, sizes.write(position, tf.argmax(sums, axis=1, output_type=tf.int32) + 1)

        sizes = tf.TensorArray(tf.int32, letters, element_shape=[None])
        return tf.while_loop(lambda position, *_: position < letters, step, (0, window, sizes))[2].stack()

    @staticmethod
    def _word_ends(last_sizes: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Finds after which letters a word ends, bool [runs, letters], by tracing back from the end of each run."""

        def step(
            letter: tf.Tensor, end: tf.Tensor, ends: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
            is_end = end == letter
            return letter - 1, tf.where(is_end, end - last_sizes[letter - 1], end), ends.write(letter - 1, is_end)

        letters = tf.shape(last_sizes)[0]
        ends = tf.TensorArray(tf.bool, letters, element_shape=[None])
        return tf.transpose(tf.while_loop(lambda letter, *_: letter > 0, step, (letters, lengths, ends))[2].stack())
