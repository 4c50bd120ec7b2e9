"""What commands begin with: the settings, the database, the batch that is meant."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from models.errors import InputError
from tasks.scheduler.luigi_defaults import prepare_luigi
from tasks.settings.checking import check_settings
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow

SCORE = "luigi --module pipeline ScoreBatch"
_PUBLISHED_NAMED = 5  # dates that an error names
_BATCHES_LOOKED_AT = 1000


def read_settings() -> None:
    """Reads luigi.cfg and the environment, and holds every value to what is declared.

    Raises:
        SettingsError: one cannot be used.
    """
    prepare_luigi()
    check_settings()


def open_scores() -> Engine:
    """The database of the scores. Nothing is made where there is none.

    Raises:
        SettingsError: a setting cannot be used.
        DatabaseError: the database cannot be reached.
    """
    read_settings()
    from tasks.database.connection import connect

    return connect(load(DatabaseSettings))


def require_published(engine: Engine, date: datetime.date | None) -> BatchRow:
    """The published batch of a date, or of the newest that has one.

    Raises:
        InputError: there is none; names dates that have one.
    """
    from tasks.database.batches import find_published_batch
    from tasks.database.batches import list_batches as found_batches

    if date is not None and (batch := find_published_batch(engine, date)):
        return batch
    published = [one for one in found_batches(engine, _BATCHES_LOOKED_AT) if one.state == "published"]
    if date is None and published:
        return published[0]
    dates = ", ".join(str(one.batch_date) for one in published[:_PUBLISHED_NAMED])
    there = f"the newest dates that have one: {dates}" if dates else "no date has one yet"
    of = f" of {date}" if date else ""
    again = SCORE + (f" --date {date}" if date else "")
    raise InputError(f"there is no published batch{of}; {there}. Score it: {again}")
