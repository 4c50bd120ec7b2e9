"""The Nightly task: everything that one night does, in one task for cron or systemd to start.

`FinishNight` does the night of one date; `Nightly` requires it and the missed dates.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import time
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from models.errors import AlreadyRunningError, DriftError
from pipeline.notifications import notify_run_end
from tasks.artifacts.folders import write_json
from tasks.artifacts.locations import artifacts_folder
from tasks.artifacts.shared import delete_shared_snapshots
from tasks.monitoring.report_index import write_index
from tasks.report_batch import ReportBatch
from tasks.scheduler import failures
from tasks.scheduler.calendar import current_date
from tasks.scheduler.failures import record_note
from tasks.scheduler.parameters import DatesParameter, YesterdayParameter
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
_DATES = DatesParameter("")


class Nightly(Stage):
    """Scores a date and reports on it, catches up on missed dates, and deletes data past its retention.

    Each date is finished on its own: a date that fails does not keep the others from their batch and report. When the
    `luigi` command ends, alerts are sent ([alerts]) and metrics are written ([metrics]).
    """

    date = YesterdayParameter(description="date of the messages, as 2026-01-31; yesterday if not given")
    priority = -1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not _nights:
            failures.on_run_end(partial(_notify, time.monotonic()))
        _nights.append(self)  # before the settings are checked: a bad setting is reported too
        super().__init__(*args, **kwargs)

    def requires(self) -> list[luigi.Task]:
        """Returns the reports of the missed dates, and the task that finishes the date itself."""
        return [*(ReportBatch(date=date) for date in self.missed_dates), FinishNight(date=self.date)]

    @cached_property
    def missed_dates(self) -> list[datetime.date]:
        """The missed dates, oldest first.

        A date is missed if it is within [run] catch_up_days before the date and never had a published batch, for
        example because the machine was off. Cached: the batches are published before their reports are made.
        """
        earlier = [self.date - _DAY * days for days in range(load(RunSettings).catch_up_days, 0, -1)]
        if not earlier:
            return []
        from tasks.database.batches import find_never_published_dates
        from tasks.database.connection import connect

        return find_never_published_dates(connect(load(DatabaseSettings)), earlier)

    def complete(self) -> bool:
        """Returns whether every date has a batch and a report, and the record of the night is written."""
        return all(task.complete() for task in self.requires())

    def describe_completion(self) -> str:
        """Returns what is published, for the last lines of a run with nothing to do."""
        return ScoreBatch(date=self.date).describe_completion()

    def output(self) -> NightTarget:
        """Returns the record of the night for the date's published batch."""
        return NightTarget(self.date)

    def run(self) -> None:
        """Does nothing: all work is done by the tasks that it requires."""

    def is_done(self) -> bool:
        """Returns whether the date itself is done; false if that cannot be found out."""
        try:
            return FinishNight(date=self.date).complete()
        except Exception as error:  # no database, or bad settings: already reported by the failure itself
            log.debug("%s: %s", self, error)
            return False

    def find_missed_results(self) -> dict[datetime.date, bool]:
        """Returns for each missed date whether it is done; empty if that cannot be found out."""
        try:
            return {date: ReportBatch(date=date).complete() for date in self.missed_dates}
        except Exception as error:  # as above
            log.debug("%s: %s", self, error)
            return {}


class FinishNight(Stage):
    """Scores a date and reports on it, deletes data past its retention, and writes the record of the night."""

    date = YesterdayParameter(description="date of the messages, as 2026-01-31; yesterday if not given")
    # Runs after the missed dates: their reports are made from snapshots that it may delete.
    priority = -1

    def requires(self) -> luigi.Task:
        """Returns the task that scores the date."""
        return ScoreBatch(date=self.date)

    def complete(self) -> bool:
        """Returns whether the date has a batch and a report, and the record of the night is written."""
        tasks = (self.requires(), ReportBatch(date=self.date))
        return all(task.complete() for task in tasks) and self.output().exists()

    def output(self) -> NightTarget:
        """Returns the record of the night for the date's published batch."""
        return NightTarget(self.date)

    def run(self) -> Iterator[luigi.Task]:
        """Requires the report, deletes data past its retention, and writes the record of the night."""
        from tasks.database.schema import open_database

        # Not in requires(): whether a report exists depends on the batch that is published by then.
        yield ReportBatch(date=self.date)
        engine = open_database(load(DatabaseSettings))
        with report_progress(self, "deleting") as report:
            pruned, deleted = prune_batches(engine, report), delete_artifacts(engine)
            report.conclude(f"rows of {len(pruned)} batches and {len(deleted)} folders deleted")
        content = {
            "pruned": [{**dataclasses.asdict(batch), "batch_date": str(batch.batch_date)} for batch in pruned],
            "deleted": deleted,
        }
        self.output().write(content)


_nights: list[Nightly] = []  # of this run; there are several if it is run for a range of dates


def _notify(start_time: float, failed: list[failures.Failure]) -> None:
    """Sends alerts, writes metrics, and names the missed dates that are not done."""
    missed = {date: done for night in _nights for date, done in night.find_missed_results().items()}
    nights = {night.date: night.is_done() for night in _nights}
    reasons = {date: find_reasons(date, [*missed, *nights], failed) for date in [*missed, *nights]}
    codes = {date: {failure.exit_code for failure in reasons[date]} for date in reasons}
    for results in (missed, nights):
        for date in list(results):
            if codes[date] == {DriftError.exit_code}:
                results[date] = True  # only its drift is to be looked at
            elif not results[date] and codes[date] == {AlreadyRunningError.exit_code}:
                del results[date]  # the other run sends the alerts
    if not nights:
        return
    notify_run_end(nights, missed, reasons, time.monotonic() - start_time)
    if open_dates := tuple(date for date, done in missed.items() if not done and date not in nights):
        record_note(
            f"Nightly of {_DATES.serialize(tuple(nights))} is {'done' if all(nights.values()) else 'not done'}. Missed "
            f"dates that are not done: {_DATES.serialize(open_dates)}, for the reasons above. The next Nightly tries "
            "them again, within [run] catch_up_days."
        )


def find_reasons(
    date: datetime.date, dates: Sequence[datetime.date], failed: Sequence[failures.Failure]
) -> list[failures.Failure]:
    """Returns the failures that name a date; if none does, those that name none of the dates, or else all."""
    own = [failure for failure in failed if str(date) in failure.message]
    shared = [failure for failure in failed if not any(str(other) in failure.message for other in dates)]
    return own or shared or list(failed)


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


def delete_artifacts(engine: Engine) -> list[str]:
    """Deletes the snapshots, shared ones too, and reports of old dates; [artifacts] keep_days sets the retention.

    Those of the latest published batch are kept: the gate compares models on its messages.

    Returns:
        The deleted folders.
    """
    from tasks.database.batches import find_latest_published_batch
    from tasks.database.retention import delete_dated_folders

    settings = load(ArtifactSettings)
    first_kept, latest = first_kept_date(settings.keep_days), find_latest_published_batch(engine)
    if first_kept is None:
        return []
    before = min(first_kept, latest.batch_date if latest else first_kept)
    deleted = [str(path) for path in delete_dated_folders(artifacts_folder(), before)]
    if deleted:
        write_index(engine)
    deleted += delete_shared_snapshots(settings.shared, before) if settings.shared else []
    for path in deleted:
        log.info("%s deleted", path)
    return deleted


def first_kept_date(days: int) -> datetime.date | None:
    """Returns the earliest date that is kept; None if 0 days are set, which keeps all."""
    return current_date() - _DAY * days if days else None
