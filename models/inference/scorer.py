"""Scores messages: text to spam probabilities, on the available devices.

On one CPU the network is `models.inference.packed_network`, with which the score of a message is the same to the last
bit in any batch. On several devices, or a GPU, it is the Keras model. There, messages of similar length share a batch,
and batches are padded to a few fixed widths, so that each width is traced once. Neither the padding nor the other
messages of a batch change a score by more than rounding does.

`score_isolating_failures` also handles messages that make scoring fail: it finds them by bisection, and scores the
others.
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
from models.inference.score_cache import ScoreCache, find_duplicates, hash_messages
from models.network.network import INPUTS
from models.statistics.calibration import to_probabilities
from models.text.encoder import EncodedMessages, TextEncoder
from models.text.texts import Texts, as_buffers, take

Result = TypeVar("Result")
_WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 160, 256, 512, 1024, 2048, 4096, 8192, 16384)

# Words that loops cut, that need a rule, that TensorFlow cuts; and a message that it cuts whole.
_WARM_UP_MESSAGES = ("hello WORLD 4u! £1.50", "don't caf\u00e9 &amp; www.example.test", "\u65e5\u672c", "f r e e")
# A message that every model can score. If it fails too, the cause is not a message.
PLAIN_MESSAGE = "hello"
# Up to so many messages may all fail by chance. If all of a larger number fail, the model or the device is broken.
MAX_FAILURES_BY_CHANCE = 10
_ERROR_CHARACTERS = 300
_MAX_UNREDACTED = 3  # characters; so short a message reveals nothing, and may be part of any word
_DEVICE_ERRORS = (
    tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError, tf.errors.InternalError,
    tf.errors.ResourceExhaustedError, tf.errors.UnavailableError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Probabilities of messages, and the time that scoring took.

    Attributes:
        probabilities: float64 [messages], rounded to six decimals.
        seconds_text: seconds to encode the messages.
        seconds_network: seconds to compute the probabilities of encoded messages.
    """

    probabilities: npt.NDArray[np.float64]
    seconds_text: float
    seconds_network: float


@dataclass(frozen=True)
class ScoresAndFailures:
    """Probabilities of the messages that could be scored, and the errors of the others.

    Attributes:
        scores: of all messages; NaN for those that failed.
        failures: the error of each message that failed, by index, on one line of up to 300 characters.
    """

    scores: Scores
    failures: dict[int, str]


class Scorer:
    """A network on one or several devices, with the reader that encodes its messages.

    Several threads may score different messages at once: one encodes while others compute.
    """

    def __init__(
        self, encoder: TextEncoder, network: keras.Model, devices: Sequence[str], batch_size: int | str = 512
    ) -> None:
        """Puts the network on the devices.

        Args:
            encoder: encodes raw messages.
            network: computes calibrated logits of encoded messages.
            devices: names of logical devices, as `models.network.devices.select_devices` returns them.
            batch_size: number of messages in one call of the network; "auto" measures which one is the fastest.
        """
        self.devices = list(devices)
        self._reader = MessageReader(encoder)
        self._cache = ScoreCache()
        one_cpu = len(self.devices) == 1 and "CPU" in self.devices[0]
        backend = PackedNetwork(network) if one_cpu else DeviceNetworks(network, self.devices)
        self._network: PackedNetwork | DeviceNetworks = backend
        self._reading = threading.Lock()
        # Devices run one call at a time, a CPU one for each thread.
        self._computing = contextlib.nullcontext() if one_cpu else threading.Lock()
        self._batch_size = _BatchSizeTuner(batch_size)

    @property
    def threads(self) -> int:
        """Number of threads that can usefully score at once; 0 for the number of cores."""
        return 0 if isinstance(self._network, PackedNetwork) else 2

    def score(self, texts: Texts) -> Scores:
        """Scores messages, in order. Duplicates are scored once, and messages in the score cache not again."""
        with self._reading:
            start = time.monotonic()
            messages = as_buffers(texts)
            hashes = hash_messages(*messages)
            duplicates = find_duplicates(hashes)
            distinct = hashes[duplicates.firsts]
            probabilities = self._cache.get(distinct)
            missing = np.flatnonzero(np.isnan(probabilities))
            if len(missing) < len(hashes):
                messages = as_buffers(take(texts, duplicates.firsts[missing]))
            encoded = self._reader.read_buffers(*messages)
            seconds_text = time.monotonic() - start
        with self._computing:
            start = time.monotonic()
            probabilities[missing] = to_probabilities(self.logits(encoded))
            self._cache.put(distinct[missing], probabilities[missing])
            return Scores(probabilities[duplicates.inverse], seconds_text, time.monotonic() - start)

    def warm_up(self) -> None:
        """Scores messages that use every part of the scorer: loads compiled loops, and traces TensorFlow functions."""
        self.score(_WARM_UP_MESSAGES)

    def help(self) -> bool:
        """Computes a piece of another thread's call. Returns False if there is none."""
        return isinstance(self._network, PackedNetwork) and self._network.help()

    def encode(self, texts: Texts) -> EncodedMessages:
        """Encodes messages, in order."""
        with self._reading:
            return self._reader.read(texts)

    def logits(self, messages: EncodedMessages) -> npt.NDArray[np.float32]:
        """Computes the logits of encoded messages, float32 [messages]."""
        return self._batch_size.logits(self._network, messages)


