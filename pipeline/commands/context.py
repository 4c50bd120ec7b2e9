"""Loads what the commands start from: the settings, the database, a published batch."""

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

SCORE_COMMAND = "luigi --module pipeline ScoreBatch"
_MAX_NAMED_DATES = 5  # in one error
_MAX_BATCHES_SEARCHED = 1000


def read_settings() -> None:
    """Reads luigi.cfg and the environment, and checks every value.

    Raises:
        SettingsError: a setting is unknown or has a bad value.
    """
    prepare_luigi()
    check_settings()


def connect_database() -> Engine:
    """Reads the settings and connects to the database. Creates nothing if there is no database yet.

    Raises:
        SettingsError: a setting is unknown or has a bad value.
        DatabaseError: the database cannot be reached.
    """
    read_settings()
    from tasks.database.connection import connect

    return connect(load(DatabaseSettings))


def require_published(engine: Engine, date: datetime.date | None) -> BatchRow:
    """Returns the published batch of a date, or the one of the latest date that has one.

    Raises:
        InputError: there is none; names dates that have one.
    """
    from tasks.database.batches import find_published_batch
    from tasks.database.batches import list_batches as read_batches

    if date is not None and (batch := find_published_batch(engine, date)):
        return batch
    published = [batch for batch in read_batches(engine, _MAX_BATCHES_SEARCHED) if batch.state == "published"]
    if date is None and published:
        return published[0]
    dates = ", ".join(str(batch.batch_date) for batch in published[:_MAX_NAMED_DATES])
    available = f"the latest dates that have one: {dates}" if dates else "no date has one yet"
    for_date = f" for {date}" if date else ""
    command = SCORE_COMMAND + (f" --date {date}" if date else "")
    raise InputError(
        f"there is no published batch{for_date}; {available}. To score {'it' if date else 'one'}: {command}"
    )
