"""The stage ScoreBatch: scores the messages of a date with the version in service and publishes them."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from models.errors import ArtifactError, InputError
from tasks.artifacts.exports import MODEL_CARD, exports_folder, no_version_error, version_folder, version_in_service
from tasks.artifacts.folders import FolderTarget, write_json
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import artifacts_folder
from tasks.artifacts.trainings import verified_training_folder
from tasks.export_model import ExportModel
from tasks.extract_messages import ExtractMessages
from tasks.monitoring.alerts import DEADLINE, raise_alert
from tasks.monitoring.deadline import ProgressCallback, monitor_deadline
from tasks.scheduler.calendar import describe_provisional, is_provisional, is_scorable, require_scorable
from tasks.scheduler.failures import describe_error, find_expected_error, record_note
from tasks.scheduler.parameters import FINAL_WEIGHTS, CheckpointParameter, DatesParameter, VersionParameter, to_dates
from tasks.scheduler.progress import ProgressReport, report_progress
from tasks.scheduler.scheduler_messages import PAUSE, RESUME
from tasks.scoring.batch_target import BatchTarget, query_done_dates
from tasks.scoring.completion_note import describe_published
from tasks.scoring.scorer import load_threshold
from tasks.scoring.several_dates import raise_failures, scale_progress
from tasks.settings.loading import load
from tasks.settings.operation import RunSettings
from tasks.settings.scoring import AUTO, ScoringSettings
from tasks.settings.storage import ArtifactSettings, DatabaseSettings
from tasks.stage import Stage, cache_fingerprints

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow
    from tasks.database.ledger import BatchPlan
    from tasks.scoring.batch import ScoringEngine

log = logging.getLogger("spamscore")


class ScoreBatch(Stage):
    """Scores the messages of one date and publishes their spam probabilities.

    Luigi merges several dates into one task, so that the model is loaded once. Each date is still its own batch: if one
    fails, the others are scored and published.
    """

    date = DatesParameter(
        description="date of the messages, such as 2026-01-31, or a range, 2026-01-01..2026-01-31; yesterday by default"
    )
    model_version = VersionParameter(
        default=None, description="model version to score with; the version in service by default"
    )
    checkpoint = CheckpointParameter(
        default=None,
        description="checkpoint of the version's training whose weights to score with, such as ckpt-72: those of the "
        "step at which it was written, calibrated as the version is; by default, the weights of the version",
    )
    sections = (ScoringSettings,)
    code_version = 2
    accepts_messages = True

    @property
    def uses_tensorflow(self) -> bool:
        """Whether this machine scores: with Spark, the executors do."""
        return load(ScoringSettings).engine != "spark"

    def __repr__(self) -> str:
        """Returns the name of the task in logs and errors, without the checkpoint if none was given."""
        return str(super().__repr__()).replace(f", checkpoint={FINAL_WEIGHTS})", ")")

    @classmethod
    def bulk_complete(cls, parameter_tuples: Iterable[datetime.date]) -> list[datetime.date]:
        """Returns the dates that are done, with one query. `RangeDaily` calls this.

        Args:
            parameter_tuples: dates; Luigi prescribes the name and passes them by position.
        """
        tasks = [cls(date) for date in parameter_tuples]
        done = find_done_dates(tasks)
        return [task.date for task in tasks if task.date in done]

    @property
    def dates(self) -> tuple[datetime.date, ...]:
        """The dates as a tuple, for one date and for several."""
        return to_dates(self.date)

    @property
    def _is_chosen(self) -> bool:
        """Whether a person chose the weights, by a version or a checkpoint."""
        return self.model_version is not None or self.checkpoint is not None

    def split_by_date(self) -> list[ScoreBatch]:
        """Returns a task for each date; for a single date, this task."""
        if len(self.dates) == 1:
            return [self]
        return [self.clone(date=date) for date in self.dates]

    def requires(self) -> dict[str, Any]:
        """Returns the snapshot of the date and, unless a version or checkpoint was given, the export of the settings.

        Several dates do not require their snapshots: one that cannot be taken would keep all of them from being scored.
        """
        messages = [ExtractMessages(date=date) for date in self.dates] if len(self.dates) == 1 else []
        return {"messages": messages} if self._is_chosen else {"messages": messages, "model": ExportModel()}

    def deps(self) -> list[luigi.Task]:
        """Returns the requirements to Luigi. Of several dates, `score` refuses those that cannot be scored yet.

        Raises:
            DateNotOverError: none of the dates can be scored yet.
        """
        if not any(map(is_scorable, self.dates)):
            require_scorable(self.dates[0])
        return list(super().deps())

    def fingerprint_parts(self) -> dict[str, Any]:
        """Adds the given version, and the given checkpoint with its version.

        Omits ham_blocked_share if the threshold is a number: it has no effect then.
        """
        parts = super().fingerprint_parts()
        if load(ScoringSettings).threshold != AUTO:
            del parts["settings"]["scoring"]["ham_blocked_share"]
        if self.checkpoint is None:
            return {**parts, "model_version": self.model_version}
        return {**parts, "model_version": self.model_version or version_in_service(), "checkpoint": self.checkpoint}

    def output(self) -> list[BatchTarget]:
        """Returns the published batch of each date as a target."""
        with cache_fingerprints():
            return [BatchTarget(task.date, task.fingerprint(), self._is_chosen) for task in self.split_by_date()]

    def describe_completion(self) -> str:
        """Returns what is published, for the last lines of a run with nothing to do."""
        return describe_provisional(self.dates) + describe_published(self.dates)

    def run(self) -> Iterator[list[ScoreBatch]]:
        """Loads the model once, then scores and publishes date by date.

        Several dates of which snapshots are missing are required as tasks of their own. Luigi takes the snapshots, and
        merges those dates into one task again that have one. The same if only some of the dates fail: Luigi then finds
        the published ones done, so that the tasks that wait for them run, and tries the failed ones again.
        """
        from tasks.database.schema import open_database

        scorable = [task for task in self.split_by_date() if is_scorable(task.date)]
        if len(self.dates) > 1 and not all(ExtractMessages(date=task.date).complete() for task in scorable):
            yield scorable
        database = open_database(load(DatabaseSettings))
        with (
            report_progress(self, "scoring") as progress,
            contextlib.closing(ScoringModel(self.model_version, self.checkpoint, progress)) as model,
        ):
            failures = self._score_dates(database, model, progress)
            if 0 < len(failures) < len(self.dates):
                yield scorable
            raise_failures(failures, self.dates)
            self._report_refused_model(progress)

    def _score_dates(
        self, database: Engine, model: ScoringModel, progress: ProgressReport
    ) -> dict[datetime.date, Exception]:
        """Scores date by date and returns the error of each failed date. The error of a single date is raised."""
        failures: dict[datetime.date, Exception] = {}
        for task in self.split_by_date():
            try:
                task.score(database, model, progress, scale_progress(progress.update, self.dates, task.date))
            except Exception as error:
                if len(self.dates) == 1:
                    raise
                # Any error of one date leaves the other dates intact.
                log.error(
                    "%s: %s", task.date, describe_error(error), exc_info=None if find_expected_error(error) else error
                )
                failures[task.date] = error
        return failures

    def score(
        self, database: Engine, model: ScoringModel, progress: ProgressReport, on_progress: ProgressCallback
    ) -> None:
        """Scores and publishes one date under its lock, unless another run did while this one waited."""
        from tasks.database.batch_lock import hold_batch_lock

        require_scorable(self.date)
        with hold_batch_lock(database, self.date, load(RunSettings).when_running == "wait", on_progress):
            if not self.complete():
                progress.accept_messages(PAUSE, RESUME)
                progress.link(link_to(version_folder(model.version) / MODEL_CARD))
                batch = self._score(database, model, on_progress)
                progress.link(link_to(receipt_path(batch)))

    def _score(self, database: Engine, model: ScoringModel, on_progress: ProgressCallback) -> BatchRow:
        started = time.monotonic()
        extraction = ExtractMessages(date=self.date)
        with cache_fingerprints():  # plan and snapshot are of one edition, also if a new one starts meanwhile
            plan, snapshot = self._plan(model), extraction.output()
        require_snapshot(snapshot, self.date)
        from tasks.scoring.batch import score_snapshot

        notify = partial(raise_alert, DEADLINE, self.date)
        on_progress = monitor_deadline(on_progress, self.date, load(RunSettings).deadline, notify)
        published = score_snapshot(
            database,
            plan,
            snapshot.path,
            model.engine,
            on_progress,
            started,
            write_receipt,
            extraction.take_again,
        )
        log.info(
            "batch %d of %s: %d read, %d scored, %d rejected, %d flagged at threshold %g, by version %d",
            published.batch_id, self.date, published.messages_read, published.scored, published.rejected,
            published.flagged, plan.threshold, plan.model_version,
        )  # fmt: skip
        self._note_published_batch(published)
        return published

    def _note_published_batch(self, published: BatchRow) -> None:
        """Adds the result to the last lines of the run, unless the log level is above INFO: cron mails every line."""
        if not log.isEnabledFor(logging.INFO):
            return
        record_note(
            f"batch {published.batch_id} of {self.date} is published: {published.scored or 0:,} scored, "
            f"{published.rejected or 0:,} rejected, {published.flagged or 0:,} flagged. "
            f"{describe_provisional([self.date])}Details: spamscore summary {self.date}"
        )

    def _report_refused_model(self, progress: ProgressReport) -> None:
        if not self._is_chosen and (message := ExportModel().describe_refusal()):
            log.warning("%s", message)
            progress.conclude(message)
            record_note(message)

    def _plan(self, model: ScoringModel) -> BatchPlan:
        from tasks.database.ledger import BatchPlan

        return BatchPlan(
            batch_date=self.date,
            recipe=self.fingerprint(),
            model_name=load(ArtifactSettings).model_name,
            model_version=model.version,
            checkpoint=model.describe_checkpoint(),
            snapshot=ExtractMessages(date=self.date).output().path.name,
            threshold=model.threshold,
            devices=model.engine.devices,
            chunk_size=load(ScoringSettings).chunk_size,
            provisional=is_provisional(self.date),
        )


class ScoringModel:
    """The model that a run scores with, and the engine, which loads it when the first date needs it.

    Args:
        version: the version to use; None for the one in service.
        checkpoint: the checkpoint of its training whose weights to use; None for the weights of the version.
        progress: the report of the task.
    """

    def __init__(self, version: int | None, checkpoint: str | None, progress: ProgressReport) -> None:
        self._requested, self._checkpoint, self._progress = version, checkpoint, progress

    @cached_property
    def version(self) -> int:
        """The requested version, or the one in service.

        Raises:
            ArtifactError: no version is in service.
        """
        return self._requested or require_version_in_service()

    @cached_property
    def training(self) -> Path:
        """The folder of the training that the version was exported from."""
        return verified_training_folder(self.version)

    @cached_property
    def threshold(self) -> float:
        """The probability from which a message is flagged."""
        return load_threshold(self.training).value

    @cached_property
    def engine(self) -> ScoringEngine:
        """The engine of [scoring] engine."""
        if load(ScoringSettings).engine == "spark":
            from tasks.scoring.spark.engine import SparkEngine

            return SparkEngine(self.training, self._checkpoint, self._progress)
        from tasks.scoring.local import LocalEngine

        return LocalEngine(self.version, self.training, self._checkpoint)

    def close(self) -> None:
        """Closes the engine, if a date needed one."""
        if "engine" in self.__dict__:
            self.engine.close()

    def describe_checkpoint(self) -> str:
        """Returns the training and checkpoint of the weights, and whether they are those of the checkpoint's step."""
        from tasks.database.batches import OF_STEP

        return f"{self.training.name}/{self.engine.checkpoint}{OF_STEP if self._checkpoint else ''}"