class _BatchSizeTuner:
    """Chooses the batch size: the one that is set or, for auto, the one with which the first calls were fastest.

    Each size is tried with whole calls, which are part of the work, so a trial costs no more than a wrong size would.
    """

    _CANDIDATES = (512, 256, 1024, 2048)
    _TRIALS_EACH = 2  # of each size; the faster one counts, because the first call may include compilation
    _MIN_MESSAGES = 2000  # fewer messages are not measured

    def __init__(self, setting: int | str) -> None:
        sizes = self._CANDIDATES if isinstance(setting, str) else (setting,)
        self._trials = list(sizes) * self._TRIALS_EACH if len(sizes) > 1 else []
        self._seconds_per_token = dict.fromkeys(sizes, math.inf)
        self._default = sizes[0]
        self._lock = threading.Lock()

    def logits(self, network: PackedNetwork | DeviceNetworks, messages: EncodedMessages) -> npt.NDArray[np.float32]:
        """Computes the logits of messages, float32 [messages], in batches of the best size known so far."""
        if len(messages) < self._MIN_MESSAGES:
            return network.logits(messages, self._default)
        size = self._next_size()
        start = network.clock()
        logits = network.logits(messages, size)
        with self._lock:
            seconds = (network.clock() - start) / len(messages.rows)
            self._seconds_per_token[size] = min(self._seconds_per_token[size], seconds)
        return logits

    def _next_size(self) -> int:
        with self._lock:
            if self._trials:
                return self._trials.pop(0)
            return min(self._seconds_per_token, key=self._seconds_per_token.__getitem__)


