"""Nightly: all that a night is to do, in one task that cron or systemd starts."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from models.errors import AlreadyRunningError, DriftError
from pipeline.notifications import tell_how_it_ended
from tasks.artifacts.folders import write_json
from tasks.artifacts.locations import artifacts_folder
from tasks.monitoring.report_index import write_index
from tasks.report_batch import ReportBatch
from tasks.scheduler import failures
from tasks.scheduler.parameters import YesterdayParameter
from tasks.scheduler.progress import ProgressReport, report_progress
from tasks.score_batch import ScoreBatch
from tasks.settings.loading import load
from tasks.settings.operation import RunSettings
from tasks.settings.storage import ArtifactSettings, DatabaseSettings
from tasks.stage import Stage

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.retention import Pruned

log = logging.getLogger("spamscore")
_DAY = datetime.timedelta(days=1)


class Nightly(Stage):
    """Scores and reports on a date, and on those before it that were missed; deletes what is older than is kept.

    As the `luigi` command ends, whoever [alerts] and [metrics] name is told how it went.
    """

    date = YesterdayParameter(description="date of the messages, as 2026-01-31; yesterday if not given")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()
        failures.on_run_end(self._tell)  # before the settings are checked, for bad ones are a thing to be told
        super().__init__(*args, **kwargs)

    def requires(self) -> list[luigi.Task]:
        """The batches of the date and of those that were missed."""
        return [ScoreBatch(date=date) for date in self.dates]

    @cached_property
    def dates(self) -> list[datetime.date]:
        """The date, after those of [run] catch_up_days that never had a published batch, as after a machine was off.

        Found out once, for they are published by the time their reports are made.
        """
        before = [self.date - _DAY * number for number in range(load(RunSettings).catch_up_days, 0, -1)]
        if not before:
            return [self.date]
        from tasks.database.batches import never_published
        from tasks.database.connection import connect

        return [*never_published(connect(load(DatabaseSettings)), before), self.date]

    def complete(self) -> bool:
        """Whether every date is scored and reported on, and what comes after it was done."""
        tasks = [*self.requires(), *self._reports()]
        return all(task.complete() for task in tasks) and self.output().exists()

    def _reports(self) -> list[luigi.Task]:
        return [ReportBatch(date=date) for date in self.dates]

    def output(self) -> NightTarget:
        """What the night wrote down of the date's batch."""
        return NightTarget(self.date)

    def run(self) -> Iterator[list[luigi.Task]]:
        """Has the reports made, deletes what is older than is kept, and writes down what the night did."""
        from tasks.database.schema import open_database

        # Only now, for whether a report is there depends on the batch that is published.
        yield self._reports()
        engine = open_database(load(DatabaseSettings))
        with report_progress(self, "deleting") as report:
            pruned, deleted = prune_batches(engine, report), delete_artifacts(engine)
            report.conclude(f"rows of {len(pruned)} batches and {len(deleted)} folders deleted")
        content = {
            "pruned": [{**dataclasses.asdict(one), "batch_date": str(one.batch_date)} for one in pruned],
            "deleted": [str(path) for path in deleted],
        }
        self.output().write(content)

    def _tell(self, failed: list[failures.Failure]) -> None:
        """Tells how the night ended, unless another run is at it and will. One that only drifted is done."""
        codes = {one.exit_code for one in failed}
        if codes != {AlreadyRunningError.exit_code}:
            done = codes == {DriftError.exit_code} or self._is_done()
            tell_how_it_ended(self.date, done, failed, time.monotonic() - self._began)

    def _is_done(self) -> bool:
        try:
            return self.complete()
        except Exception as error:  # no database, bad settings: said already by what failed before
            log.debug("%s: %s", self, error)
            return False


class NightTarget(luigi.Target):
    """What a night left behind beside the scores: a file for each published batch of the date that it saw."""

    def __init__(self, date: datetime.date) -> None:
        self.date = date

    def __str__(self) -> str:
        return f"{self.folder}/batch-<published batch>.json"

    @property
    def folder(self) -> Path:
        """Where the files of the date are."""
        return artifacts_folder() / "nights" / self.date.isoformat()

    def exists(self) -> bool:
        """Whether there is one of the batch that is published now."""
        path = self._path()
        return path is not None and path.is_file()

    def write(self, content: dict[str, Any]) -> None:
        """Writes that of the batch that is published now."""
        if (path := self._path()) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, content)

    def _path(self) -> Path | None:
        from tasks.database.batches import published_batch
        from tasks.database.connection import connect

        batch = published_batch(connect(load(DatabaseSettings)), self.date)
        return self.folder / f"batch-{batch.batch_id}.json" if batch else None


def prune_batches(engine: Engine, report: ProgressReport) -> list[Pruned]:
    """Deletes the rows of old batches, as `spamscore prune` does; [database] keep_days says which."""
    from tasks.database.retention import prunable, prune_batch

    before = kept_from(load(DatabaseSettings).keep_days)
    found = prunable(engine, before) if before else []
    pruned = []
    for number, one in enumerate(found):
        report.update(number, len(found), f"deleting the rows of batch {one.batch_id} of {one.batch_date}")
        pruned.append(prune_batch(engine, one, before or one.batch_date))
        log.info("batch %d of %s: %d rows deleted", one.batch_id, one.batch_date, pruned[-1].rows)
    return pruned


def delete_artifacts(engine: Engine) -> list[Path]:
    """Deletes the snapshots and reports of old dates; [artifacts] keep_days says which.

    Those of the latest published batch stay: the gate compares models on its messages.
    """
    from tasks.database.batches import latest_published
    from tasks.database.retention import delete_dated_folders

    before, latest = kept_from(load(ArtifactSettings).keep_days), latest_published(engine)
    if before is None:
        return []
    deleted = delete_dated_folders(artifacts_folder(), min(before, latest.batch_date if latest else before))
    for path in deleted:
        log.info("%s deleted", path)
    if deleted:
        write_index(engine)
    return deleted


def kept_from(days: int) -> datetime.date | None:
    """The earliest date that is kept, by the local clock; None where all are."""
    return datetime.date.today() - _DAY * days if days else None
