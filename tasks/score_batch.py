"""ScoreBatch: one date's messages scored with the version in service, and published in the database."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from models.errors import AlreadyRunningError, ArtifactError, DatesError
from models.settings import DeviceSettings
from tasks.artifacts.exports import MODEL_CARD, exports_folder, version_folder, version_in_service
from tasks.artifacts.folders import write_json
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import artifacts_folder
from tasks.database.completion import find_completed_dates_in_sqlite
from tasks.evaluate_model import training_folder
from tasks.export_model import ExportModel
from tasks.extract_messages import ExtractMessages
from tasks.monitoring.alerts import DEADLINE, raise_alert
from tasks.monitoring.deadline import Watch, within_deadline
from tasks.scheduler.failures import describe, expected, remark
from tasks.scheduler.parameters import DatesParameter, VersionParameter, dates_of
from tasks.scheduler.progress import ProgressReport, reporting
from tasks.scheduler.scheduler_messages import PAUSE, RESUME
from tasks.scoring.scorer import load_scorer, threshold_of
from tasks.settings.loading import load
from tasks.settings.operation import RunSettings
from tasks.settings.scoring import AUTO, ScoringSettings
from tasks.settings.storage import ArtifactSettings, DatabaseSettings
from tasks.stage import Stage, held_fingerprints, prepare_tensorflow, processor_threads

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from models.inference.scorer import Scorer
    from tasks.database.batches import BatchRow
    from tasks.database.ledger import BatchPlan
    from tasks.scoring.local import Pace

log = logging.getLogger("spamscore")

_NAMED = 3  # failed dates that are named with their reason


class ScoreBatch(Stage):
    """Scores the messages of one date and publishes their spam probabilities.

    Of several dates Luigi makes one task, so that the model is loaded once. Each date is a batch of its own all the
    same, and one that fails takes none of the others with it.
    """

    date = DatesParameter(
        description="date of the messages, as 2026-01-31, or 2026-01-01..2026-01-31 for several; yesterday if not given"
    )
    model_version = VersionParameter(
        default=None, description="version of the model to score with; the one in service if not given"
    )
    sections = (ScoringSettings,)
    code_version = 2
    accepts_messages = True

    @classmethod
    def bulk_complete(cls, parameter_tuples: Iterable[datetime.date]) -> list[datetime.date]:
        """Those of some dates that are done, by one query, as `RangeDaily` asks.

        Args:
            parameter_tuples: dates; Luigi's name for them, which it passes by place.
        """
        tasks = [cls(date) for date in parameter_tuples]
        done = find_completed_dates(tasks)
        return [task.date for task in tasks if task.date in done]

    @property
    def dates(self) -> tuple[datetime.date, ...]:
        """The dates, one or several."""
        return dates_of(self.date)

    def of_each_date(self) -> list[ScoreBatch]:
        """A task for each date; of one date this one."""
        if len(self.dates) == 1:
            return [self]
        return [ScoreBatch(date=date, model_version=self.model_version) for date in self.dates]

    def requires(self) -> dict[str, Any]:
        """The messages of the dates and, unless a version was asked for, an export by the settings in force."""
        messages = [ExtractMessages(date=date) for date in self.dates]
        return {"messages": messages} if self.model_version else {"messages": messages, "model": ExportModel()}

    def made_of(self) -> dict[str, Any]:
        """Adds the version that was asked for; a share of ham says nothing beside a threshold that is a number."""
        made_of = super().made_of()
        if load(ScoringSettings).threshold != AUTO:
            del made_of["settings"]["scoring"]["ham_blocked_share"]
        return {**made_of, "model_version": self.model_version}

    def output(self) -> list[BatchTarget]:
        """The published batch of each date."""
        exactly = self.model_version is not None
        with held_fingerprints():
            return [BatchTarget(task.date, task.fingerprint(), exactly) for task in self.of_each_date()]

    def run(self) -> None:
        """Loads the version's latest checkpoint, scores each snapshot chunk by chunk, publishes its batch."""
        from tasks.database.schema import open_database

        engine, model = open_database(load(DatabaseSettings)), ModelInUse(self.model_version)
        with reporting(self, "scoring") as report:
            raise_of_several(self._score_each(engine, model, report), self.dates)
            self._say_what_was_kept_out(report)

    def _score_each(self, engine: Engine, model: ModelInUse, report: ProgressReport) -> dict[datetime.date, Exception]:
        """Scores date after date, and returns the errors of those of several that failed; that of one is raised."""
        failures: dict[datetime.date, Exception] = {}
        for task in self.of_each_date():
            try:
                task.score(engine, model, report, of_several(report.update, self.dates, task.date))
            except Exception as error:
                if len(self.dates) == 1:
                    raise
                # Whatever it is, the other dates are none the worse for it.
                log.error("%s: %s", task.date, describe(error), exc_info=None if expected(error) else error)
                failures[task.date] = error
        return failures

    def score(self, engine: Engine, model: ModelInUse, report: ProgressReport, watch: Watch) -> None:
        """Scores and publishes one date, alone, unless another run did while this one waited."""
        from tasks.database.batch_lock import hold_batch_lock

        with hold_batch_lock(engine, self.date, load(RunSettings).when_running == "wait", watch):
            if not self.complete():
                report.hears(PAUSE, RESUME)
                report.link(link_to(version_folder(model.version) / MODEL_CARD))
                report.link(link_to(receipt_file(self._score(engine, model, watch))))

    def _score(self, engine: Engine, model: ModelInUse, watch: Watch) -> BatchRow:
        began = time.monotonic()
        plan, snapshot = self._plan(model), ExtractMessages(date=self.date).output()
        from tasks.scoring.local import score_snapshot  # imports TensorFlow, which the plan's model has started by now

        watch = within_deadline(watch, self.date, load(RunSettings).deadline, partial(raise_alert, DEADLINE, self.date))
        published = score_snapshot(
            engine, plan, snapshot.path, model.scorer, watch, began, write_receipt, pace_of(model.scorer)
        )
        log.info(
            "batch %d of %s: %d read, %d scored, %d rejected, %d flagged from %g on, by version %d",
            published.batch_id, self.date, published.messages_read, published.scored, published.rejected,
            published.flagged, plan.threshold, plan.model_version,
        )  # fmt: skip
        self._say_what_was_published(published)
        return published

    def _say_what_was_published(self, published: BatchRow) -> None:
        """Last, unless nobody wants to hear of what went well: cron makes a mail of each line."""
        if not log.isEnabledFor(logging.INFO):
            return
        remark(
            f"batch {published.batch_id} of {self.date} is published: {published.scored or 0:,} scored, "
            f"{published.rejected or 0:,} rejected, {published.flagged or 0:,} flagged. "
            f"To see more: spamscore summary {self.date}"
        )

    def _say_what_was_kept_out(self, report: ProgressReport) -> None:
        if self.model_version is None and (said := ExportModel().kept_out()):
            log.warning("%s", said)
            report.conclude(said)
            remark(said)

    def _plan(self, model: ModelInUse) -> BatchPlan:
        from tasks.database.ledger import BatchPlan

        return BatchPlan(
            batch_date=self.date,
            recipe=self.fingerprint(),
            model_name=load(ArtifactSettings).model_name,
            model_version=model.version,
            checkpoint=f"{model.training.name}/{model.checkpoint}",
            snapshot=ExtractMessages(date=self.date).output().path.name,
            threshold=model.threshold,
            devices=",".join(device.removeprefix("/device:").lower() for device in model.scorer.devices),
            chunk_size=load(ScoringSettings).chunk_size,
        )