class DeviceNetworks:
    """A copy of the Keras model on each device. Batches of messages of similar length are dealt to them round-robin."""

    clock = staticmethod(time.perf_counter)

    def __init__(self, network: keras.Model, devices: Sequence[str]) -> None:
        self._networks = [_DeviceNetwork(device, network) for device in devices]

    def logits(self, messages: EncodedMessages, batch_size: int) -> npt.NDArray[np.float32]:
        """Computes the logits of encoded messages, float32 [messages]."""
        logits = np.zeros(len(messages), np.float32)
        batches = list(batch_by_length(messages.lengths, batch_size))
        with ThreadPoolExecutor(len(self._networks), thread_name_prefix="device") as pool:
            for result in [
                pool.submit(self._score_share, messages, batches, number, logits)
                for number in range(len(self._networks))
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
        """Scores every n-th batch on device `number`. Batches write to different elements of `logits`."""
        for rows, width in itertools.islice(batches, number, None, len(self._networks)):
            logits[rows] = self._networks[number](messages.batch(rows, width))


def score_isolating_failures(scorer: Scorer, texts: Texts) -> ScoresAndFailures:
    """Scores messages, and isolates those that make scoring fail or whose probability is not finite.

    If scoring fails, the messages are bisected until each failing one is alone. That takes about 2 log2(n) calls for
    each of them, and never more than 3 n in all. `PLAIN_MESSAGE` is scored after each failure, to confirm that the
    message is the cause. The other messages are then scored together, as they would have been without it.

    If the plain message fails too, or if all of more than `MAX_FAILURES_BY_CHANCE` messages fail, the cause is the
    model or the device, and an error is raised. Errors of spamscore, of files and connections (OSError), and exceptions
    that end the process are not caught.

    Args:
        scorer: scores messages.
        texts: messages.

    Raises:
        ArtifactError: the model fails.
        DeviceError: the device fails, or does not have the memory for any message.
    """
    outcome = _attempt(scorer.score, texts)
    if isinstance(outcome, Scores) and np.isfinite(outcome.probabilities).all():
        return ScoresAndFailures(outcome, {})
    texts = texts.to_pylist() if isinstance(texts, pa.Array) else texts
    isolation = _FailureIsolation(scorer, texts)
    isolation.bisect(outcome)
    isolation.isolate_non_finite()
    errors = isolation.errors
    if len(errors) == len(texts) > MAX_FAILURES_BY_CHANCE:
        raise _model_error(errors[0], f"none of {len(texts):,} messages can be scored")
    failures = {index: _describe_error(error, texts[index]) for index, error in errors.items()}
    return ScoresAndFailures(Scores(isolation.probabilities, *isolation.seconds.tolist()), failures)


class _FailureIsolation:
    """Finds the messages that make scoring fail, and scores the others.

    Attributes:
        probabilities: float64 [messages], NaN for messages that have none.
        errors: the error of each message that failed, by index.
        seconds: seconds of text and of the network in all calls, float64 [2].
    """

    def __init__(self, scorer: Scorer, texts: Sequence[str]) -> None:
        self.probabilities = np.full(len(texts), np.nan)
        self.errors: dict[int, Exception] = {}
        self.seconds = np.zeros(2)
        self._scorer = scorer
        self._texts = texts

    def bisect(self, outcome: Scores | Exception) -> None:
        """Scores all messages that can be scored, and records those that fail alone.

        Args:
            outcome: result or error of scoring all messages together.
        """
        first_outcome: Scores | Exception | None = outcome
        pending: list[Sequence[int]] = [range(len(self._texts))] if self._texts else []
        while pending:
            indices = pending.pop()
            error = self._store(indices, first_outcome or self._score(indices))
            first_outcome = None
            if error and len(indices) > 1:
                middle = len(indices) // 2
                pending += [indices[middle:], indices[:middle]]
            elif error:
                self._require_plain_message(error)
                self.errors[indices[0]] = error
        if self.errors:
            # They may fail together although no part did, as when memory runs out. Then the scores of the parts stay.
            remaining = [index for index in range(len(self._texts)) if index not in self.errors]
            self._store(remaining, self._score(remaining))

    def isolate_non_finite(self) -> None:
        """Records the messages whose probability is NaN or infinite as failed."""
        error = FloatingPointError("the probability is not a finite number")
        failed = [index for index in np.flatnonzero(~np.isfinite(self.probabilities)) if index not in self.errors]
        if failed:
            self._require_plain_message(error)
        self.errors |= {int(index): error for index in failed}

    def _score(self, indices: Sequence[int]) -> Scores | Exception:
        return _attempt(self._scorer.score, [self._texts[index] for index in indices])

    def _store(self, indices: Sequence[int], outcome: Scores | Exception) -> Exception | None:
        """Stores the scores of messages. Returns the error if scoring failed."""
        if isinstance(outcome, Exception):
            return outcome
        self.probabilities[indices] = outcome.probabilities
        self.seconds += (outcome.seconds_text, outcome.seconds_network)
        return None

    def _require_plain_message(self, error: Exception) -> None:
        """Raises an error if the plain message fails too, because then the cause is not a message."""
        outcome = _attempt(self._scorer.score, [PLAIN_MESSAGE])
        if isinstance(outcome, Exception) or not np.isfinite(outcome.probabilities).all():
            raise _model_error(error, f"a plain message, {PLAIN_MESSAGE!r}, cannot be scored either")


def _attempt(function: Callable[[Any], Result], argument: Any) -> Result | Exception:
    """Returns the result or the error of a call. The class of error that a bad message causes is not predictable."""
    try:
        return function(argument)
    except (SpamscoreError, OSError):
        raise
    except Exception as error:
        return error


def _model_error(error: Exception, reason: str) -> SpamscoreError:
    """Returns the error for a failure whose cause is not a message."""
    kind = DeviceError if isinstance(error, _DEVICE_ERRORS) else ArtifactError
    return kind(
        f"scoring failed, and {reason}. The cause is the model or its device, not a message: {_describe_error(error)}. "
        "Run again. If it fails again, choose other [devices], go back to the previous version (spamscore serve) "
        "or train again."
    )


def _describe_error(error: Exception, text: str = "") -> str:
    """Returns class and first line of an error, without control characters and with the message redacted."""
    description = str(error)
    if len(text) > _MAX_UNREDACTED:
        description = description.replace(text, "…").replace(repr(text)[1:-1], "…")
    line = next(iter(description.splitlines()), "")
    printable = "".join(letter if letter.isprintable() else " " for letter in f"{type(error).__name__}: {line}")
    return printable[:_ERROR_CHARACTERS].rstrip(": ")


def network_logits(
    network: keras.Model, messages: EncodedMessages, batch_size: int = 512, device: str | None = None
) -> npt.NDArray[np.float32]:
    """Computes the logits of encoded messages, float32 [messages], on a device; None for TensorFlow's default."""
    forward = _DeviceNetwork(device, network)
    logits = np.zeros(len(messages), np.float32)
    for rows, width in batch_by_length(messages.lengths, batch_size):
        logits[rows] = forward(messages.batch(rows, width))
    return logits


def batch_by_length(lengths: npt.NDArray[np.int64], batch_size: int) -> Sequence[tuple[npt.NDArray[np.int64], int]]:
    """Groups messages of similar length into batches.

    The result depends only on the lengths and their order.

    Returns:
        For each batch, the indices of its messages, int64 [batch_size or fewer], and the width to pad them to.
    """
    order = np.argsort(lengths, kind="stable")
    widths = np.asarray(_WIDTHS)[np.searchsorted(_WIDTHS, lengths[order])]
    batches = []
    for width in np.unique(widths):
        rows = order[widths == width]
        batches += [(rows[start : start + batch_size], int(width)) for start in range(0, len(rows), batch_size)]
    return batches


class _DeviceNetwork:
    """A network on one device with its own compiled graph: computes the logits of a batch, float32 [messages]."""

    def __init__(self, device: str | None, network: keras.Model) -> None:
        """Takes the network itself or, if its weights are on another device, a copy of it."""
        with tf.device(device):
            if device and not all(weight.value.device.endswith(device) for weight in network.weights):
                copy = keras.models.clone_model(network)
                copy.set_weights(network.get_weights())
                network = copy
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
