"""Scoring: messages to spam probabilities, on the devices there are.

Messages of like length share a batch and widths are few and fixed, so that nothing is traced twice and little is
padded. Padding changes no score, so neither does the company a message is scored in.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.encoder import EncodedMessages, TextEncoder, encode_messages

_WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 160, 256, 512, 1024, 2048, 4096, 8192, 16384)
DECIMALS = 6


@dataclass(frozen=True)
class Scored:
    """Probabilities of messages, and where the time went.

    Attributes:
        probabilities: float64 [messages], rounded to six decimals.
        seconds_text: seconds from raw messages to token ids.
        seconds_network: seconds from token ids to probabilities.
    """

    probabilities: npt.NDArray[np.float64]
    seconds_text: float
    seconds_network: float


class Scorer:
    """A network on one or several devices, and the encoder in front of it."""

    def __init__(
        self, encoder: TextEncoder, network: keras.Model, devices: Sequence[str], batch_size: int = 512
    ) -> None:
        """Puts a copy of the network on each device.

        Args:
            encoder: raw messages to token ids.
            network: token ids to logits.
            devices: logical devices by name, as `models.devices.chosen_devices` gives them.
            batch_size: messages in one call of the network.
        """
        self.encoder = encoder
        self.devices = list(devices)
        self.batch_size = batch_size
        self._forward = [_forward_on(device, network) for device in self.devices]

    def score(self, texts: Sequence[str]) -> Scored:
        """Scores messages, in order."""
        began = time.monotonic()
        encoded = encode_messages(self.encoder, texts)
        middle = time.monotonic()
        logits = self.logits(encoded)
        probabilities = np.round(1.0 / (1.0 + np.exp(-logits.astype(np.float64))), DECIMALS)
        return Scored(probabilities, middle - began, time.monotonic() - middle)

    def logits(self, messages: EncodedMessages) -> npt.NDArray[np.float32]:
        """Logits of encoded messages, float32 [messages]: batches go to the devices in turn."""
        logits = np.zeros(len(messages), np.float32)
        batches = list(length_batches(messages.lengths, self.batch_size))
        if len(self._forward) == 1:
            for rows, width in batches:
                logits[rows] = self._forward[0](messages.padded(rows, width))
            return logits
        with ThreadPoolExecutor(len(self._forward), thread_name_prefix="device") as pool:
            for result in [
                pool.submit(self._score_share, messages, batches, number, logits)
                for number in range(len(self._forward))
            ]:
                result.result()
        return logits

    def _score_share(
        self,
        messages: EncodedMessages,
        batches: list[tuple[npt.NDArray[np.int64], int]],
        number: int,
        logits: npt.NDArray[np.float32],
    ) -> None:
        """Every n-th batch, on the n-th device; each writes to places of its own."""
        for rows, width in itertools.islice(batches, number, None, len(self._forward)):
            logits[rows] = self._forward[number](messages.padded(rows, width))


def network_logits(network: keras.Model, messages: EncodedMessages, batch_size: int = 512) -> npt.NDArray[np.float32]:
    """Logits of encoded messages on the default device, float32 [messages]."""
    forward = _forward_on(None, network)
    logits = np.zeros(len(messages), np.float32)
    for rows, width in length_batches(messages.lengths, batch_size):
        logits[rows] = forward(messages.padded(rows, width))
    return logits


def length_batches(lengths: npt.NDArray[np.int64], batch_size: int) -> Sequence[tuple[npt.NDArray[np.int64], int]]:
    """Batches of messages of like length: rows (int64 [batch_size or fewer]) and the width to pad them to.

    Which messages share a batch depends on the lengths and their order alone.
    """
    order = np.argsort(lengths, kind="stable")
    widths = np.asarray(_WIDTHS)[np.searchsorted(_WIDTHS, lengths[order])]
    batches = []
    for width in np.unique(widths):
        rows = order[widths == width]
        batches += [(rows[at : at + batch_size], int(width)) for at in range(0, len(rows), batch_size)]
    return batches


class _forward_on:  # noqa: N801 - a function with a compiled graph of its own
    """Calls a network on one device: int32 [messages, width] to float32 logits [messages]."""

    def __init__(self, device: str | None, network: keras.Model) -> None:
        """Takes the network as it is or, where its weights are on another device, a copy of it."""
        with tf.device(device):
            if device and not all(weight.value.device.endswith(device) for weight in network.weights):
                twin = keras.models.clone_model(network)
                twin.set_weights(network.get_weights())
                network = twin
        self._device = device
        self._network = network
        self._call = tf.function(
            lambda ids: network(ids, training=False), input_signature=[tf.TensorSpec([None, None], tf.int32)]
        )

    def __call__(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        with tf.device(self._device):
            return self._call(tf.constant(ids)).numpy()
