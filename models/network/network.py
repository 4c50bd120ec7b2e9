"""The network, as a Keras model: encoded messages in, the logit of spam out.

Wide and deep (Cheng et al. 2016): a recurrent network over vectors of tokens, and beside it a linear model over
n-grams; their logits are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from models.network.features import PAIR_FACTOR
from models.settings import NetworkSettings
from models.statistics.calibration import Calibration
from models.text.tokens import SHAPES
from models.text.vocabulary import PADDING_ID, UNKNOWN_ID

if TYPE_CHECKING:
    from models.network.linear import LinearWeights

_CELLS = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM, "simple": keras.layers.SimpleRNN}
LOGIT = "logit"  # the last layer of the recurrent part
RECURRENT_LOGIT = "recurrent_logit"
LINEAR = "linear"
# The inputs by name, all of int32, and their ranks: see `models.text.encoder.EncodedMessages.batch`.
INPUTS = {"rows": 2, "words": 1, "shapes": 1, "ngrams": 1, "owners": 1}


@keras.saving.register_keras_serializable("spamscore")
class TokenVectors(keras.layers.Layer):
    """Vectors of the tokens of messages: that of the word, plus that of how it is written, plus the sum of its n-grams'
    divided by the root of how many they are.

    Inputs as of the network, output float [messages, tokens, size], with a mask. In training a share of the known words
    is taken for unknown, so that the network learns to read what it has never seen.
    """

    def __init__(
        self, vocabulary: int, size: int, buckets: int, ngrams: int, word_dropout: float, seed: int, **options: Any
    ) -> None:
        super().__init__(**options)
        self.vocabulary, self.size, self.buckets, self.word_dropout = vocabulary, size, buckets, word_dropout
        # Of more vectors than buckets the rest would never be used.
        self.ngram_vectors = min(ngrams, buckets)
        self.seed = seed
        self._random = keras.random.SeedGenerator(seed)

    def build(self, _shapes: Any = None) -> None:
        """Makes the weights. Those of n-grams begin at nought: one that was never seen says nothing."""
        uniform = keras.initializers.RandomUniform(-0.05, 0.05, seed=self.seed)
        self.words = self.add_weight((self.vocabulary, self.size), uniform, name="words")
        self.shapes = self.add_weight((SHAPES, self.size), "zeros", name="shapes")
        self.ngrams = None
        if self.ngram_vectors:
            self.ngrams = self.add_weight((self.ngram_vectors, self.size), "zeros", name="ngrams")
        self.built = True

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Looks up the table's tokens, then spreads them to where they occur."""
        words = inputs["words"]
        if training and self.word_dropout:
            missed = keras.random.uniform(tf.shape(words), seed=self._random) < self.word_dropout
            words = tf.where(missed & (words != PADDING_ID), UNKNOWN_ID, words)
        table = tf.gather(self.words.value, words) + tf.gather(self.shapes.value, inputs["shapes"])
        if self.ngrams is not None:
            tokens = tf.shape(words)[0]
            sums = tf.math.unsorted_segment_sum(
                tf.gather(self.ngrams.value, inputs["ngrams"] % self.ngram_vectors), inputs["owners"], tokens
            )
            counts = tf.math.unsorted_segment_sum(tf.ones_like(inputs["owners"], tf.float32), inputs["owners"], tokens)
            table += sums / tf.sqrt(tf.maximum(counts, 1.0))[:, tf.newaxis]
        return tf.gather(table, inputs["rows"])

    def compute_output_spec(self, _inputs: dict[str, Any], **_options: Any) -> keras.KerasTensor:
        """Of the output, float [messages, tokens, size]."""
        return keras.KerasTensor((None, None, self.size), dtype="float32")

    def compute_mask(self, inputs: dict[str, tf.Tensor], _mask: Any = None) -> tf.Tensor:
        """Where there is a token, bool [messages, tokens]."""
        return inputs["rows"] != 0

    def get_config(self) -> dict[str, Any]:
        """What it is made again from."""
        names = ("vocabulary", "size", "buckets", "word_dropout", "seed")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own, "ngrams": self.ngram_vectors}


