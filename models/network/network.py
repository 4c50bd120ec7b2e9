"""The network as a Keras model: encoded messages in, the logit of spam out.

The architecture is wide and deep (Cheng et al. 2016): a recurrent network over token vectors, and a linear model over
character n-grams. Their logits are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from models.network.character_ngrams import MIN_SQUARES, find_features
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
# The inputs by name, all int32, and their ranks: see `models.text.encoder.EncodedMessages.batch`.
INPUTS = {"rows": 2, "words": 1, "shapes": 1, "ngrams": 1, "owners": 1, "characters": 1, "character_counts": 1}


@keras.saving.register_keras_serializable("spamscore")
class TokenVectors(keras.layers.Layer):
    """Computes the vectors of tokens: word vector + shape vector + Σ n-gram vectors / √(number of n-grams).

    The shape of a token is how it is written. Inputs are those of the network; the output is float [messages, tokens,
    size], with a mask. In training a share of the known words is replaced by the unknown word, so that the network
    learns to read words that it has never seen.
    """

    def __init__(
        self, vocabulary: int, size: int, ngram_vectors: int, word_dropout: float, seed: int, **options: Any
    ) -> None:
        super().__init__(**options)
        self.vocabulary, self.size, self.ngram_vectors = vocabulary, size, ngram_vectors
        self.word_dropout, self.seed = word_dropout, seed
        self._random = keras.random.SeedGenerator(seed)

    def build(self, _shapes: Any = None) -> None:
        """Creates the weights. Those of n-grams start at zero, so that an n-gram never trained on has no effect."""
        uniform = keras.initializers.RandomUniform(-0.05, 0.05, seed=self.seed)
        self.words = self.add_weight((self.vocabulary, self.size), uniform, name="words")
        self.shapes = self.add_weight((SHAPES, self.size), "zeros", name="shapes")
        self.ngrams = None
        if self.ngram_vectors:
            self.ngrams = self.add_weight((self.ngram_vectors, self.size), "zeros", name="ngrams")
        self.built = True

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Computes the vector of each token in the table, then gathers them to their positions in the messages."""
        words = inputs["words"]
        if training and self.word_dropout:
            dropped = keras.random.uniform(tf.shape(words), seed=self._random) < self.word_dropout
            words = tf.where(dropped & (words != PADDING_ID), UNKNOWN_ID, words)
        table = tf.gather(self.words.value, words) + tf.gather(self.shapes.value, inputs["shapes"])
        if self.ngrams is not None:
            tokens = tf.shape(words)[0]
            sums = tf.math.unsorted_segment_sum(
                tf.gather(self.ngrams.value, inputs["ngrams"]), inputs["owners"], tokens
            )
            counts = tf.math.unsorted_segment_sum(tf.ones_like(inputs["owners"], tf.float32), inputs["owners"], tokens)
            table += sums / tf.sqrt(tf.maximum(counts, 1.0))[:, tf.newaxis]
        return tf.gather(table, inputs["rows"])

    def compute_output_spec(self, _inputs: dict[str, Any], **_options: Any) -> keras.KerasTensor:
        """Returns the spec of the output, float [messages, tokens, size]."""
        return keras.KerasTensor((None, None, self.size), dtype="float32")

    def compute_mask(self, inputs: dict[str, tf.Tensor], _mask: Any = None) -> tf.Tensor:
        """Returns where there is a token and no padding, bool [messages, tokens]."""
        return inputs["rows"] != 0

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that recreate the layer."""
        names = ("vocabulary", "size", "ngram_vectors", "word_dropout", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("spamscore")
class MaskedPooling(keras.layers.Layer):
    """Pools each unit over the tokens of a message: its maximum, or its maximum and mean, concatenated.

    The input is float [messages, tokens, units] with a mask. The output is float [messages, units], with the mean
    float [messages, 2 * units]. Padding is ignored, so a message's logit does not depend on the padded length.
    """

    def __init__(self, with_mean: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.with_mean = with_mean
        self.supports_masking = True

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Pools over axis 1."""
        is_token = tf.ones(tf.shape(inputs)[:2], tf.bool) if mask is None else mask
        maximum = tf.reduce_max(tf.where(is_token[..., tf.newaxis], inputs, inputs.dtype.min), axis=1)
        if not self.with_mean:
            return maximum
        weights = tf.cast(is_token, inputs.dtype)[..., tf.newaxis]
        mean = tf.reduce_sum(inputs * weights, axis=1) / tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
        return tf.concat([maximum, mean], axis=1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns [messages, units], with the mean [messages, 2 * units]."""
        return (shape[0], shape[2] * (2 if self.with_mean else 1)) if shape[2] else (shape[0], None)

    def compute_mask(self, _inputs: tf.Tensor, _mask: tf.Tensor | None = None) -> None:
        """Returns None, because the output has no token axis."""
        return

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that recreate the layer."""
        return {**super().get_config(), "with_mean": self.with_mean}


@keras.saving.register_keras_serializable("spamscore")
class LinearScore(keras.layers.Layer):
    """Computes the logit of the linear part as `models.network.linear.LinearWeights` says.

    Inputs are those of the network; the output is float [messages]. The weights are not trained in steps.
    """

    def __init__(self, buckets: int, **options: Any) -> None:
        super().__init__(**options)
        self.buckets = buckets

    def build(self, _shapes: Any = None) -> None:
        """Creates the weights, all zero; `set_linear` sets their values."""
        self.scores = self.add_weight((self.buckets,), "zeros", trainable=False, name="weights")
        self.squares = self.add_weight((self.buckets,), "zeros", trainable=False, name="squares")
        self.bias = self.add_weight((1,), "zeros", trainable=False, name="bias")
        self.built = True

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Adds up the scores of the features of each message."""
        counts = inputs["character_counts"]
        messages, features, frequencies = find_features(inputs["characters"], counts, self.buckets)
        scores = frequencies * tf.gather(self.scores.value, features)
        squares = tf.square(frequencies) * tf.gather(self.squares.value, features)
        sums = tf.math.unsorted_segment_sum(tf.stack([scores, squares], axis=1), messages, tf.size(counts))
        return sums[:, 0] / tf.sqrt(tf.maximum(sums[:, 1], MIN_SQUARES)) + self.bias.value

    def compute_output_spec(self, _inputs: dict[str, Any]) -> keras.KerasTensor:
        """Returns the spec of the output, float [messages]."""
        return keras.KerasTensor((None,), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that recreate the layer."""
        return {**super().get_config(), "buckets": self.buckets}


def build_network(settings: NetworkSettings, vocabulary_size: int, seed: int = 0) -> keras.Model:
    """Builds the network with fresh weights.

    Args:
        settings: cell, sizes, directions, pooling, dropout, n-grams, linear part.
        vocabulary_size: number of token ids, padding and unknown included.
        seed: seed of weights and dropout; equal seeds give equal networks.

    Returns:
        A model from a batch, as `models.text.encoder.EncodedMessages.batch` returns it, to float32 logits [messages].
    """
    inputs = {name: keras.Input([None] * (rank - 1), dtype="int32", name=name) for name, rank in INPUTS.items()}
    vectors = TokenVectors(
        vocabulary_size,
        settings.embedding_size,
        settings.ngram_vectors,
        settings.word_dropout,
        seed,
        name="embedding",
    )(inputs)
    vectors = keras.layers.SpatialDropout1D(settings.dropout, seed=seed + 1, name="embedding_dropout")(vectors)
    outputs = _build_recurrent_layer(settings, seed)(vectors)
    if settings.pooling != "last":
        outputs = MaskedPooling(settings.pooling == "max+mean", name="pooling")(outputs)
    pooled = keras.layers.Dropout(settings.dropout, seed=seed + 2, name="dropout")(outputs)
    logit = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=seed), name=LOGIT)(pooled)
    logit = keras.layers.Flatten(name=RECURRENT_LOGIT)(logit)[:, 0]
    if settings.linear:
        logit = keras.layers.Add(name="sum")([logit, LinearScore(settings.ngram_buckets, name=LINEAR)(inputs)])
    return keras.Model(inputs, logit, name="spam_network")


