"""Checks an installation: runs each step of the pipeline on a few messages of the sample, in a temporary folder.

The checks run in a process of their own, which may be killed: a package that was compiled for another processor ends
the process. That process writes only into the temporary folder. It uses the settings of [devices] and of [console]
tensorflow_log; everything else has small values of its own.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import importlib
import importlib.metadata
import multiprocessing
import os
import platform
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from models.errors import ArtifactError, SpamscoreError
from tasks.scheduler.failures import find_expected_error
from tasks.scheduler.luigi_defaults import prepare_luigi
from tasks.settings.checking import check_settings
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings
from tasks.sources.samples import bundled_file
from tasks.stage import prepare_tensorflow

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
# Each check, and the checks that it depends on.
CHECKS: dict[str, tuple[str, ...]] = {
    "folder": (),
    "settings": ("folder",),
    "packages": ("folder",),
    "devices": ("settings", "packages"),
    "text": ("devices",),
    "training": ("text",),
    "checkpoint": ("training",),
    "export": ("checkpoint",),
    "scoring": ("export",),
    "database": ("scoring",),
}
STEPS = 3
_VERSIONS = ("tensorflow", "keras", "numpy", "pandas", "luigi", "sqlalchemy")
# Modules whose names are not those of their distributions.
_MODULES = {"fonttools": "fontTools", "scikit-learn": "sklearn"}
# The check of the devices imports TensorFlow. TensorBoard is a program of its own.
_NOT_IMPORTED = ("tensorflow", "tensorboard")
_ERROR_CHARACTERS = 500
_PROBE_BYTES = 2**19
_TRAINING_MESSAGES, _VALIDATION_MESSAGES = 24, 12
_MAX_SCORE_DIFFERENCE = 1e-5
_DATE = datetime.date(2026, 1, 31)


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: a key of `CHECKS`.
        state: OK, FAILED or SKIPPED.
        seconds: duration.
        detail: what the check found; the error of a failed check; the failed check that a skipped one depends on.
    """

    name: str
    state: str
    seconds: float
    detail: str


def run_checks() -> Iterator[CheckResult]:
    """Runs the checks and yields each result as soon as it is there. Deletes the temporary folder at the end."""
    with contextlib.ExitStack() as stack:
        first, folder = _create_folder(stack)
        results = {first.name: first}
        yield first
        receive = stack.enter_context(_start_process(folder)) if folder else None
        for name in list(CHECKS)[1:]:
            skipped = _skip(name, results)
            results[name] = skipped or cast("Callable[[str], CheckResult]", receive)(name)
            yield results[name]


def _create_folder(stack: contextlib.ExitStack) -> tuple[CheckResult, str | None]:
    """Creates the temporary folder and writes to it; returns the result of this check, and the folder."""
    started, folder = time.monotonic(), None
    # TMPDIR is given, because Python uses another folder without a word if that one cannot be used.
    parent = os.environ.get("TMPDIR") or tempfile.gettempdir()
    try:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="spamscore-selftest-", dir=parent, ignore_cleanup_errors=True)
        )
        Path(folder, "probe").write_bytes(b"0" * _PROBE_BYTES)
    except OSError as error:
        detail = f"TMPDIR = {parent}: {error.strerror}. Free disk space, or set TMPDIR to a folder that is writable."
        return CheckResult("folder", FAILED, time.monotonic() - started, detail), None
    return CheckResult("folder", OK, time.monotonic() - started, f"{parent} is writable"), folder


@contextlib.contextmanager
def _start_process(folder: str) -> Iterator[Callable[[str], CheckResult]]:
    """Starts the process of the checks, and yields a function that waits for the result of a check."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run_in_process, args=(sender, folder))
    process.start()
    sender.close()

    def receive(name: str) -> CheckResult:
        started = time.monotonic()
        try:
            result: CheckResult = receiver.recv()
        except EOFError:
            process.join()
            return CheckResult(name, FAILED, time.monotonic() - started, _describe_end(process.exitcode or 0))
        return result

    try:
        yield receive
    finally:
        process.kill()
        process.join()


def _describe_end(exit_code: int) -> str:
    if exit_code >= 0:
        return f"the process of the checks ended with exit code {exit_code}"
    cause = {
        signal.SIGILL: "a package is compiled for another processor",
        signal.SIGKILL: "the machine may be out of memory",
    }.get(signal.Signals(-exit_code), "a package is damaged or does not fit the machine")
    return f"the process of the checks was killed by {signal.Signals(-exit_code).name}: {cause}"


def _skip(name: str, results: dict[str, CheckResult]) -> CheckResult | None:
    """Returns the result of a check that depends on one that did not pass; None if it can run."""
    missing = next((required for required in CHECKS[name] if results[required].state != OK), None)
    return CheckResult(name, SKIPPED, 0.0, f"depends on {missing}") if missing else None


def _run_in_process(sender: Connection, folder: str) -> None:
    """Runs the checks and sends the result of each that is not skipped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C ends the parent, which ends this process
    tempfile.tempdir = folder
    # Numba reads it when it is imported. An empty cache also checks that Numba can compile.
    os.environ["NUMBA_CACHE_DIR"] = folder
    checks = _Checks(Path(folder))
    results = {"folder": CheckResult("folder", OK, 0.0, "")}
    for name in list(CHECKS)[1:]:
        if skipped := _skip(name, results):
            results[name] = skipped
            continue
        started = time.monotonic()
        try:
            state, detail = OK, getattr(checks, f"check_{name}")()
        except Exception as error:  # a damaged package can raise anything
            state, detail = FAILED, _describe_error(error)
        results[name] = CheckResult(name, state, time.monotonic() - started, detail)
        sender.send(results[name])


