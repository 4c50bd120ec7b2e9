"""Computes the spam probabilities of messages that are typed or piped in, for `spamscore text`.

It uses the same scorer as a batch: the weights of a version, or of a checkpoint of its training, on the devices of
[devices]. TensorFlow is imported when the scorer is loaded.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import select
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from tasks.artifacts.exports import no_version_error, version_in_service
from tasks.artifacts.trainings import verified_training_folder
from tasks.scoring.scorer import load_scorer, load_threshold
from tasks.stage import prepare_tensorflow

if TYPE_CHECKING:
    from models.inference.scorer import Scorer

log = logging.getLogger("spamscore")

_READ_BYTES = 2**16
_BATCH_MESSAGES = 10_000
_BATCH_BYTES = 8 * 2**20
# A longer line is cut, so that a pipe without line ends cannot fill the memory. No model reads more: cleaning looks at
# 64 bytes for each of at most 100,000 characters.
_MAX_LINE_BYTES = 2**23


@dataclass(frozen=True)
class Prediction:
    """The score of a message; probability and verdict are None if it is empty or cannot be scored, as in a batch.

    `checkpoint` is the one that a person chose; None if the model version itself scored the message.
    """

    message: str
    spam_probability: float | None
    flagged: bool | None
    model_version: int
    checkpoint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `spamscore text --json`: with the checkpoint only if one was chosen."""
        values = dataclasses.asdict(self)
        return values if self.checkpoint else {key: value for key, value in values.items() if key != "checkpoint"}


class LoadedModel:
    """A model version, or a checkpoint of its training, loaded for scoring."""

    def __init__(self, version: int, scorer: Scorer, threshold: float, checkpoint: str | None = None) -> None:
        self.version, self.threshold, self.checkpoint = version, threshold, checkpoint
        self.scorer = scorer

    def predict(self, messages: Sequence[str]) -> list[Prediction]:
        """Scores messages, and returns one prediction per message in the same order.

        A message that cannot be scored is named in a warning; the other messages are scored all the same.
        """
        from models.inference.scorer import score_isolating_failures

        indices = [index for index, message in enumerate(messages) if message.strip()]
        result = score_isolating_failures(self.scorer, [messages[index] for index in indices])
        for number, failure in result.failures.items():
            log.warning("message %d cannot be scored: %s", indices[number] + 1, failure)
        scores = zip(indices, result.scores.probabilities.tolist(), strict=True)
        probabilities = {
            index: probability for number, (index, probability) in enumerate(scores) if number not in result.failures
        }
        return [self._make_prediction(message, probabilities.get(index)) for index, message in enumerate(messages)]

    def _make_prediction(self, message: str, probability: float | None) -> Prediction:
        flagged = None if probability is None else probability >= self.threshold
        return Prediction(message, probability, flagged, self.version, self.checkpoint)


def resolve_version(requested: int | None) -> int:
    """Returns the requested model version or, if it is None, the version in service.

    Raises:
        ArtifactError: no version is exported yet.
    """
    version = requested if requested is not None else version_in_service()
    if version is None:
        raise no_version_error()
    return version


def load_version(version: int, checkpoint: str | None = None) -> LoadedModel:
    """Loads the weights of a version, or those of a checkpoint of its training, onto the configured devices.

    Raises:
        ArtifactError: the version or the checkpoint does not exist, or the files are damaged.
        DeviceError: a configured device is not available.
    """
    training = verified_training_folder(version)
    prepare_tensorflow()
    scorer, _ = load_scorer(training, checkpoint)
    return LoadedModel(version, scorer, load_threshold(training).value, checkpoint)


def decode_argument(argument: str) -> str:
    """Decodes an argument of the command line; bytes that are not UTF-8 become U+FFFD."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def read_line_batches(stream: BinaryIO) -> Iterator[list[str]]:
    """Yields the lines of a stream without their line ends, in batches of up to 10,000 lines and about 8 MiB.

    With a file, batches are full. With a pipe, each line is yielded as soon as it arrives. Bytes that are not UTF-8
    become U+FFFD.
    """
    batch: list[bytes] = []
    size = 0
    for line in _read_lines(stream):
        if line is not None:
            batch.append(line)
            size += len(line)
        if batch and (line is None or len(batch) >= _BATCH_MESSAGES or size >= _BATCH_BYTES):
            yield [_decode_line(raw_line) for raw_line in batch]
            batch, size = [], 0
    if batch:
        yield [_decode_line(raw_line) for raw_line in batch]


def _decode_line(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")


def _read_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yields lines, and None whenever reading the next line would block."""
    unfinished = b""
    while block := _read_block(stream):
        *lines, last = block.split(b"\n")
        for line in lines:
            yield (unfinished + line)[:_MAX_LINE_BYTES]
            unfinished = b""
        unfinished = unfinished if len(unfinished) == _MAX_LINE_BYTES else (unfinished + last)[:_MAX_LINE_BYTES]
        if not _is_ready(stream):
            yield None
    if unfinished:
        yield unfinished


def _read_block(stream: BinaryIO) -> bytes:
    return stream.read1(_READ_BYTES) if isinstance(stream, io.BufferedReader | io.BytesIO) else stream.read(_READ_BYTES)


def _is_ready(stream: BinaryIO) -> bool:
    """Returns whether reading would not block."""
    try:
        return bool(select.select([stream], [], [], 0)[0])
    except (OSError, ValueError):  # not a file of the operating system: everything is in memory
        return True


def prompt_messages(prompt: str) -> Iterator[str]:
    """Asks for messages in the terminal, until an empty line or the end of input."""
    import readline  # noqa: F401 - gives `input` the arrow keys

    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    while True:
        try:
            message = _prompt(prompt)
        except EOFError:
            sys.stderr.write("\n")
            return
        if not message.strip():
            return
        yield message


def _prompt(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    # Standard output is redirected, and the prompt must not be part of it.
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return input()
