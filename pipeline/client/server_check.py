"""Compares a model server with the batch on labelled messages, and measures it, for `spamscore check-server`.

Each answer is compared with the scorer of the batch, in this process, for the version that the answer names. So the
comparison is right also while a label moves from one version to another.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.errors import InputError, ServerError
from pipeline.client.asking import name_served_versions
from pipeline.client.server import INPUT, OUTPUT, PREDICT_SIGNATURE, Client, Signature
from tasks.artifacts.trainings import verified_training_folder
from tasks.ingest_corpus import read_source, resolve_source, select_columns
from tasks.scoring.scorer import load_scorer, load_threshold
from tasks.settings.inputs import CorpusSettings
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings
from tasks.stage import prepare_tensorflow

if TYPE_CHECKING:
    from models.evaluation.gate import Interval

CONFIDENCE = 0.95


@dataclass(frozen=True)
class LabelledMessages:
    """Messages, whether each is spam, and how many rows of the file cannot be used, by reason."""

    texts: list[str]
    spam: list[bool]
    skipped: dict[str, int]


@dataclass(frozen=True)
class ServerCheck:
    """The result of the check.

    Attributes:
        messages: messages that were answered.
        skipped: rows of the file that were not sent, by reason.
        versions: versions that answered, ascending.
        thresholds: their thresholds.
        errors: answered messages on the wrong side of the threshold.
        error_rate: their share, with the bounds of its interval.
        precision: share of the flagged messages that are spam; None if none is flagged.
        recall: share of the spam that is flagged; None without spam.
        largest_difference: largest difference between a probability of the server and that of the batch.
        tolerance: largest difference that counts as agreement.
        failed_calls: failed calls, by kind.
        calls: calls that were answered.
        concurrency: calls at the same time.
        median_ms: median latency of an answered call, in milliseconds.
        p99_ms: 99th percentile of it.
        messages_per_second: answered messages, divided by the time from the first call to the last answer.
    """

    messages: int
    skipped: dict[str, int]
    versions: tuple[int, ...]
    thresholds: tuple[float, ...]
    errors: int
    error_rate: Interval
    precision: float | None
    recall: float | None
    largest_difference: float
    tolerance: float
    failed_calls: dict[str, int]
    calls: int
    concurrency: int
    median_ms: float
    p99_ms: float
    messages_per_second: float

    @property
    def passed(self) -> bool:
        """Whether the server agrees with the batch, and no call failed."""
        return self.largest_difference <= self.tolerance and not self.failed_calls

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `spamscore check-server --json`."""
        return {**dataclasses.asdict(self), "confidence": CONFIDENCE, "passed": self.passed}


@dataclass(frozen=True)
class _Call:
    """One call: the indices of its messages, and what came of it."""

    indices: list[int]
    seconds: float
    probabilities: list[float] = dataclasses.field(default_factory=list)
    version: int = 0
    error: ServerError | None = None


def read_labelled_messages(path: str) -> LabelledMessages:
    """Reads labelled messages from a file, in the format, columns and labels of [corpus].

    Raises:
        InputError: the file cannot be read, or no row has a message and a label.
    """
    from models.training.corpus import Labels, label_parser

    if not Path(path).is_file():
        raise InputError(f"--messages {path}: no such file (looked in {Path.cwd()}). Expected labelled messages.")
    settings = resolve_source(dataclasses.replace(load(CorpusSettings), source="file", path=path))
    parse = label_parser(Labels(settings.spam_labels, settings.ham_labels))
    texts: list[str] = []
    spam: list[bool] = []
    skipped: Counter[str] = Counter()
    for _, value, text, fault in select_columns(read_source(settings, load(DatabaseSettings)), settings):
        label = parse(value)
        if fault is not None or not label or not (text or "").strip():
            skipped["unreadable row" if fault is not None else "empty text" if label else "no label"] += 1
            continue
        texts.append(text)
        spam.append(label == "spam")
    if not texts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "no row"
        raise InputError(
            f"{path}: expected messages with labels, received none: {reasons}. Correct the file, or set the columns "
            "and labels of it in [corpus]."
        )
    return LabelledMessages(texts, spam, dict(skipped))


