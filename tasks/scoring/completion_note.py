"""Describes the published batches of dates that are complete, for the last lines of a run with nothing to do."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from tasks.artifacts.locations import snapshot_folder
from tasks.artifacts.source_files import describe_origin, find_changes
from tasks.database.completion import find_published_snapshots_in_sqlite
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings

_MAX_NAMED_DATES = 3


def describe_published(dates: Sequence[datetime.date]) -> str:
    """Returns which batch of a date is published, from what it was read, and how to read its messages again.

    Of several dates, only those are named whose source was modified since.
    """
    batches = _find_published_snapshots(dates)
    if len(dates) == 1:
        (date,) = dates
        if date not in batches:
            return ""
        number, snapshot = batches[date]
        origin = describe_origin(snapshot_folder(date, snapshot))
        return (
            f"Batch {number} is published; its messages were {origin}. "
            f"To read them again: spamscore extract {date} --again"
        )
    changes = [
        f"{date}: {'; '.join(found)}"
        for date, (_, name) in sorted(batches.items())
        if (found := find_changes(snapshot_folder(date, name)))
    ]
    if not changes:
        return ""
    more = f"; and {len(changes) - _MAX_NAMED_DATES} more dates" if len(changes) > _MAX_NAMED_DATES else ""
    return f"{'; '.join(changes[:_MAX_NAMED_DATES])}{more}. To read a date again: spamscore extract DATE --again"


def _find_published_snapshots(dates: Sequence[datetime.date]) -> dict[datetime.date, tuple[int, str]]:
    settings = load(DatabaseSettings)
    batches = find_published_snapshots_in_sqlite(settings.url, dates)
    if batches is not None:
        return batches
    from tasks.database.batches import find_published_snapshots
    from tasks.database.connection import connect

    return find_published_snapshots(connect(settings), dates)
