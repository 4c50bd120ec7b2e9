"""The Nightly task: everything that one night does, in one task for cron or systemd to start."""

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
from pipeline.notifications import notify_run_end
from tasks.artifacts.folders import write_json
from tasks.artifacts.locations import artifacts_folder
from tasks.monitoring.report_index import write_index
from tasks.report_batch import ReportBatch
from tasks.scheduler import failures
from tasks.scheduler.calendar import current_date
from tasks.scheduler.parameters import YesterdayParameter
from tasks.scheduler.progress import ProgressReport, report_progress
from tasks.score_batch import ScoreBatch
from tasks.settings.loading import load
from tasks.settings.operation import RunSettings
from tasks.settings.storage import ArtifactSettings, DatabaseSettings
from tasks.stage import Stage

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.retention import PrunedRows

log = logging.getLogger("spamscore")
_DAY = datetime.timedelta(days=1)


class Nightly(Stage):
    """Scores a date and reports on it, catches up on missed dates, and deletes data past its retention.

    When the `luigi` command ends, alerts are sent ([alerts]) and metrics are written ([metrics]).
    """

    date = YesterdayParameter(description="date of the messages, as 2026-01-31; yesterday if not given")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._start_time = time.monotonic()
        failures.on_run_end(self._notify)  # before the settings are checked: a bad setting is reported too
        super().__init__(*args, **kwargs)

    def requires(self) -> list[luigi.Task]:
        """Returns the batches of the date and of the missed dates."""
        return [ScoreBatch(date=date) for date in self.dates]

    @cached_property
    def dates(self) -> list[datetime.date]:
        """The missed dates, oldest first, and then the date itself.

        A date is missed if it is within [run] catch_up_days before the date and never had a published batch, for
        example because the machine was off. Cached: the batches are published before their reports are made.
        """
        earlier = [self.date - _DAY * days for days in range(load(RunSettings).catch_up_days, 0, -1)]
        if not earlier:
            return [self.date]
        from tasks.database.batches import find_never_published_dates
        from tasks.database.connection import connect

        return [*find_never_published_dates(connect(load(DatabaseSettings)), earlier), self.date]

    def complete(self) -> bool:
        """Returns whether every date has a batch and a report, and the record of the night is written."""
        tasks = [*self.requires(), *self._reports()]
        return all(task.complete() for task in tasks) and self.output().exists()

    def describe_completion(self) -> str:
        """Returns what is published, for the last lines of a run with nothing to do."""
        return ScoreBatch(date=self.date).describe_completion()

    def _reports(self) -> list[luigi.Task]:
        return [ReportBatch(date=date) for date in self.dates]

    def output(self) -> NightTarget:
        """Returns the record of the night for the date's published batch."""
        return NightTarget(self.date)

    def run(self) -> Iterator[list[luigi.Task]]:
        """Requires the reports, deletes data past its retention, and writes the record of the night."""
        from tasks.database.schema import open_database

        # Not in requires(): whether a report exists depends on the batch that is published by then.
        yield self._reports()
        engine = open_database(load(DatabaseSettings))
        with report_progress(self, "deleting") as report:
            pruned, deleted = prune_batches(engine, report), delete_artifacts(engine)
            report.conclude(f"rows of {len(pruned)} batches and {len(deleted)} folders deleted")
        content = {
            "pruned": [{**dataclasses.asdict(batch), "batch_date": str(batch.batch_date)} for batch in pruned],
            "deleted": [str(path) for path in deleted],
        }
        self.output().write(content)

    def _notify(self, failed: list[failures.Failure]) -> None:
        """Sends alerts and writes metrics, unless another run is doing this night: that run will send them.

        A night whose only failure is drift counts as done.
        """
        exit_codes = {failure.exit_code for failure in failed}
        if exit_codes != {AlreadyRunningError.exit_code}:
            done = exit_codes == {DriftError.exit_code} or self._is_done()
            notify_run_end(self.date, done, failed, time.monotonic() - self._start_time)

    def _is_done(self) -> bool:
        try:
            return self.complete()
        except Exception as error:  # no database, or bad settings: already reported by the failure itself
            log.debug("%s: %s", self, error)
            return False


class NightTarget(luigi.Target):
    """The record of a night: one file for each batch of the date that was published when the night ended."""

    def __init__(self, date: datetime.date) -> None:
        self.date = date

    def __str__(self) -> str:
        return f"{self.folder}/batch-<published batch>.json"

    @property
    def folder(self) -> Path:
        """The folder with the files of the date."""
        return artifacts_folder() / "nights" / self.date.isoformat()

    def exists(self) -> bool:
        """Returns whether there is a file for the batch that is published now."""
        path = self._path()
        return path is not None and path.is_file()

    def write(self, content: dict[str, Any]) -> None:
        """Writes the file for the batch that is published now."""
        if (path := self._path()) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, content)

    def _path(self) -> Path | None:
        from tasks.database.batches import find_published_batch
        from tasks.database.connection import connect

        batch = find_published_batch(connect(load(DatabaseSettings)), self.date)
        return self.folder / f"batch-{batch.batch_id}.json" if batch else None


def prune_batches(engine: Engine, report: ProgressReport) -> list[PrunedRows]:
    """Deletes the rows of old batches, as `spamscore prune` does; [database] keep_days sets the retention.

    Returns:
        The pruned batches, with the number of rows deleted.
    """
    from tasks.database.retention import find_prunable_batches, prune_batch

    first_kept = first_kept_date(load(DatabaseSettings).keep_days)
    batches = find_prunable_batches(engine, first_kept) if first_kept else []
    pruned = []
    for number, batch in enumerate(batches):
        report.update(number, len(batches), f"deleting the rows of batch {batch.batch_id} of {batch.batch_date}")
        pruned.append(prune_batch(engine, batch, first_kept or batch.batch_date))
        log.info("batch %d of %s: %d rows deleted", batch.batch_id, batch.batch_date, pruned[-1].rows)
    return pruned


def delete_artifacts(engine: Engine) -> list[Path]:
    """Deletes the snapshots and reports of old dates; [artifacts] keep_days sets the retention.

    Those of the latest published batch are kept: the gate compares models on its messages.

    Returns:
        The deleted folders.
    """
    from tasks.database.batches import find_latest_published_batch
    from tasks.database.retention import delete_dated_folders

    first_kept, latest = first_kept_date(load(ArtifactSettings).keep_days), find_latest_published_batch(engine)
    if first_kept is None:
        return []
    deleted = delete_dated_folders(artifacts_folder(), min(first_kept, latest.batch_date if latest else first_kept))
    for path in deleted:
        log.info("%s deleted", path)
    if deleted:
        write_index(engine)
    return deleted


def first_kept_date(days: int) -> datetime.date | None:
    """Returns the earliest date that is kept; None if 0 days are set, which keeps all."""
    return current_date() - _DAY * days if days else None
