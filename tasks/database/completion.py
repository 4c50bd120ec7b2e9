"""Which dates are done: the rule, and the short way to ask it of SQLite.

A night with nothing to do asks nothing else, and SQLAlchemy takes longer to import than all the rest of such a night.
So SQLite is asked by Python's own driver; what that cannot answer plainly, `tasks.database.batches` asks of any
database.
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from tasks.database.migrations import SCHEMA_REVISION, VERSION_TABLE

_SQLITE = "sqlite:///"
# An address with one of these is not just a path.
_NOT_A_PATH = frozenset("?#%:")


def select_completed_dates(
    batches: Iterable[tuple[datetime.date, str, str]], recipes: Mapping[datetime.date, str], exactly: bool
) -> set[datetime.date]:
    """Those of some dates that are done: the recipe's batch is the published one, or it was and a person went back.

    Args:
        batches: date, recipe and state of the published and superseded batches of these dates.
        recipes: of each date.
        exactly: the published batch must be the recipe's own.
    """
    published, by_recipe = set(), set()
    for date, recipe, state in batches:
        if state == "published":
            published.add(date)
        if recipe == recipes[date] and (state == "published" or not exactly):
            by_recipe.add(date)
    return published & by_recipe


def find_completed_dates_in_sqlite(
    address: str, recipes: Mapping[datetime.date, str], exactly: bool
) -> set[datetime.date] | None:
    """Those of some dates that are done; None where the short way does not lead there.

    That is so where the address is not that of a SQLite file, the file is not there, its schema is not that of this
    code, or SQLite refuses: who asks in full then says what is wrong.

    Args:
        address: [database] url.
        recipes: of each date.
        exactly: as for `select_completed_dates`.
    """
    path = Path(address.removeprefix(_SQLITE))
    if not address.startswith(_SQLITE) or _NOT_A_PATH & set(str(path)) or not path.is_file():
        return None
    places = ", ".join("?" * len(recipes))
    wanted = (
        "SELECT batch_date, recipe, state FROM score_batches "  # noqa: S608 - question marks alone
        f"WHERE batch_date IN ({places}) AND state IN ('published', 'superseded')"
    )
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            if connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() != [(SCHEMA_REVISION,)]:  # noqa: S608
                return None
            rows = connection.execute(wanted, [date.isoformat() for date in recipes]).fetchall()
    except sqlite3.Error:
        return None  # asked in full, it says what is wrong
    return select_completed_dates(
        ((datetime.date.fromisoformat(date), *rest) for date, *rest in rows), recipes, exactly
    )