@keras.saving.register_keras_serializable("spamscore")
class MaskedPooling(keras.layers.Layer):
    """The largest value of each unit over the tokens that are there, or that and behind it their mean.

    Input float [messages, tokens, units] with a mask, output float [messages, units or twice as many]. Padding never
    counts, so a message's logit does not depend on how far it is padded.
    """

    def __init__(self, with_mean: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.with_mean = with_mean
        self.supports_masking = True

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Pools over axis 1."""
        there = tf.ones(tf.shape(inputs)[:2], tf.bool) if mask is None else mask
        largest = tf.reduce_max(tf.where(there[..., tf.newaxis], inputs, inputs.dtype.min), axis=1)
        if not self.with_mean:
            return largest
        weights = tf.cast(there, inputs.dtype)[..., tf.newaxis]
        mean = tf.reduce_sum(inputs * weights, axis=1) / tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
        return tf.concat([largest, mean], axis=1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """[messages, units or twice as many]."""
        return (shape[0], shape[2] * (2 if self.with_mean else 1)) if shape[2] else (shape[0], None)

    def compute_mask(self, _inputs: tf.Tensor, _mask: tf.Tensor | None = None) -> None:
        """No tokens are left, so no mask."""
        return

    def get_config(self) -> dict[str, Any]:
        """What it is made again from."""
        return {**super().get_config(), "with_mean": self.with_mean}


@keras.saving.register_keras_serializable("spamscore")
class LinearScore(keras.layers.Layer):
    """The logit of `models.network.linear`: inputs as of the network, output float [messages]. Not trained by steps."""

    def __init__(self, buckets: int, **options: Any) -> None:
        super().__init__(**options)
        self.buckets = buckets

    def build(self, _shapes: Any = None) -> None:
        """Makes the weights, all nought: `set_linear` gives them their values."""
        self.scores = self.add_weight((self.buckets,), "zeros", trainable=False, name="weights")
        self.squares = self.add_weight((self.buckets,), "zeros", trainable=False, name="squares")
        self.bias = self.add_weight((1,), "zeros", trainable=False, name="bias")
        self.built = True

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Adds up what each feature of a message has to say, however often it occurs."""
        messages = tf.shape(inputs["rows"])[0]
        features, owners = (
            tf.concat(both, axis=0) for both in zip(_ngrams_of(inputs), _pairs_of(inputs, self.buckets), strict=True)
        )
        distinct = tf.unique(tf.cast(owners, tf.int64) * self.buckets + tf.cast(features, tf.int64)).y
        both = tf.gather(tf.stack([self.scores.value, self.squares.value], axis=1), distinct % self.buckets)
        sums = tf.math.unsorted_segment_sum(both, distinct // self.buckets, messages)
        return sums[:, 0] / tf.sqrt(tf.maximum(sums[:, 1], 1e-12)) + self.bias.value

    def compute_output_spec(self, _inputs: dict[str, Any]) -> keras.KerasTensor:
        """Of the output, float [messages]."""
        return keras.KerasTensor((None,), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """What it is made again from."""
        return {**super().get_config(), "buckets": self.buckets}


def _ngrams_of(inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """N-grams of the tokens of each message, of a token that occurs twice once, and the messages they belong to: both
    int32 [n-grams].
    """
    rows, tokens = inputs["rows"], tf.shape(inputs["words"])[0]
    message = tf.repeat(tf.range(tf.shape(rows)[0])[:, tf.newaxis], tf.shape(rows)[1], axis=1)
    # int64, for messages times tokens may be more than int32 holds.
    occurs = tf.unique(
        tf.boolean_mask(tf.cast(message, tf.int64) * tf.cast(tokens, tf.int64) + tf.cast(rows, tf.int64), rows != 0)
    ).y
    message, token = (
        tf.cast(one, tf.int32) for one in (occurs // tf.cast(tokens, tf.int64), occurs % tf.cast(tokens, tf.int64))
    )
    counts = tf.math.bincount(inputs["owners"], minlength=tokens, maxlength=tokens)
    sizes = tf.gather(counts, token)
    within = tf.range(tf.reduce_sum(sizes)) - tf.repeat(tf.cumsum(sizes, exclusive=True), sizes)
    places = tf.repeat(tf.gather(tf.cumsum(counts, exclusive=True), token), sizes) + within
    return tf.gather(inputs["ngrams"], places), tf.repeat(message, sizes)


def _pairs_of(inputs: dict[str, tf.Tensor], buckets: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Hashed pairs of neighbouring tokens, and the messages they belong to: both int32 [pairs]."""
    rows, owners = inputs["rows"], inputs["owners"]
    # The last n-gram of a token is its key as a whole.
    last = tf.math.unsorted_segment_max(tf.range(tf.shape(owners)[0]), owners, tf.shape(inputs["words"])[0])
    # A batch without messages has no n-gram, yet padding's row looks for one.
    keys = tf.gather(tf.concat([inputs["ngrams"], [0]], axis=0), tf.maximum(last, 0))
    said = tf.cast(tf.gather(keys, rows), tf.int64)
    pairs = tf.cast((said[:, :-1] * PAIR_FACTOR + said[:, 1:] + 1) % buckets, tf.int32)
    message = tf.repeat(tf.range(tf.shape(rows)[0])[:, tf.newaxis], tf.shape(pairs)[1], axis=1)
    there = rows[:, 1:] != 0
    return tf.boolean_mask(pairs, there), tf.boolean_mask(message, there)


def build_network(settings: NetworkSettings, vocabulary_size: int, seed: int = 0) -> keras.Model:
    """Builds the network with fresh weights.

    Args:
        settings: cell, sizes, directions, pooling, dropout, n-grams, linear part.
        vocabulary_size: numbers there are, padding and unknown included.
        seed: of weights and dropout; equal seeds give equal networks.

    Returns:
        A model from a batch as `models.text.encoder.EncodedMessages.batch` gives it to float32 logits [messages].
    """
    inputs = {name: keras.Input([None] * (rank - 1), dtype="int32", name=name) for name, rank in INPUTS.items()}
    vectors = TokenVectors(
        vocabulary_size,
        settings.embedding_size,
        settings.ngram_buckets,
        settings.ngram_vectors,
        settings.word_dropout,
        seed,
        name="embedding",
    )(inputs)
    vectors = keras.layers.SpatialDropout1D(settings.dropout, seed=seed + 1, name="embedding_dropout")(vectors)
    read = _recurrent(settings, seed)(vectors)
    if settings.pooling != "last":
        read = MaskedPooling(settings.pooling == "max+mean", name="pooling")(read)
    pooled = keras.layers.Dropout(settings.dropout, seed=seed + 2, name="dropout")(read)
    logit = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=seed), name=LOGIT)(pooled)
    logit = keras.layers.Flatten(name=RECURRENT_LOGIT)(logit)[:, 0]
    if settings.linear:
        logit = keras.layers.Add(name="sum")([logit, LinearScore(settings.ngram_buckets, name=LINEAR)(inputs)])
    return keras.Model(inputs, logit, name="spam_network")


def recurrent_part(network: keras.Model) -> keras.Model:
    """The network without its linear part, the same layers and weights: what is trained by steps."""
    return keras.Model(network.input, network.get_layer(RECURRENT_LOGIT).output[:, 0], name="recurrent_part")


def set_linear(network: keras.Model, weights: LinearWeights) -> None:
    """Gives the linear part its weights."""
    network.get_layer(LINEAR).set_weights([weights.weights, weights.squares, weights.bias])


def has_linear(network: keras.Model) -> bool:
    """Whether there is a linear part."""
    return any(layer.name == LINEAR for layer in network.layers)


def ngram_buckets(network: keras.Model) -> int:
    """Numbers that n-grams must be hashed to for the network."""
    return int(network.get_layer("embedding").buckets)


def calibrate(network: keras.Model, calibration: Calibration) -> None:
    """Puts a calibration into the weights of the last layers: from then on the network's logits are calibrated."""
    kernel, bias = network.get_layer(LOGIT).weights
    kernel.assign(kernel.value * calibration.scale)
    bias.assign(bias.value * calibration.scale + calibration.bias)
    if has_linear(network):
        linear = network.get_layer(LINEAR)
        scores, squares, bias = linear.get_weights()
        scale = np.float32(calibration.scale)
        linear.set_weights([scores * scale, squares, bias * scale])


def _recurrent(settings: NetworkSettings, seed: int) -> keras.layers.Layer:
    options: dict[str, object] = {"use_cudnn": False} if settings.cell != "simple" else {}
    layer = _CELLS[settings.cell](
        settings.rnn_units,
        return_sequences=settings.pooling != "last",
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        recurrent_initializer=keras.initializers.Orthogonal(seed=seed),
        name="recurrent",
        # cuDNN's kernels give other bits and make an export that a machine without a GPU cannot run.
        **options,
    )
    return keras.layers.Bidirectional(layer, name="recurrent") if settings.bidirectional else layer
