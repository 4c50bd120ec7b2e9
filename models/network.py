"""The recurrent network, as a Keras model: token ids in, the logit of spam out."""

from __future__ import annotations

import keras
import tensorflow as tf

from models.calibration import Calibration
from models.settings import NetworkSettings

_CELLS = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM, "simple": keras.layers.SimpleRNN}
LOGIT = "logit"  # the last layer that has weights


@keras.saving.register_keras_serializable("spamscore")
class MaskedMaxPooling(keras.layers.Layer):
    """The largest value of each unit over the tokens that are there.

    Input float [messages, tokens, units] with a mask, output float [messages, units]. Padding never wins, so a
    message's logit does not depend on how far it is padded.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.supports_masking = True

    def call(self, inputs: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Pools over axis 1."""
        if mask is not None:
            inputs = tf.where(mask[..., tf.newaxis], inputs, inputs.dtype.min)
        return tf.reduce_max(inputs, axis=1)

    def compute_mask(self, _inputs: tf.Tensor, _mask: tf.Tensor | None = None) -> None:
        """No tokens are left, so no mask."""
        return


def build_network(settings: NetworkSettings, vocabulary_size: int, seed: int = 0) -> keras.Model:
    """Builds the network with fresh weights.

    Args:
        settings: cell, sizes, directions, pooling, dropout.
        vocabulary_size: numbers there are, padding and unknown included.
        seed: of weights and dropout; equal seeds give equal networks.

    Returns:
        A model from int32 [messages, tokens], 0 where padded, to float32 logits [messages].
    """
    ids = keras.Input([None], dtype="int32", name="ids")
    embedded = keras.layers.Embedding(
        vocabulary_size,
        settings.embedding_size,
        mask_zero=True,
        embeddings_initializer=keras.initializers.RandomUniform(-0.05, 0.05, seed=seed),
        name="embedding",
    )(ids)
    embedded = keras.layers.SpatialDropout1D(settings.dropout, seed=seed + 1, name="embedding_dropout")(embedded)
    read = _recurrent(settings, seed)(embedded)
    pooled = MaskedMaxPooling(name="pooling")(read) if settings.pooling == "max" else read
    pooled = keras.layers.Dropout(settings.dropout, seed=seed + 2, name="dropout")(pooled)
    logit = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=seed), name=LOGIT)(pooled)
    return keras.Model(ids, keras.layers.Flatten(name="flat")(logit)[:, 0], name="spam_network")


def calibrate(network: keras.Model, calibration: Calibration) -> None:
    """Puts a calibration into the weights of the last layer: from then on the network's logits are calibrated."""
    kernel, bias = network.get_layer(LOGIT).weights
    kernel.assign(kernel.value * calibration.scale)
    bias.assign(bias.value * calibration.scale + calibration.bias)


def _recurrent(settings: NetworkSettings, seed: int) -> keras.layers.Layer:
    options: dict[str, object] = {"use_cudnn": False} if settings.cell != "simple" else {}
    layer = _CELLS[settings.cell](
        settings.rnn_units,
        return_sequences=settings.pooling == "max",
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        recurrent_initializer=keras.initializers.Orthogonal(seed=seed),
        name="recurrent",
        # cuDNN's kernels give other bits and make an export that a machine without a GPU cannot run.
        **options,
    )
    return keras.layers.Bidirectional(layer, name="recurrent") if settings.bidirectional else layer
