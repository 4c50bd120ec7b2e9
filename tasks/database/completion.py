"""Decides which dates are complete, with a fast path for SQLite that does not import SQLAlchemy.

A run with nothing to do needs no other query, and importing SQLAlchemy takes longer than everything else in it. The
fast path uses Python's own SQLite driver. Where it gives no answer, `tasks.database.batches` queries any database.
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tasks.database.migrations import SCHEMA_REVISION, VERSION_TABLE

_SQLITE_PREFIX = "sqlite:///"
# A URL with one of these characters is not a plain path.
_SPECIAL_CHARACTERS = frozenset("?#%:")


def select_completed_dates(
    batches: Iterable[tuple[datetime.date, str, str]], recipes: Mapping[datetime.date, str], exactly: bool
) -> set[datetime.date]:
    """Returns the dates that are complete.

    A date is complete if its recipe's batch is published. Without `exactly` it is also complete if another batch is
    published now, and the recipe's batch was published before and then superseded, for example by a rollback.

    Args:
        batches: date, recipe and state of the published and superseded batches of the dates.
        recipes: recipe of each date.
        exactly: whether the published batch must be the one of the recipe.
    """
    published, scored_by_recipe = set(), set()
    for date, recipe, state in batches:
        if state == "published":
            published.add(date)
        if recipe == recipes[date] and (state == "published" or not exactly):
            scored_by_recipe.add(date)
    return published & scored_by_recipe


def find_completed_dates_in_sqlite(
    url: str, recipes: Mapping[datetime.date, str], exactly: bool
) -> set[datetime.date] | None:
    """Returns the dates that are complete in a SQLite database, or None if the fast path cannot tell.

    It cannot if the URL is not that of a SQLite file, the file does not exist, its schema is not the current one, or
    SQLite reports an error. The full query then gives the answer or the error message.

    Args:
        url: [database] url.
        recipes: recipe of each date.
        exactly: as for `select_completed_dates`.
    """
    rows = _query_sqlite(
        url,
        "SELECT batch_date, recipe, state FROM score_batches "
        "WHERE batch_date IN ({dates}) AND state IN ('published', 'superseded')",
        recipes,
    )
    if rows is None:
        return None
    return select_completed_dates(
        ((datetime.date.fromisoformat(date), *rest) for date, *rest in rows), recipes, exactly
    )


def find_published_snapshots_in_sqlite(
    url: str, dates: Collection[datetime.date]
) -> dict[datetime.date, tuple[int, str]] | None:
    """Returns the number and the snapshot of the published batch of each date; None if the fast path cannot tell."""
    rows = _query_sqlite(
        url, "SELECT published_date, batch_id, snapshot FROM score_batches WHERE published_date IN ({dates})", dates
    )
    return None if rows is None else {datetime.date.fromisoformat(date): (number, name) for date, number, name in rows}


def _query_sqlite(url: str, query: str, dates: Collection[datetime.date]) -> list[Any] | None:
    """Runs a query with Python's own driver. In the query, {dates} stands for the dates."""
    path = Path(url.removeprefix(_SQLITE_PREFIX))
    if not url.startswith(_SQLITE_PREFIX) or _SPECIAL_CHARACTERS & set(str(path)) or not path.is_file():
        return None
    query = query.format(dates=", ".join("?" * len(dates)))
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            if connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() != [(SCHEMA_REVISION,)]:  # noqa: S608
                return None
            return connection.execute(query, [date.isoformat() for date in dates]).fetchall()
    except sqlite3.Error:
        return None  # the full query reports the error
