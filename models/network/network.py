"""The network as a Keras model: encoded messages in, the logit of spam out.

The architecture is wide and deep (Cheng et al. 2016): a recurrent network over token vectors, and a linear model over
n-grams. Their logits are added.
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
# The inputs by name, all int32, and their ranks: see `models.text.encoder.EncodedMessages.batch`.
INPUTS = {"rows": 2, "words": 1, "shapes": 1, "ngrams": 1, "owners": 1}


@keras.saving.register_keras_serializable("spamscore")
class TokenVectors(keras.layers.Layer):
    """Computes the vectors of tokens: word vector + shape vector + Σ n-gram vectors / √(number of n-grams).

    The shape of a token is how it is written. Inputs are those of the network; the output is float [messages, tokens,
    size], with a mask. In training a share of the known words is replaced by the unknown word, so that the network
    learns to read words that it has never seen.
    """

    def __init__(
        self, vocabulary: int, size: int, buckets: int, ngrams: int, word_dropout: float, seed: int, **options: Any
    ) -> None:
        super().__init__(**options)
        self.vocabulary, self.size, self.buckets, self.word_dropout = vocabulary, size, buckets, word_dropout
        # More vectors than buckets would never be used.
        self.ngram_vectors = min(ngrams, buckets)
        self.seed = seed
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
                tf.gather(self.ngrams.value, inputs["ngrams"] % self.ngram_vectors), inputs["owners"], tokens
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
        names = ("vocabulary", "size", "buckets", "word_dropout", "seed")
        config = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **config, "ngrams": self.ngram_vectors}


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
    """Computes the logit of the linear part, whose weights `models.network.linear` fits.

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
        """Adds up the scores of the distinct features of each message."""
        messages = tf.shape(inputs["rows"])[0]
        features, owners = (
            tf.concat(arrays, axis=0)
            for arrays in zip(_gather_ngrams(inputs), _hash_pairs(inputs, self.buckets), strict=True)
        )
        distinct = tf.unique(tf.cast(owners, tf.int64) * self.buckets + tf.cast(features, tf.int64)).y
        values = tf.gather(tf.stack([self.scores.value, self.squares.value], axis=1), distinct % self.buckets)
        sums = tf.math.unsorted_segment_sum(values, distinct // self.buckets, messages)
        return sums[:, 0] / tf.sqrt(tf.maximum(sums[:, 1], 1e-12)) + self.bias.value

    def compute_output_spec(self, _inputs: dict[str, Any]) -> keras.KerasTensor:
        """Returns the spec of the output, float [messages]."""
        return keras.KerasTensor((None,), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that recreate the layer."""
        return {**super().get_config(), "buckets": self.buckets}


def _gather_ngrams(inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Gathers the n-grams of the distinct tokens of each message.

    Returns:
        The n-grams and the messages that they belong to, both int32 [n-grams].
    """
    rows, tokens = inputs["rows"], tf.shape(inputs["words"])[0]
    message = tf.repeat(tf.range(tf.shape(rows)[0])[:, tf.newaxis], tf.shape(rows)[1], axis=1)
    # int64, because messages times tokens may exceed int32.
    occurrences = tf.unique(
        tf.boolean_mask(tf.cast(message, tf.int64) * tf.cast(tokens, tf.int64) + tf.cast(rows, tf.int64), rows != 0)
    ).y
    message, token = (
        tf.cast(indices, tf.int32)
        for indices in (occurrences // tf.cast(tokens, tf.int64), occurrences % tf.cast(tokens, tf.int64))
    )
    counts = tf.math.bincount(inputs["owners"], minlength=tokens, maxlength=tokens)
    sizes = tf.gather(counts, token)
    offsets = tf.range(tf.reduce_sum(sizes)) - tf.repeat(tf.cumsum(sizes, exclusive=True), sizes)
    positions = tf.repeat(tf.gather(tf.cumsum(counts, exclusive=True), token), sizes) + offsets
    return tf.gather(inputs["ngrams"], positions), tf.repeat(message, sizes)


def _hash_pairs(inputs: dict[str, tf.Tensor], buckets: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Hashes the pairs of neighbouring tokens.

    Returns:
        The pairs and the messages that they belong to, both int32 [pairs].
    """
    rows, owners = inputs["rows"], inputs["owners"]
    # The last n-gram of a token is the whole token, and serves as its key.
    last = tf.math.unsorted_segment_max(tf.range(tf.shape(owners)[0]), owners, tf.shape(inputs["words"])[0])
    # A batch without messages has no n-grams, but the row of padding looks one up.
    keys = tf.gather(tf.concat([inputs["ngrams"], [0]], axis=0), tf.maximum(last, 0))
    token_keys = tf.cast(tf.gather(keys, rows), tf.int64)
    pairs = tf.cast((token_keys[:, :-1] * PAIR_FACTOR + token_keys[:, 1:] + 1) % buckets, tf.int32)
    message = tf.repeat(tf.range(tf.shape(rows)[0])[:, tf.newaxis], tf.shape(pairs)[1], axis=1)
    is_pair = rows[:, 1:] != 0
    return tf.boolean_mask(pairs, is_pair), tf.boolean_mask(message, is_pair)


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
        settings.ngram_buckets,
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


def ngram_buckets(network: keras.Model) -> int:
    """Returns the number of hash buckets that the network expects for n-grams."""
    return int(network.get_layer("embedding").buckets)


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