def recurrent_part(network: keras.Model) -> keras.Model:
    """Returns the network without its linear part, sharing layers and weights. Only this part is trained in steps."""
    return keras.Model(network.input, network.get_layer(RECURRENT_LOGIT).output[:, 0], name="recurrent_part")


def set_linear(network: keras.Model, weights: LinearWeights) -> None:
    """Sets the weights of the linear part."""
    network.get_layer(LINEAR).set_weights([weights.weights, weights.squares, weights.bias])


def has_linear(network: keras.Model) -> bool:
    """Returns whether the network has a linear part."""
    return any(layer.name == LINEAR for layer in network.layers)


def ngram_vectors(network: keras.Model) -> int:
    """Returns the number of vectors that the network has for the n-grams of tokens."""
    return int(network.get_layer("embedding").ngram_vectors)


def calibrate(network: keras.Model, calibration: Calibration) -> None:
    """Applies a calibration to the weights of the last layers, so that the network returns calibrated logits."""
    kernel, bias = network.get_layer(LOGIT).weights
    kernel.assign(kernel.value * calibration.scale)
    bias.assign(bias.value * calibration.scale + calibration.bias)
    if has_linear(network):
        linear = network.get_layer(LINEAR)
        scores, squares, bias = linear.get_weights()
        scale = np.float32(calibration.scale)
        linear.set_weights([scores * scale, squares, bias * scale])


def _build_recurrent_layer(settings: NetworkSettings, seed: int) -> keras.layers.Layer:
    options: dict[str, object] = {"use_cudnn": False} if settings.cell != "simple" else {}
    layer = _CELLS[settings.cell](
        settings.rnn_units,
        return_sequences=settings.pooling != "last",
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        recurrent_initializer=keras.initializers.Orthogonal(seed=seed),
        name="recurrent",
        # cuDNN's kernels give different bits, and an export with them cannot run on a machine without a GPU.
        **options,
    )
    return keras.layers.Bidirectional(layer, name="recurrent") if settings.bidirectional else layer
