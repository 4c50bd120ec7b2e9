"""Where the reports of batches are, and the index of them all."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.artifacts.folders import lock_folder
from tasks.artifacts.locations import artifacts_folder

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from models.reports.batch_report import Night
    from tasks.monitoring.drift import DriftFigures

INDEX = "index.html"


def reports_folder() -> Path:
    """The folder of the reports, their index in it."""
    return artifacts_folder() / "reports"


def report_path(date: datetime.date, batch_id: int) -> Path:
    """Where the report of a batch is."""
    return reports_folder() / date.isoformat() / f"batch-{batch_id}.html"


def night_of(one: DriftFigures) -> Night:
    """What a chart shows of a batch."""
    from models.reports.batch_report import Night

    return Night(one.batch_date, one.batch_id, one.messages, one.flagged_share, one.unknown_share, one.psi_before)


def write_index(engine: Engine) -> None:
    """Writes the index of the published batches whose report is there; processes that do so at once take turns.

    The charts show those too whose report was deleted.
    """
    from models.reports.batch_report import render_index
    from tasks.monitoring.drift import drifts

    with lock_folder(reports_folder()):
        found = drifts(engine)
        rows = [
            {
                "night": night_of(one.figures),
                "address": f"{one.figures.batch_date}/batch-{one.figures.batch_id}.html",
                "crossed": [crossing.said for crossing in one.crossed],
                "accepted": one.accepted_by or "",
            }
            for one in found
            if report_path(one.figures.batch_date, one.figures.batch_id).parent.is_dir()
        ]
        made = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
        nights = [night_of(one.figures) for one in reversed(found)]
        write_page(reports_folder() / INDEX, render_index(nights, rows, made))


def write_page(path: Path, text: str) -> None:
    """Writes a page by way of a temporary file, so that a reader sees the old or the new one."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