class ModelInUse:
    """The model that a run scores with, loaded when the first date asks for it.

    Args:
        version: that was asked for; None for the one in service.
    """

    def __init__(self, version: int | None) -> None:
        self._asked = version

    @cached_property
    def version(self) -> int:
        """The version that was asked for, or the one in service.

        Raises:
            ArtifactError: none is in service.
        """
        return self._asked or required_version_in_service()

    @cached_property
    def training(self) -> Path:
        """The training that the version came from."""
        return training_folder(self.version)

    @cached_property
    def threshold(self) -> float:
        """The probability from which a message is flagged."""
        return threshold_of(self.training).value

    @property
    def scorer(self) -> Scorer:
        """Texts to probabilities."""
        return self._loaded[0]

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint that the weights are from."""
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[Scorer, str]:
        prepare_tensorflow()
        scorer, checkpoint = load_scorer(self.training)
        log.info("version %d loaded, from checkpoint %s/%s", self.version, self.training.name, checkpoint)
        return scorer, checkpoint


def required_version_in_service() -> int:
    """The version in service.

    Raises:
        ArtifactError: there is none; says why the model that was trained is not.
    """
    version = version_in_service()
    if version is None:
        refusal = ExportModel().refusal()
        raise ArtifactError(
            f"{exports_folder()}: no version is in service, for the model that was trained was refused: {refusal}. "
            "Give more labelled messages ([corpus]), change [network] and [training], or overrule it: "
            "spamscore serve --refused"
        )
    return version


def of_several(watch: Watch, dates: Sequence[datetime.date], date: datetime.date) -> Watch:
    """A watch of one date that tells another watch how far all of them are; of one date it is that other."""
    if len(dates) == 1:
        return watch
    place = dates.index(date)

    def told(done: float, total: float, status: str) -> None:
        watch(place + done / max(total, 1), len(dates), f"{date}, {place + 1} of {len(dates)}: {status}")

    return told


def raise_of_several(failures: Mapping[datetime.date, Exception], dates: Sequence[datetime.date]) -> None:
    """Ends a run some of whose dates failed.

    Raises:
        AlreadyRunningError: other runs are at all those that failed.
        DatesError: which dates failed of several, and why the first of them.
    """
    if not failures:
        return
    named = [f"{date}: {describe(error)}" for date, error in list(failures.items())[:_NAMED]]
    more = [f"{len(failures) - _NAMED} more, of which the log tells"] if len(failures) > _NAMED else []
    running = all(isinstance(expected(error), AlreadyRunningError) for error in failures.values())
    raise (AlreadyRunningError if running else DatesError)(
        f"{len(failures)} of {len(dates)} dates failed, the others are published. {'; '.join(named + more)}"
    )


def pace_of(scorer: Scorer) -> Pace:
    """Threads and queues: as many threads as TensorFlow was given, unless the scorer's devices have their own."""
    from tasks.scoring.local import Pace

    return Pace(scorer.threads or processor_threads(load(DeviceSettings)), load(ScoringSettings).queue)