def require_version_in_service() -> int:
    """Returns the version in service.

    Raises:
        ArtifactError: there is none; gives the reason why the trained model was refused.
    """
    version = version_in_service()
    if version is None:
        if not (refusal := ExportModel().refusal()):
            raise no_version_error()
        raise ArtifactError(
            f"{exports_folder()}: no version is in service, because the trained model was refused: {refusal}. "
            "Provide more labelled messages ([corpus]), change [network] and [training], or overrule it: "
            "spamscore serve --refused"
        )
    return version


def require_snapshot(snapshot: FolderTarget, date: datetime.date) -> None:
    """Checks that the snapshot to be scored still exists.

    Raises:
        InputError: its messages are to be read anew.
    """
    if not snapshot.exists():
        raise InputError(
            f"the messages of {date} are to be read again since this run was started: another run rejected too many of "
            "them, or a person asked for it. Run the same command again."
        )


def write_receipt(batch: BatchRow) -> None:
    """Writes the published batch as JSON to the artifacts, for users without access to the database."""
    import dataclasses

    path = receipt_path(batch)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        key: str(value) if isinstance(value, datetime.date) else value
        for key, value in dataclasses.asdict(batch).items()
    }
    write_json(path, content)


def receipt_path(batch: BatchRow) -> Path:
    """Returns the path of a batch's receipt."""
    return artifacts_folder() / "receipts" / batch.batch_date.isoformat() / f"batch-{batch.batch_id}.json"


def find_done_dates(tasks: Sequence[ScoreBatch]) -> set[datetime.date]:
    """Returns the dates that are done, with one query. Each task has one date and all have one model version."""
    with cache_fingerprints():
        recipes = {task.date: task.fingerprint() for task in tasks}
    return query_done_dates(recipes, exactly=any(task._is_chosen for task in tasks))
