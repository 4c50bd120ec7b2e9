"""Writes, deletes and reads the labels that people give to messages of published batches.

A person has one label for a message of a date; a later one replaces it. Labels of several people are all stored; the
corpus takes the latest of them. `models.training.corpus` decides how training uses them.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from tasks.database.connection import read_transaction, run_with_retries
from tasks.database.schema import has_table
from tasks.database.tables import labels as labels_table

SPAM, HAM = "spam", "ham"
LABELS = (SPAM, HAM)


@dataclass(frozen=True)
class MessageLabel:
    """A label that a person gave to a message.

    Attributes:
        batch_date: date of the batch of the message.
        message_id: its identifier in that batch.
        labelled_by: the person.
        label: spam or ham.
        labelled_at: time of the label, with a time zone.
        text: the message.
    """

    batch_date: datetime.date
    message_id: str
    labelled_by: str
    label: str
    labelled_at: datetime.datetime
    text: str


_COLUMNS = [labels_table.c[name] for name in MessageLabel.__dataclass_fields__]
_KEY = sa.and_(
    *(labels_table.c[name] == sa.bindparam(f"key_{name}") for name in ("batch_date", "message_id", "labelled_by"))
)


def change_labels(engine: Engine, written: Sequence[MessageLabel], deleted: Sequence[MessageLabel] = ()) -> None:
    """Writes labels, each in place of an earlier one of the same person, and deletes others, in one transaction.

    Args:
        engine: a database with its tables.
        written: labels to write.
        deleted: labels to delete; their label, time and text are ignored.

    Raises:
        DatabaseError: the database reported an error or the connection was lost; nothing was changed.
    """
    work = partial(_change, written=written, deleted=deleted)
    # Two concurrent calls may both find no row for a key: the second insert fails, and its retry finds the row.
    with contextlib.suppress(sa.exc.IntegrityError):
        run_with_retries(engine, work)
        return
    run_with_retries(engine, work)


def _change(connection: Connection, written: Sequence[MessageLabel], deleted: Sequence[MessageLabel]) -> None:
    if changed := [*written, *deleted]:
        keys = [
            {
                "key_batch_date": label.batch_date,
                "key_message_id": label.message_id,
                "key_labelled_by": label.labelled_by,
            }
            for label in changed
        ]
        connection.execute(sa.delete(labels_table).where(_KEY), keys)
    if written:
        connection.execute(sa.insert(labels_table), [_row(label) for label in written])


def _row(label: MessageLabel) -> dict[str, object]:
    # PostgreSQL does not store NUL. The text cleaning treats it as a space.
    return {**vars(label), "text": label.text.replace("\0", " ")}


def read_labels(engine: Engine, date: datetime.date | None = None) -> list[MessageLabel]:
    """Returns the labels, the latest first; an empty list if there is no table yet. Creates nothing.

    Args:
        engine: the database.
        date: date of the batch; None for all dates.
    """
    if not has_table(engine, labels_table.name):
        return []
    table = labels_table.c
    order = (table.labelled_at.desc(), table.batch_date, table.message_id, table.labelled_by)
    statement = sa.select(*_COLUMNS).order_by(*order)
    if date is not None:
        statement = statement.where(table.batch_date == date)
    with read_transaction(engine) as connection:
        return [MessageLabel(*row) for row in connection.execute(statement)]


def count_labelled_messages(engine: Engine) -> dict[datetime.date, int]:
    """Returns the number of messages that have a label, by date; a message that several people labelled counts once."""
    if not has_table(engine, labels_table.name):
        return {}
    table = labels_table.c
    counts = sa.select(table.batch_date, sa.func.count(table.message_id.distinct())).group_by(table.batch_date)
    with read_transaction(engine) as connection:
        return dict(connection.execute(counts).all())


def resolve_labels(labels: Iterable[MessageLabel]) -> list[tuple[str, str]]:
    """Returns label and text of each labelled message, sorted by text: for each text its latest label, from any person.

    If a text has contradicting labels of the same instant, from one file, both are returned.
    """
    labels = list(labels)
    latest: dict[str, datetime.datetime] = {}
    for label in labels:
        latest[label.text] = max(label.labelled_at, latest.get(label.text, label.labelled_at))
    resolved = {(label.label, label.text) for label in labels if label.labelled_at == latest[label.text]}
    return sorted(resolved, key=lambda pair: (pair[1], pair[0]))


def find_disputed_messages(labels: Iterable[MessageLabel]) -> set[tuple[datetime.date, str]]:
    """Returns date and identifier of the messages that have both labels."""
    first_labels: dict[tuple[datetime.date, str], str] = {}
    return {
        key
        for label in labels
        if first_labels.setdefault(key := (label.batch_date, label.message_id), label.label) != label.label
    }