def write_receipt(batch: BatchRow) -> None:
    """Leaves what is published as JSON among the artifacts, for those who have no database at hand."""
    import dataclasses

    path = receipt_file(batch)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        key: str(value) if isinstance(value, datetime.date) else value
        for key, value in dataclasses.asdict(batch).items()
    }
    write_json(path, content)


def receipt_file(batch: BatchRow) -> Path:
    """Where the receipt of a batch is."""
    return artifacts_folder() / "receipts" / batch.batch_date.isoformat() / f"batch-{batch.batch_id}.json"


class BatchTarget(luigi.Target):
    """A batch that exists once a date's scores by this recipe are published.

    A batch that a person went back to counts too: the recipe's own is then superseded, its work was done. Not so if a
    model version was asked for by number: then `exactly` that batch must be the published one.
    """

    def __init__(self, date: datetime.date, recipe: str, exactly: bool) -> None:
        self.date = date
        self.recipe = recipe
        self.exactly = exactly

    def __str__(self) -> str:
        return f"published batch of {self.date}, recipe {self.recipe}"

    def exists(self) -> bool:
        """Asks the database, which is neither made nor migrated by that."""
        return bool(_done({self.date: self.recipe}, self.exactly))


def find_completed_dates(tasks: Sequence[ScoreBatch]) -> set[datetime.date]:
    """The dates of tasks of one date and one model version each that are done, by one query."""
    with held_fingerprints():
        recipes = {task.date: task.fingerprint() for task in tasks}
    return _done(recipes, exactly=any(task.model_version is not None for task in tasks))


def _done(recipes: Mapping[datetime.date, str], exactly: bool) -> set[datetime.date]:
    settings = load(DatabaseSettings)
    done = find_completed_dates_in_sqlite(settings.url, recipes, exactly)
    if done is not None:
        return done
    from tasks.database.batches import find_completed_dates
    from tasks.database.connection import connect

    return find_completed_dates(connect(settings), recipes, exactly)
