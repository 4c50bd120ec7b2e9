"""Scoring: messages to spam probabilities, on the devices there are.

Messages of like length share a batch and widths are few and fixed, so that nothing is traced twice and little is
padded. Padding changes no score, so neither does the company a message is scored in.

`score_apart` scores whatever comes: a message that makes scoring fail is found by halving, and the others are scored.
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

from models.calibration import probabilities_of
from models.encoder import EncodedMessages, TextEncoder, encode_messages
from models.errors import ArtifactError, DeviceError, SpamscoreError
from models.network import INPUTS

_WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 160, 256, 512, 1024, 2048, 4096, 8192, 16384)

# A message that every model can score: when this one fails too, no message is to blame.
PLAIN_MESSAGE = "hello"
# Of so many messages all may be bad by chance; of more, what scores them is broken.
FEW_MESSAGES = 10
_ERROR_CHARACTERS = 300
_HIDDEN_FROM = 3  # characters; a shorter message says nothing, and may be part of any word
_OF_A_DEVICE = (
    tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError, tf.errors.InternalError,
    tf.errors.ResourceExhaustedError, tf.errors.UnavailableError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """Probabilities of messages, and where the time went.

    Attributes:
        probabilities: float64 [messages], rounded to six decimals.
        seconds_text: seconds from raw messages to encoded ones.
        seconds_network: seconds from encoded messages to probabilities.
    """

    probabilities: npt.NDArray[np.float64]
    seconds_text: float
    seconds_network: float


@dataclass(frozen=True)
class ScoredApart:
    """Probabilities of the messages that could be scored, and what the others failed with.

    Attributes:
        scored: as for all messages; NaN at the places of those that failed.
        failures: what a message failed with on one line of up to 300 characters, by its place.
    """

    scored: Scored
    failures: dict[int, str]


class Scorer:
    """A network on one or several devices, and the encoder in front of it."""

    def __init__(
        self, encoder: TextEncoder, network: keras.Model, devices: Sequence[str], batch_size: int = 512
    ) -> None:
        """Puts a copy of the network on each device.

        Args:
            encoder: raw messages to encoded ones.
            network: encoded messages to logits, calibrated.
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
        probabilities = probabilities_of(self.logits(encoded))
        return Scored(probabilities, middle - began, time.monotonic() - middle)

    def logits(self, messages: EncodedMessages) -> npt.NDArray[np.float32]:
        """Logits of encoded messages, float32 [messages]: batches go to the devices in turn."""
        logits = np.zeros(len(messages), np.float32)
        batches = list(length_batches(messages.lengths, self.batch_size))
        if len(self._forward) == 1:
            for rows, width in batches:
                logits[rows] = self._forward[0](messages.batch(rows, width))
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
            logits[rows] = self._forward[number](messages.batch(rows, width))


def score_apart(scorer: Scorer, texts: Sequence[str]) -> ScoredApart:
    """Scores messages, and sets apart those that make scoring fail or whose probability is no number.

    When scoring fails the messages are halved until the failing one is alone, which takes about 2 log2(n) calls for
    each of them and never more than 3 n in all. `PLAIN_MESSAGE`, scored right after, shows that it is the message that
    fails. The others are then scored together, as they would have been without it.

    It ends in an error instead, for then the model or the device fails and not a message, when the plain message fails
    too, or when all of more than `FEW_MESSAGES` messages do. Errors raised on purpose, those of files and connections
    (OSError), and what ends a process are not caught.

    Args:
        scorer: texts to probabilities.
        texts: messages.

    Raises:
        ArtifactError: the model fails.
        DeviceError: the device fails, or has not the memory for any message.
    """
    sieve = _Sieve(scorer, texts)
    sieve.halve()
    sieve.set_apart_what_is_no_number()
    errors = sieve.errors
    if len(errors) == len(texts) > FEW_MESSAGES:
        raise _broken(errors[0], f"none of {len(texts):,} messages can be scored")
    failures = {place: _told(error, texts[place]) for place, error in errors.items()}
    return ScoredApart(Scored(sieve.probabilities, *sieve.seconds.tolist()), failures)


