"""Finds the reports of batches and writes their index."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.artifacts.folders import lock_folder
from tasks.artifacts.locations import artifacts_folder

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from models.reports.batch_report import TrendPoint
    from tasks.monitoring.drift import DriftFigures

INDEX = "index.html"


def reports_folder() -> Path:
    """Returns the folder of the reports and of their index."""
    return artifacts_folder() / "reports"


def report_path(date: datetime.date, batch_id: int) -> Path:
    """Returns the path of the report of a batch."""
    return reports_folder() / date.isoformat() / f"batch-{batch_id}.html"


def to_trend_point(figures: DriftFigures) -> TrendPoint:
    """Returns the figures of a batch that the trend charts show."""
    from models.reports.batch_report import TrendPoint

    return TrendPoint(
        date=figures.batch_date,
        batch_id=figures.batch_id,
        messages=figures.messages,
        flagged_share=figures.flagged_share,
        unknown_share=figures.unknown_share,
        psi_before=figures.psi_before,
    )


def write_index(engine: Engine) -> None:
    """Writes the index of the published batches that have a report, under a lock.

    The charts also show batches whose report was deleted.
    """
    from models.reports.batch_report import render_index
    from tasks.monitoring.drift import read_drifts

    with lock_folder(reports_folder()):
        drifts = read_drifts(engine)
        rows = [
            {
                "point": to_trend_point(drift.figures),
                "address": f"{drift.figures.batch_date}/batch-{drift.figures.batch_id}.html",
                "crossed": [crossing.said for crossing in drift.crossed],
                "accepted": drift.accepted_by or "",
            }
            for drift in drifts
            if report_path(drift.figures.batch_date, drift.figures.batch_id).parent.is_dir()
        ]
        updated = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
        points = [to_trend_point(drift.figures) for drift in reversed(drifts)]
        write_page(reports_folder() / INDEX, render_index(points, rows, updated))


def write_page(path: Path, text: str) -> None:
    """Writes a page through a temporary file, so that a reader sees the old page or the new one."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
