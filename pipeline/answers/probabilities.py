"""Messages that a person typed or piped in, and how likely each is to be spam: what `spamscore text` does.

The scorer is the batch's own: the latest checkpoint of a version, on the devices of [devices]. TensorFlow is imported
when it is opened.
"""

from __future__ import annotations

import io
import logging
import select
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from models.errors import ArtifactError
from tasks.artifacts.exports import exports_folder, version_in_service
from tasks.artifacts.trainings import verified_training_folder
from tasks.scoring.scorer import load_scorer, threshold_of
from tasks.stage import prepare_tensorflow

if TYPE_CHECKING:
    from models.inference.scorer import Scorer

log = logging.getLogger("spamscore")

_READ_BYTES = 2**16
_BATCH_MESSAGES = 10_000
_BATCH_BYTES = 8 * 2**20
# A longer line is cut, for a pipe without line ends must not fill the memory. No model could read more: the cleaning
# looks at 64 bytes for each of at most 100,000 characters.
_LINE_BYTES = 2**23


@dataclass(frozen=True)
class Answer:
    """What is said of a message; both are None for one with nothing in it, or that cannot be scored, as in a batch."""

    message: str
    spam_probability: float | None
    flagged: bool | None
    model_version: int


class OpenModel:
    """A version of the model, loaded."""

    def __init__(self, version: int, scorer: Scorer, threshold: float) -> None:
        self.version, self.threshold = version, threshold
        self._scorer = scorer

    def answers(self, messages: Sequence[str]) -> list[Answer]:
        """What is said of each message, in order; one that makes scoring itself fail is named in a warning."""
        from models.inference.scorer import score_isolating_failures

        sound = [place for place, message in enumerate(messages) if message.strip()]
        result = score_isolating_failures(self._scorer, [messages[place] for place in sound])
        for number, failure in result.failures.items():
            log.warning("message %d cannot be scored: %s", sound[number] + 1, failure)
        found = zip(sound, result.scores.probabilities.tolist(), strict=True)
        known = {place: score for number, (place, score) in enumerate(found) if number not in result.failures}
        return [self._answer(message, known.get(place)) for place, message in enumerate(messages)]

    def _answer(self, message: str, probability: float | None) -> Answer:
        flagged = None if probability is None else probability >= self.threshold
        return Answer(message, probability, flagged, self.version)


def chosen_version(asked: int | None) -> int:
    """The version that was asked for, or the one in service.

    Raises:
        ArtifactError: there is none.
    """
    version = asked if asked is not None else version_in_service()
    if version is None:
        raise ArtifactError(
            f"{exports_folder()}: no version of the model has been exported yet. Make one, in the folder of your "
            "luigi.cfg: luigi --module pipeline ExportModel"
        )
    return version


def open_model(version: int) -> OpenModel:
    """Loads the latest checkpoint of a version onto the chosen devices.

    Raises:
        ArtifactError: there is no such version, or its checkpoints are gone or damaged.
        DeviceError: a chosen device is not there.
    """
    training = verified_training_folder(version)
    prepare_tensorflow()
    scorer, _ = load_scorer(training)
    return OpenModel(version, scorer, threshold_of(training).value)


def argument_text(argument: str) -> str:
    """An argument of the command line as text: bytes that are not UTF-8 as U+FFFD."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def line_batches(stream: BinaryIO) -> Iterator[list[str]]:
    """The lines of a stream without their ends, in batches of bounded size; bytes that are not UTF-8 as U+FFFD.

    A batch is what has come so far, up to 10,000 lines: who pipes a file gets full batches, and who pipes a log gets an
    answer as soon as a line is there.
    """
    batch: list[bytes] = []
    size = 0
    for line in _lines(stream):
        if line is not None:
            batch.append(line)
            size += len(line)
        if batch and (line is None or len(batch) >= _BATCH_MESSAGES or size >= _BATCH_BYTES):
            yield [_text(one) for one in batch]
            batch, size = [], 0
    if batch:
        yield [_text(one) for one in batch]


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines as they come, and None whenever the next would have to be waited for."""
    rest = b""
    while piece := _read(stream):
        *lines, last = piece.split(b"\n")
        for line in lines:
            yield (rest + line)[:_LINE_BYTES]
            rest = b""
        rest = rest if len(rest) == _LINE_BYTES else (rest + last)[:_LINE_BYTES]
        if not _has_more(stream):
            yield None
    if rest:
        yield rest


def _read(stream: BinaryIO) -> bytes:
    return stream.read1(_READ_BYTES) if isinstance(stream, io.BufferedReader | io.BytesIO) else stream.read(_READ_BYTES)


def _has_more(stream: BinaryIO) -> bool:
    """Whether reading would not wait."""
    try:
        return bool(select.select([stream], [], [], 0)[0])
    except (OSError, ValueError):  # no file of the system's: all of it is there
        return True


def typed_messages(prompt: str) -> Iterator[str]:
    """Asks a person for messages, until an empty line or the end of input."""
    import readline  # noqa: F401 - gives `input` the arrow keys

    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    while True:
        try:
            message = _ask(prompt)
        except EOFError:
            sys.stderr.write("\n")
            return
        if not message.strip():
            return
        yield message


def _ask(prompt: str) -> str:
    if sys.stdout.isatty():
        return input(prompt)
    # The answers go to a file: the question must not.
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return input()
