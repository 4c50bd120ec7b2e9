"""The stage ReportBatch: writes the report of a published batch and checks the batch for drift."""

from __future__ import annotations

import datetime
import logging
from typing import TYPE_CHECKING

import luigi

from models.errors import DatabaseError, DriftError
from tasks.artifacts.folders import write_json
from tasks.artifacts.links import link_to
from tasks.monitoring.report_index import report_path, write_index, write_page
from tasks.scheduler.failures import record_note
from tasks.scheduler.parameters import YesterdayParameter
from tasks.scheduler.progress import report_progress
from tasks.score_batch import ScoreBatch
from tasks.settings.loading import load
from tasks.settings.masking import mask_password
from tasks.settings.scoring import DriftSettings, ReportSettings
from tasks.settings.storage import DatabaseSettings
from tasks.stage import Stage, prepare_tensorflow

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow
    from tasks.monitoring.batch_figures import ProgressCallback
    from tasks.monitoring.drift import Drift

log = logging.getLogger("spamscore")


class ReportBatch(Stage):
    """Reports on the published batch of one date, and warns or fails if it drifted from earlier batches."""

    date = YesterdayParameter(description="date of the messages, such as 2026-01-31; yesterday by default")
    uses_tensorflow = True

    def requires(self) -> luigi.Task:
        """Returns the task that scores the date."""
        return ScoreBatch(date=self.date)

    def describe_completion(self) -> str:
        """Returns what is published, for the last lines of a run with nothing to do."""
        return ScoreBatch(date=self.date).describe_completion()

    def output(self) -> ReportTarget:
        """Returns the report of the batch that is published now."""
        return ReportTarget(self.date)

    def run(self) -> None:
        """Reads the published batch, writes its report unless it exists, and warns or fails on drift."""
        from tasks.database.batches import find_published_batch
        from tasks.database.schema import open_database
        from tasks.monitoring.drift import read_drift

        engine = open_database(load(DatabaseSettings))
        batch = find_published_batch(engine, self.date)
        if batch is None:
            raise DatabaseError(
                f"{mask_password(engine.url)}: no batch of {self.date} is published any more: it was withdrawn during "
                "the run. Run the date again."
            )
        drift = read_drift(engine, batch.batch_id)
        if drift is None or not report_path(batch.batch_date, batch.batch_id).is_file():
            with report_progress(self, "report") as progress:
                progress.link(link_to(report_path(batch.batch_date, batch.batch_id)))
                drift = report_batch(engine, batch, progress.update)
                progress.link(link_to(report_path(batch.batch_date, batch.batch_id)))
                progress.conclude(drift.summary or "no limit was exceeded")
        check_drift(drift)


class ReportTarget(luigi.Target):
    """A Luigi target for the report of a date's published batch.

    With [drift] on_drift = fail it does not exist until a person accepts the drift.
    """

    def __init__(self, date: datetime.date) -> None:
        self.date = date

    def __str__(self) -> str:
        return f"report of the published batch of {self.date}"

    def exists(self) -> bool:
        """Queries the database, without creating or migrating it, and checks that the file exists."""
        from tasks.database.batches import find_published_batch
        from tasks.database.connection import connect
        from tasks.monitoring.drift import read_drift

        engine = connect(load(DatabaseSettings))
        batch = find_published_batch(engine, self.date)
        if batch is None or not report_path(self.date, batch.batch_id).is_file():
            return False
        drift = read_drift(engine, batch.batch_id)
        return drift is not None and not (drift.is_open and load(DriftSettings).on_drift == "fail")


def check_drift(drift: Drift) -> None:
    """Warns of a batch that exceeds a limit of [drift], unless a person has accepted it.

    Raises:
        DriftError: the batch exceeds a limit, and [drift] on_drift = fail.
    """
    if not drift.is_open:
        return
    batch = drift.figures
    message = (
        f"batch {batch.batch_id} of {batch.batch_date} differs from earlier batches: {drift.summary}. It stays "
        f"published; see {report_path(batch.batch_date, batch.batch_id)}. If the batch is correct: spamscore drift "
        f"{batch.batch_date} --accept; if not: spamscore withdraw {batch.batch_date}"
    )
    if load(DriftSettings).on_drift == "fail":
        raise DriftError(message)
    log.warning("%s", message)
    record_note(message)


def report_batch(engine: Engine, batch: BatchRow, on_progress: ProgressCallback) -> Drift:
    """Measures a published batch, stores its figures, and writes its report and the index of reports.

    Args:
        engine: an open database.
        batch: a published batch.
        on_progress: called with the work done, the total, and a status line.
    """
    prepare_tensorflow()
    from models.reports.batch_report import render_batch
    from tasks.monitoring.batch_comparison import compare_batch
    from tasks.monitoring.batch_page import build_batch_report, build_report_json
    from tasks.monitoring.drift import write_drift

    measurements = compare_batch(engine, batch, on_progress)
    page = build_batch_report(engine, batch, measurements)
    path = report_path(batch.batch_date, batch.batch_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path.with_suffix(".json"), build_report_json(page, measurements))
    drift = write_drift(engine, measurements.figures, measurements.scores.counts, measurements.crossed)
    write_index(engine)
    # Written last, because the task is complete when this file exists.
    write_page(path, render_batch(page, load(ReportSettings).messages))
    return drift
