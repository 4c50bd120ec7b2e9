"""Scoring: messages to spam probabilities, on the devices there are.

On one processor the network is `models.inference.packed_network`, where the company that a message is scored in
changes no bit of its
score. On several devices, or a GPU, it is the Keras model: there messages of like length share a batch and widths are
few and fixed, so that nothing is traced twice and little is padded; neither padding nor company changes a score by more
than rounding does.

`score_apart` scores whatever comes: a message that makes scoring fail is found by halving, and the others are scored.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from models.errors import ArtifactError, DeviceError, SpamscoreError
from models.inference.message_reader import MessageReader
from models.inference.packed_network import PackedNetwork
from models.inference.score_cache import KnownScores, hashes_of, repeats_of
from models.network.network import INPUTS
from models.statistics.calibration import to_probabilities
from models.text.arrow_tensors import Texts, as_arrow
from models.text.encoder import EncodedMessages, TextEncoder

Result = TypeVar("Result")
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
    """A network on one or several devices, and the reader of messages in front of it.

    Several threads may score different messages at once: one reads text while others compute.
    """

    def __init__(
        self, encoder: TextEncoder, network: keras.Model, devices: Sequence[str], batch_size: int | str = 512
    ) -> None:
        """Puts the network on the devices.

        Args:
            encoder: raw messages to encoded ones.
            network: encoded messages to logits, calibrated.
            devices: logical devices by name, as `models.network.devices.select_devices` gives them.
            batch_size: messages in one call of the network; auto finds it with the first messages.
        """
        self.devices = list(devices)
        self._reader = MessageReader(encoder)
        self._scored = KnownScores()
        one_processor = len(self.devices) == 1 and "CPU" in self.devices[0]
        network_on = PackedNetwork(network) if one_processor else DeviceNetworks(network, self.devices)
        self._network: PackedNetwork | DeviceNetworks = network_on
        self._reading = threading.Lock()
        # Devices have one call at a time, a processor one for each thread.
        self._computing = contextlib.nullcontext() if one_processor else threading.Lock()
        self._batch_size = _BatchSize(batch_size)

    @property
    def threads(self) -> int:
        """Threads that may well score at once; 0 for as many as there are cores."""
        return 0 if isinstance(self._network, PackedNetwork) else 2

    def score(self, texts: Texts) -> Scored:
        """Scores messages, in order: of equal ones one, and none that was scored before."""
        with self._reading:
            began = time.monotonic()
            messages = as_arrow(texts)
            hashes = hashes_of(messages)
            repeats = repeats_of(hashes)
            hashes = hashes[repeats.firsts]
            probabilities = self._scored.find(hashes)
            unknown = np.flatnonzero(np.isnan(probabilities))
            all_new = len(unknown) == len(messages)
            encoded = self._reader.read(messages if all_new else messages.take(pa.array(repeats.firsts[unknown])))
            seconds_text = time.monotonic() - began
        with self._computing:
            began = time.monotonic()
            probabilities[unknown] = to_probabilities(self.logits(encoded))
            self._scored.keep(hashes[unknown], probabilities[unknown])
            return Scored(probabilities[repeats.places], seconds_text, time.monotonic() - began)

    def help(self) -> bool:
        """Computes a piece of what another thread scores, if there is one to be had; whether there was."""
        return isinstance(self._network, PackedNetwork) and self._network.help()

    def encode(self, texts: Texts) -> EncodedMessages:
        """Encodes messages, in order."""
        with self._reading:
            return self._reader.read(texts)

    def logits(self, messages: EncodedMessages) -> npt.NDArray[np.float32]:
        """Logits of encoded messages, float32 [messages]."""
        return self._batch_size.logits(self._network, messages)


class _BatchSize:
    """The batch size that was set or, for auto, the one that the first calls went fastest with.

    Each size is tried with whole calls, which are part of the work: a trial costs no more than the wrong size does.
    """

    _TRIED = (512, 256, 1024, 2048)
    _TRIALS = 2  # of each; the faster one counts, for the first call may compile
    _FEW = 2000  # messages; fewer tell nothing

    def __init__(self, setting: int | str) -> None:
        sizes = self._TRIED if isinstance(setting, str) else (setting,)
        self._untried = list(sizes) * self._TRIALS if len(sizes) > 1 else []
        self._seconds_a_token = dict.fromkeys(sizes, math.inf)
        self._usual = sizes[0]
        self._lock = threading.Lock()

    def logits(self, network: PackedNetwork | DeviceNetworks, messages: EncodedMessages) -> npt.NDArray[np.float32]:
        """Logits of messages, float32 [messages], in batches of the size that is best as far as is known."""
        if len(messages) < self._FEW:
            return network.logits(messages, self._usual)
        size = self._next()
        began = network.clock()
        logits = network.logits(messages, size)
        with self._lock:
            seconds = (network.clock() - began) / len(messages.rows)
            self._seconds_a_token[size] = min(self._seconds_a_token[size], seconds)
        return logits

    def _next(self) -> int:
        with self._lock:
            if self._untried:
                return self._untried.pop(0)
            return min(self._seconds_a_token, key=self._seconds_a_token.__getitem__)


class DeviceNetworks:
    """A copy of the Keras model on each device; batches of messages of like length go to the devices in turn."""

    clock = staticmethod(time.perf_counter)

    def __init__(self, network: keras.Model, devices: Sequence[str]) -> None:
        self._forward = [_forward_on(device, network) for device in devices]

    def logits(self, messages: EncodedMessages, batch_size: int) -> npt.NDArray[np.float32]:
        """Logits of encoded messages, float32 [messages]."""
        logits = np.zeros(len(messages), np.float32)
        batches = list(length_batches(messages.lengths, batch_size))
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


def score_apart(scorer: Scorer, texts: Texts) -> ScoredApart:
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
    outcome = _attempt(scorer.score, texts)
    if isinstance(outcome, Scored) and np.isfinite(outcome.probabilities).all():
        return ScoredApart(outcome, {})
    texts = texts.to_pylist() if isinstance(texts, pa.Array) else texts
    sieve = _Sieve(scorer, texts)
    sieve.halve(outcome)
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

    def halve(self, outcome: Scored | Exception) -> None:
        """Scores all that can be, and sets apart what raises when it is alone.

        Args:
            outcome: what scoring all of them together gave or raised.
        """
        known: Scored | Exception | None = outcome
        waiting: list[Sequence[int]] = [range(len(self._texts))] if self._texts else []
        while waiting:
            places = waiting.pop()
            error = self._kept(places, known or self._score(places))
            known = None
            if error and len(places) > 1:
                middle = len(places) // 2
                waiting += [places[middle:], places[:middle]]
            elif error:
                self._require_plain(error)
                self.errors[places[0]] = error
        if self.errors:
            # Should they fail together although no part did, as for want of memory, the scores of the parts stay.
            others = [place for place in range(len(self._texts)) if place not in self.errors]
            self._kept(others, self._score(others))

    def set_apart_what_is_no_number(self) -> None:
        """Sets apart the messages that were scored with NaN or an infinity."""
        error = FloatingPointError("the probability is no number")
        found = [place for place in np.flatnonzero(~np.isfinite(self.probabilities)) if place not in self.errors]
        if found:
            self._require_plain(error)
        self.errors |= {int(place): error for place in found}

    def _score(self, places: Sequence[int]) -> Scored | Exception:
        return _attempt(self._scorer.score, [self._texts[place] for place in places])

    def _kept(self, places: Sequence[int], outcome: Scored | Exception) -> Exception | None:
        """Keeps the scores of messages; the error if there are none."""
        if isinstance(outcome, Exception):
            return outcome
        self.probabilities[places] = outcome.probabilities
        self.seconds += (outcome.seconds_text, outcome.seconds_network)
        return None

    def _require_plain(self, error: Exception) -> None:
        """Makes sure that it is a message that fails."""
        scored = _attempt(self._scorer.score, [PLAIN_MESSAGE])
        if isinstance(scored, Exception) or not np.isfinite(scored.probabilities).all():
            raise _broken(error, f"a plain message, {PLAIN_MESSAGE!r}, cannot be scored either")


def _attempt(step: Callable[[Any], Result], given: Any) -> Result | Exception:
    """What a step gives or raises: which class a bad message makes TensorFlow raise cannot be known before."""
    try:
        return step(given)
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