def check_server(
    client: Client, labelled: LabelledMessages, concurrency: int, messages_per_call: int, tolerance: float
) -> ServerCheck:
    """Asks a server for labelled messages, and compares the answers with the batch's own probabilities.

    Args:
        client: a connection that several threads can use.
        labelled: the messages.
        concurrency: calls at the same time.
        messages_per_call: messages in a call.
        tolerance: largest difference that counts as agreement.

    Raises:
        ServerError: no call was answered.
        ArtifactError: a version that answered is not in the exports here.
        DeviceError: a configured device is not available.
    """
    require_signature(client)  # and connects, which is not part of the latency of a call
    started = time.monotonic()
    calls = _call_all(client, labelled.texts, concurrency, messages_per_call)
    seconds = time.monotonic() - started
    failed = [call.error for call in calls if call.error]
    if len(failed) == len(calls):
        raise failed[0]
    answered = [call for call in calls if not call.error]
    latencies = np.array([call.seconds for call in answered]) * 1000
    return ServerCheck(
        **_compare(labelled, answered),
        skipped=labelled.skipped,
        tolerance=tolerance,
        failed_calls=dict(Counter(error.kind for error in failed)),
        calls=len(answered),
        concurrency=concurrency,
        median_ms=float(np.median(latencies)),
        p99_ms=float(np.quantile(latencies, 0.99)),
        messages_per_second=sum(len(call.indices) for call in answered) / seconds,
    )


def require_signature(client: Client) -> None:
    """Checks that the model has the signature of spamscore's exports.

    Raises:
        ServerError: it has another one, or the call fails.
    """
    with name_served_versions(client):
        signatures = client.metadata().signatures
    expected = Signature((INPUT,), (OUTPUT,))
    if signatures.get(PREDICT_SIGNATURE) != expected:
        raise ServerError(
            f"expected a model with the signature {PREDICT_SIGNATURE} from {INPUT} to {OUTPUT}, received one with "
            f"{', '.join(sorted(signatures)) or 'none'}. Check --model: spamscore exports such a model.",
            "signature",
        )


def _call_all(client: Client, texts: Sequence[str], concurrency: int, messages_per_call: int) -> list[_Call]:
    """Asks for all messages, with a fixed number of calls at the same time."""

    def call(start: int) -> _Call:
        indices = list(range(start, min(start + messages_per_call, len(texts))))
        started = time.monotonic()
        try:
            scores = client.predict([texts[index] for index in indices])
        except ServerError as error:
            return _Call(indices, time.monotonic() - started, error=error)
        return _Call(indices, time.monotonic() - started, scores.probabilities.tolist(), scores.version)

    with ThreadPoolExecutor(concurrency) as threads:
        return list(threads.map(call, range(0, len(texts), messages_per_call)))


def _compare(labelled: LabelledMessages, answered: Sequence[_Call]) -> dict[str, Any]:
    """Compares the answers with the scorer of the batch, version by version; returns the fields about the scores."""
    from models.evaluation.factors import share_interval

    versions = sorted({call.version for call in answered})
    spam, flagged, differences, thresholds = [], [], [], []
    for version in versions:
        calls = [call for call in answered if call.version == version]
        indices = [index for call in calls for index in call.indices]
        served = np.array([probability for call in calls for probability in call.probabilities])
        expected, threshold = _score_as_batch(version, [labelled.texts[index] for index in indices])
        differences.append(np.abs(served - expected).max())
        flagged.append(served >= threshold)
        spam.append(np.array([labelled.spam[index] for index in indices]))
        thresholds.append(threshold)
    truth, verdict = np.concatenate(spam), np.concatenate(flagged)
    caught, errors = int((truth & verdict).sum()), int((truth != verdict).sum())
    return {
        "messages": len(truth),
        "versions": tuple(versions),
        "thresholds": tuple(thresholds),
        "errors": errors,
        "error_rate": share_interval(errors, len(truth), CONFIDENCE),
        "precision": caught / int(verdict.sum()) if verdict.any() else None,
        "recall": caught / int(truth.sum()) if truth.any() else None,
        "largest_difference": float(np.max(differences)),
    }


def _score_as_batch(version: int, texts: Sequence[str]) -> tuple[npt.NDArray[np.float64], float]:
    """Returns the probabilities that a batch stores, float64 [messages], and the threshold of the version."""
    training = verified_training_folder(version)
    prepare_tensorflow()
    from models.inference.scorer import score_isolating_failures

    result = score_isolating_failures(load_scorer(training)[0], texts)
    return np.asarray(result.scores.probabilities, np.float64), load_threshold(training).value
