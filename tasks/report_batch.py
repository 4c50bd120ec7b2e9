"""ReportBatch: what a night scored, told on a page, and held to what the nights before were like."""

from __future__ import annotations

import datetime
import logging
from typing import TYPE_CHECKING

import luigi

from models.errors import DatabaseError, DriftError
from tasks.artifacts.folders import write_json
from tasks.artifacts.links import link_to
from tasks.monitoring.report_index import report_path, write_index, write_page
from tasks.scheduler.failures import remark
from tasks.scheduler.parameters import YesterdayParameter
from tasks.scheduler.progress import reporting
from tasks.score_batch import ScoreBatch
from tasks.settings.loading import load
from tasks.settings.scoring import DriftSettings, ReportSettings
from tasks.settings.storage import DatabaseSettings
from tasks.stage import Stage, prepare_tensorflow

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow
    from tasks.monitoring.batch_figures import Watch
    from tasks.monitoring.drift import Drift

log = logging.getLogger("spamscore")


class ReportBatch(Stage):
    """Reports on the published batch of one date, and warns or fails where it is unlike those before."""

    date = YesterdayParameter(description="date of the messages, as 2026-01-31; yesterday if not given")

    def requires(self) -> luigi.Task:
        """The date's batch."""
        return ScoreBatch(date=self.date)

    def output(self) -> ReportTarget:
        """The report of the batch that is published now."""
        return ReportTarget(self.date)

    def run(self) -> None:
        """Measures the batch unless that was done, keeps the figures, writes the pages, says what limits it crosses."""
        from tasks.database.batches import find_published_batch
        from tasks.database.connection import mask_password
        from tasks.database.schema import open_database
        from tasks.monitoring.drift import drift_of

        engine = open_database(load(DatabaseSettings))
        batch = find_published_batch(engine, self.date)
        if batch is None:
            raise DatabaseError(
                f"{mask_password(engine.url)}: no batch of {self.date} is published any more: it was withdrawn "
                "meanwhile. Run the date again."
            )
        drift = drift_of(engine, batch.batch_id)
        if drift is None or not report_path(batch.batch_date, batch.batch_id).is_file():
            with reporting(self, "report") as progress:
                progress.link(link_to(report_path(batch.batch_date, batch.batch_id)))
                drift = report_batch(engine, batch, progress.update)
                progress.link(link_to(report_path(batch.batch_date, batch.batch_id)))
                progress.conclude(drift.said or "no limit was crossed")
        say(drift)


class ReportTarget(luigi.Target):
    """The report of a date's published batch; with on_drift = fail not there until what it found is accepted."""

    def __init__(self, date: datetime.date) -> None:
        self.date = date

    def __str__(self) -> str:
        return f"report of the published batch of {self.date}"

    def exists(self) -> bool:
        """Asks the database, which is neither made nor migrated by that, and looks for the file."""
        from tasks.database.batches import find_published_batch
        from tasks.database.connection import connect
        from tasks.monitoring.drift import drift_of

        engine = connect(load(DatabaseSettings))
        batch = find_published_batch(engine, self.date)
        if batch is None or not report_path(self.date, batch.batch_id).is_file():
            return False
        drift = drift_of(engine, batch.batch_id)
        return drift is not None and not (drift.is_open and load(DriftSettings).on_drift == "fail")


def say(drift: Drift) -> None:
    """Says what a batch crossed, if nobody has accepted that.

    Raises:
        DriftError: it crossed something, and [drift] on_drift = fail.
    """
    if not drift.is_open:
        return
    one = drift.figures
    said = (
        f"batch {one.batch_id} of {one.batch_date} is unlike those before: {drift.said}. It stays published; look at "
        f"{report_path(one.batch_date, one.batch_id)}. If it is as it should be: spamscore drift {one.batch_date} "
        f"--accept; if not: spamscore withdraw {one.batch_date}"
    )
    if load(DriftSettings).on_drift == "fail":
        raise DriftError(said)
    log.warning("%s", said)
    remark(said)


def report_batch(engine: Engine, batch: BatchRow, watch: Watch) -> Drift:
    """Measures a published batch, keeps its figures, and writes its report and the index.

    Args:
        engine: an open database.
        batch: a published batch.
        watch: told how far it is.
    """
    prepare_tensorflow()
    from models.reports.batch_report import render_batch
    from tasks.monitoring.batch_comparison import measured
    from tasks.monitoring.batch_page import figures_of, told_of
    from tasks.monitoring.drift import write_drift

    found = measured(engine, batch, watch)
    told = told_of(engine, batch, found)
    path = report_path(batch.batch_date, batch.batch_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), figures_of(told, found))
    drift = write_drift(engine, found.figures, found.scores.counts, found.crossed)
    write_index(engine)
    # Last, for it is what the task looks for.
    write_page(path, render_batch(told, load(ReportSettings).messages))
    return drift
