"""The labels that people give to messages of published batches: written, taken back, read.

A person has one label for a message of a date; a later one replaces it. Labels of several persons stand side by side;
the corpus takes the latest of them. What it is worth to training is decided by `models.training.corpus`.
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
    """What a person said of a message.

    Attributes:
        batch_date: date of the batch that the message is of.
        message_id: its identifier there.
        labelled_by: who says so.
        label: spam or ham.
        labelled_at: when, with a zone.
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


def change_labels(engine: Engine, given: Sequence[MessageLabel], taken_back: Sequence[MessageLabel] = ()) -> None:
    """Writes labels, each in place of an earlier one of the same person, and deletes others; all in one transaction.

    Args:
        engine: a database with its tables.
        given: what is to be there.
        taken_back: what is to be there no more; neither label, time nor text of these counts.

    Raises:
        DatabaseError: the database refused or was lost; nothing was changed.
    """
    work = partial(_change, given=given, taken_back=taken_back)
    # Two at once may both find no row of a key: who comes second is refused, and then finds that of the first.
    with contextlib.suppress(sa.exc.IntegrityError):
        run_with_retries(engine, work)
        return
    run_with_retries(engine, work)


def _change(connection: Connection, given: Sequence[MessageLabel], taken_back: Sequence[MessageLabel]) -> None:
    if gone := [*given, *taken_back]:
        keys = [
            {"key_batch_date": one.batch_date, "key_message_id": one.message_id, "key_labelled_by": one.labelled_by}
            for one in gone
        ]
        connection.execute(sa.delete(labels_table).where(_KEY), keys)
    if given:
        connection.execute(sa.insert(labels_table), [_row(one) for one in given])


def _row(one: MessageLabel) -> dict[str, object]:
    # PostgreSQL has no NUL; to the cleaning it is a space.
    return {**vars(one), "text": one.text.replace("\0", " ")}


def read_labels(engine: Engine, date: datetime.date | None = None) -> list[MessageLabel]:
    """The labels there are, the latest first; none where there is no table yet, and none is made.

    Args:
        engine: the database.
        date: of the batch; all dates if not given.
    """
    if not has_table(engine, labels_table.name):
        return []
    table = labels_table.c
    order = (table.labelled_at.desc(), table.batch_date, table.message_id, table.labelled_by)
    wanted = sa.select(*_COLUMNS).order_by(*order)
    if date is not None:
        wanted = wanted.where(table.batch_date == date)
    with read_transaction(engine) as connection:
        return [MessageLabel(*row) for row in connection.execute(wanted)]


def resolve_labels(labels: Iterable[MessageLabel]) -> list[tuple[str, str]]:
    """Label and text of each message that is labelled, each once, in the order of the texts: the latest label of a text
    counts, whoever gave it. Two that contradict each other at the same instant, in one file, are both there.
    """
    every = list(labels)
    latest: dict[str, datetime.datetime] = {}
    for one in every:
        latest[one.text] = max(one.labelled_at, latest.get(one.text, one.labelled_at))
    last = {(one.label, one.text) for one in every if one.labelled_at == latest[one.text]}
    return sorted(last, key=lambda pair: (pair[1], pair[0]))


def find_disputed_messages(labels: Iterable[MessageLabel]) -> set[tuple[datetime.date, str]]:
    """Date and identifier of the messages that carry both labels."""
    said: dict[tuple[datetime.date, str], str] = {}
    return {key for one in labels if said.setdefault(key := (one.batch_date, one.message_id), one.label) != one.label}