def _describe_error(error: Exception) -> str:
    """Formats an error as one line; that of an unexpected error names the file that raised it."""
    if expected := find_expected_error(error):
        return str(expected)
    frames = traceback.extract_tb(error.__traceback__)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{text[:_ERROR_CHARACTERS]} (in {frames[-1].filename})"


class _Checks:
    """The checks. Each returns what it found, raises an error if it fails, and keeps what the next ones need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check_settings(self) -> str:
        prepare_luigi()
        check_settings()
        return "luigi.cfg and the environment are valid"

    def check_packages(self) -> str:
        from packaging.requirements import Requirement

        requirements = [Requirement(line) for line in importlib.metadata.requires("spamscore") or ()]
        needed = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
        for requirement in needed:
            _require_package(requirement.name, requirement.specifier)
        return f"{len(needed)} packages have the versions needed"

    def check_devices(self) -> str:
        prepare_tensorflow()
        from models.network.devices import select_devices
        from models.settings import DeviceSettings

        self.devices = select_devices(load(DeviceSettings))
        return ", ".join(device.removeprefix("/device:").lower() for device in self.devices)

    def check_text(self) -> str:
        import numpy as np

        from models.settings import TextSettings, VocabularySettings
        from models.text.cleaning import clean_texts
        from models.text.encoder import TextEncoder, encode_messages
        from models.text.vocabulary import build_vocabulary

        self.texts, self.labels = _read_sample()
        text = TextSettings()
        self.vocabulary = build_vocabulary(clean_texts(self.texts, text), VocabularySettings(min_count=1), text)
        self.network_settings = _small_network()
        encoder = TextEncoder(self.vocabulary, self.network_settings.ngram_vectors)
        encoded = encode_messages(encoder, self.texts)
        if not np.all(encoded.lengths > 0):
            raise ArtifactError("expected at least one token of each message, received none of some")
        return f"{len(encoded)} messages, {int(encoded.lengths.sum()):,} tokens"

    def check_training(self) -> str:
        import numpy as np

        from models.settings import TrainingSettings
        from models.training.job import LabelledMessages
        from models.training.loop import train
        from models.training.replicas import Replicas, create_strategy

        messages = LabelledMessages(self.texts, np.array(self.labels, np.int32))
        rows = np.arange(len(self.texts))
        training = messages.select(rows[:_TRAINING_MESSAGES])
        self.validation = messages.select(rows[_TRAINING_MESSAGES:])
        settings = TrainingSettings(epochs=1, batch_size=_TRAINING_MESSAGES // STEPS)
        self.result = train(
            training, self.validation, self.vocabulary, self.network_settings, settings, self.folder / "training",
            replicas=Replicas(create_strategy(self.devices)),
        )  # fmt: skip
        (epoch,) = self.result.history
        if epoch.steps != STEPS or not np.isfinite([epoch.loss, epoch.validation_loss]).all():
            raise ArtifactError(f"expected {STEPS} steps and a finite loss, received {epoch}")
        return f"{epoch.steps} steps, loss {epoch.loss:.3f}"

    def check_checkpoint(self) -> str:
        from models.trained_model.description import collect_unseen_scores, write_trained_model
        from models.trained_model.loading import load_trained_model
        from models.training.checkpoints import weights_sha256

        folder, expected = self.folder / "training", weights_sha256(self.result.network)
        summary = self.result.summarize()
        unseen = collect_unseen_scores(summary, self.validation, None)
        write_trained_model(summary, self.vocabulary, self.network_settings, unseen, folder)
        self.model = load_trained_model(folder)  # compares the weights with the description
        if self.model.description["weights_sha256"] != expected:
            raise ArtifactError(f"{folder}: expected the weights that were saved, received others")
        return f"{self.model.checkpoint} has the weights that were saved"

    def check_export(self) -> str:
        from models.network.export import ServedModel, write_saved_model

        folder = self.folder / "export"
        write_saved_model(self.model.vocabulary, self.model.network, folder)
        with ServedModel(folder) as served:
            self.exported = served.predict_spam(self.texts)
        return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()):,} bytes"

    def check_scoring(self) -> str:
        import numpy as np

        from models.inference.scorer import Scorer
        from models.network.network import ngram_vectors
        from models.text.encoder import TextEncoder

        encoder = TextEncoder(self.model.vocabulary, ngram_vectors(self.model.network))
        self.scores = Scorer(encoder, self.model.network, self.devices).score(self.texts).probabilities
        difference = float(np.max(np.abs(self.scores - self.exported.astype(np.float64))))
        if not difference <= _MAX_SCORE_DIFFERENCE:
            raise ArtifactError(f"expected the scores of the export, received others, by up to {difference:.2g}")
        return f"as the export, to {difference:.1g}"

    def check_database(self) -> str:
        import numpy as np

        from tasks.database.batches import stream_scores
        from tasks.database.chunks import ScoredChunk
        from tasks.database.ledger import BatchPlan, commit_chunk, publish_batch, start_batch
        from tasks.database.schema import open_database

        count = len(self.texts)
        ids = [f"m-{row:02}" for row in range(count)]
        flagged = self.scores >= np.median(self.scores)
        engine = open_database(DatabaseSettings(url=f"sqlite:///{self.folder}/selftest.db"))
        plan = BatchPlan(_DATE, "selftest", "selftest", 1, self.model.checkpoint, "selftest", 0.5, "selftest", count)
        batch = start_batch(engine, plan)
        chunk = ScoredChunk(0, 1, ids, np.arange(1, count + 1), self.scores, flagged, [], 0.0)
        commit_chunk(engine, batch.batch_id, chunk)
        publish_batch(engine, batch.batch_id, count)
        rows = [
            (row.message_id, row.spam_probability, row.flagged)
            for row in stream_scores(engine, _DATE, order="message_id")
        ]
        engine.dispose()
        if rows != list(zip(ids, self.scores.tolist(), flagged.tolist(), strict=True)):
            raise ArtifactError(f"expected the {count} scores that were written, received {len(rows)} rows that differ")
        return f"{count} scores written and read"


def _require_package(name: str, specifier: Any) -> None:
    """Checks the version of a package, and imports it.

    Raises:
        SpamscoreError: it is not installed, has another version, or cannot be imported.
    """
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise SpamscoreError(f"{name} is not installed. Install it: pip install '{name}{specifier}'") from None
    if not specifier.contains(version, prereleases=True):
        raise SpamscoreError(
            f"{name}: expected version {specifier}, received {version}. Install it: pip install '{name}{specifier}'"
        )
    if name in _NOT_IMPORTED:
        return
    module = _MODULES.get(name, name.replace("-", "_"))
    try:
        importlib.import_module(module)
    except Exception as error:
        raise SpamscoreError(f"{name} {version} cannot be imported: {_describe_error(error)}") from None


def _read_sample() -> tuple[list[str], list[int]]:
    """Returns messages of the bundled sample, every third one spam, and their labels: 1 is spam."""
    with bundled_file("corpus.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    spam, ham = ([row["text"] for row in rows if row["label"] == label] for label in ("spam", "ham"))
    count = _TRAINING_MESSAGES + _VALIDATION_MESSAGES
    labels = [int(number % 3 == 0) for number in range(count)]
    return [(spam if label else ham)[number] for number, label in enumerate(labels)], labels


def _small_network() -> Any:
    """Returns the default architecture in a size that is trained in seconds."""
    from models.settings import NetworkSettings

    return NetworkSettings(embedding_size=8, rnn_units=4, ngram_buckets=1024, ngram_vectors=64)


def list_versions() -> dict[str, str]:
    """Returns the versions of spamscore, Python and the packages that matter most; empty if not installed."""
    versions = {"spamscore": "", "python": platform.python_version(), **dict.fromkeys(_VERSIONS, "")}
    for name in (name for name in versions if name != "python"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def count_cores() -> int:
    """Returns the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def read_memory() -> int:
    """Returns the memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def find_devices(results: Sequence[CheckResult]) -> str:
    """Returns the devices that the checks ran on; empty if that check failed."""
    return next((result.detail for result in results if result.name == "devices" and result.state == OK), "")
