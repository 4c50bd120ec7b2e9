"""Reads the published scores all the time while a run is disturbed: a reader must never see a partial batch."""

from __future__ import annotations

import datetime
import threading
from typing import Any

import sqlalchemy as sa
from chain import DATE
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from tasks.database.tables import published_scores

BATCH_DATE = datetime.date.fromisoformat(DATE)

Row = tuple[Any, ...]


def read_published_rows(connection: sa.Connection) -> list[Row]:
    """Reads the published rows of the date, sorted: message_id, spam_probability, flagged, model_version."""
    view = published_scores.c
    columns = sa.select(view.message_id, view.spam_probability, view.flagged, view.model_version)
    return sorted(tuple(row) for row in connection.execute(columns.where(view.batch_date == BATCH_DATE)))


class Reader:
    """Polls `published_scores` in a thread; each reading must be the old rows or, from some reading on, the new rows.

    Attributes:
        readings: number of readings.
        wrong_readings: descriptions of the wrong readings.
    """

    def __init__(self, url: URL, old: list[Row], new: list[Row]) -> None:
        self.readings = 0
        self.wrong_readings: list[str] = []
        self._old, self._new = old, new
        self._engine = sa.create_engine(url, poolclass=NullPool)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _poll(self) -> None:
        new_rows_seen = False
        while not self._stopped.is_set():
            try:
                with self._engine.connect() as connection:
                    while not self._stopped.wait(0.02):
                        new_rows_seen = self._check(read_published_rows(connection), new_rows_seen)
                        connection.rollback()
            except sa.exc.DBAPIError:
                self._stopped.wait(0.1)  # the database is stopped, or the connection was cut: not a reading

    def _check(self, rows: list[Row], new_rows_seen: bool) -> bool:
        self.readings += 1
        if rows == self._new:
            return True
        if rows != self._old:
            self.wrong_readings.append(f"read {len(rows)} rows that are neither the old nor the new ones")
        elif new_rows_seen:
            self.wrong_readings.append("read the old rows after the new ones")
        return new_rows_seen