class _Sieve:
    """Messages on their way to be scored or set apart.

    Attributes:
        probabilities: float64 [messages], NaN where there is none.
        errors: what a message failed with, by its place.
        seconds: float64 [2], of text and of the network, in all calls.
    """

    def __init__(self, scorer: Scorer, texts: Sequence[str]) -> None:
        self.probabilities = np.full(len(texts), np.nan)
        self.errors: dict[int, Exception] = {}
        self.seconds = np.zeros(2)
        self._scorer = scorer
        self._texts = texts

    def halve(self) -> None:
        """Scores all that can be, and sets apart what raises when it is alone."""
        waiting: list[Sequence[int]] = [range(len(self._texts))] if self._texts else []
        while waiting:
            places = waiting.pop()
            error = self._error_of(places)
            if error and len(places) > 1:
                middle = len(places) // 2
                waiting += [places[middle:], places[:middle]]
            elif error:
                self._require_plain(error)
                self.errors[places[0]] = error
        if self.errors:
            # Should they fail together although no part did, as for want of memory, the scores of the parts stay.
            self._error_of([place for place in range(len(self._texts)) if place not in self.errors])

    def set_apart_what_is_no_number(self) -> None:
        """Sets apart the messages that were scored with NaN or an infinity."""
        error = FloatingPointError("the probability is no number")
        found = [place for place in np.flatnonzero(~np.isfinite(self.probabilities)) if place not in self.errors]
        if found:
            self._require_plain(error)
        self.errors |= {int(place): error for place in found}

    def _error_of(self, places: Sequence[int]) -> Exception | None:
        scored = _attempt(self._scorer, [self._texts[place] for place in places])
        if isinstance(scored, Exception):
            return scored
        self.probabilities[places] = scored.probabilities
        self.seconds += (scored.seconds_text, scored.seconds_network)
        return None

    def _require_plain(self, error: Exception) -> None:
        """Makes sure that it is a message that fails."""
        scored = _attempt(self._scorer, [PLAIN_MESSAGE])
        if isinstance(scored, Exception) or not np.isfinite(scored.probabilities).all():
            raise _broken(error, f"a plain message, {PLAIN_MESSAGE!r}, cannot be scored either")


def _attempt(scorer: Scorer, texts: Sequence[str]) -> Scored | Exception:
    """The scores, or what scoring raised: which class a bad message makes TensorFlow raise cannot be known before."""
    try:
        return scorer.score(texts)
    except (SpamscoreError, OSError):
        raise
    except Exception as error:
        return error


def _broken(error: Exception, reason: str) -> SpamscoreError:
    """The error that says that no message is to blame."""
    kind = DeviceError if isinstance(error, _OF_A_DEVICE) else ArtifactError
    return kind(
        f"scoring failed and {reason}, so no message is to blame but the model or its device: {_told(error)}. "
        "Run again; if it says the same, choose other [devices], go back to the version before (spamscore serve) "
        "or train again."
    )


def _told(error: Exception, text: str = "") -> str:
    """Class and first line of an error, without controls and without the message itself, which is nobody's business."""
    said = str(error)
    if len(text) > _HIDDEN_FROM:
        said = said.replace(text, "…").replace(repr(text)[1:-1], "…")
    line = next(iter(said.splitlines()), "")
    shown = "".join(one if one.isprintable() else " " for one in f"{type(error).__name__}: {line}")
    return shown[:_ERROR_CHARACTERS].rstrip(": ")


def network_logits(network: keras.Model, messages: EncodedMessages, batch_size: int = 512) -> npt.NDArray[np.float32]:
    """Logits of encoded messages on the default device, float32 [messages]."""
    forward = _forward_on(None, network)
    logits = np.zeros(len(messages), np.float32)
    for rows, width in length_batches(messages.lengths, batch_size):
        logits[rows] = forward(messages.batch(rows, width))
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
    """Calls a network on one device: a batch of encoded messages to float32 logits [messages]."""

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
            lambda batch: network(batch, training=False),
            input_signature=[{name: tf.TensorSpec([None] * rank, tf.int32) for name, rank in INPUTS.items()}],
            autograph=False,
        )

    def __call__(self, batch: dict[str, npt.NDArray[np.int32]]) -> npt.NDArray[np.float32]:
        with tf.device(self._device):
            return self._call({name: tf.constant(values) for name, values in batch.items()}).numpy()
