"""How old batches leave: the rows of those that nobody reads any more are deleted, a bounded number a transaction.

What is published stays, however old. The batch's row in `score_batches` stays too: it says what readers saw on that
date, by which model; and that the work of its recipe was done, so that no run does it again. `restore_batch` counts the
rows of a batch before it publishes it, so one that is partly deleted cannot come back.

Of the artifacts, the folders of old dates leave that hold messages.
"""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from tasks.database.connection import read_transaction, run_with_retries
from tasks.database.schema import has_schema
from tasks.database.tables import batch_chunks, rejected_messages, score_batches, spam_scores

_SLICE = 10_000  # rows deleted in one transaction
_ENDED = ("superseded", "withdrawn")
# Folders of artifacts that have one for each date below them, with messages in it.
_DATED = ("snapshots", "reports")

# What a batch has in each table, and what its rows are ordered by there.
_TABLES: dict[str, tuple[sa.Table, sa.Column[Any]]] = {
    "scores": (spam_scores, spam_scores.c.message_id),
    "rejected": (rejected_messages, rejected_messages.c.row_number),
    "chunks": (batch_chunks, batch_chunks.c.chunk_number),
}


@dataclass(frozen=True)
class PrunedRows:
    """The rows of a batch that are to go, or went."""

    batch_id: int
    batch_date: datetime.date
    state: str
    scores: int
    rejected: int
    chunks: int

    @property
    def rows(self) -> int:
        """All of them."""
        return self.scores + self.rejected + self.chunks


def find_prunable_batches(engine: Engine, before: datetime.date) -> list[PrunedRows]:
    """What retention takes: rows of the batches of earlier dates that are superseded, withdrawn, or stale.

    A running batch is stale if it was begun before that date and has committed no chunk since: a date of long ago may
    be scored at this moment.

    Args:
        engine: the database; one without tables has nothing, and nothing is made.
        before: batches of this date and later ones are kept.
    """
    if not has_schema(engine):
        return []
    table = score_batches.c
    wanted = sa.select(table.batch_id, table.batch_date, table.state, *map(_rows_of_batch, _TABLES)).where(
        table.batch_date < before, table.state.in_(_ENDED) | _is_stale(before)
    )
    with read_transaction(engine) as connection:
        rows = connection.execute(wanted.order_by(table.batch_date, table.batch_id)).all()
    found = [PrunedRows(*row) for row in rows]
    return [one for one in found if one.rows or one.state == "running"]


def _rows_of_batch(name: str) -> sa.ScalarSelect[int]:
    table, _ = _TABLES[name]
    return sa.select(sa.func.count()).where(table.c.batch_id == score_batches.c.batch_id).scalar_subquery()


def _is_stale(before: datetime.date) -> sa.ColumnElement[bool]:
    moment = datetime.datetime.combine(before, datetime.time(), datetime.UTC)
    later = sa.select(batch_chunks.c.chunk_number).where(
        batch_chunks.c.batch_id == score_batches.c.batch_id, batch_chunks.c.written_at >= moment
    )
    begun = score_batches.c.started_at < moment
    return (score_batches.c.state == "running") & begun & ~later.correlate(score_batches).exists()


def prune_batch(engine: Engine, one: PrunedRows, before: datetime.date) -> PrunedRows:
    """Deletes the rows of a batch if it may go; a stale running one is withdrawn first, so that nobody writes to it.

    Each transaction deletes no more than 10,000 rows, and looks before it does whether the batch may still go. Killed
    in the middle it is simply called again.

    Args:
        engine: the database.
        one: what `prunable` gave.
        before: as for `prunable`.

    Returns:
        The rows that went; none of a batch that was restored meanwhile.

    Raises:
        DatabaseError: the database refused or was lost.
    """
    run_with_retries(engine, partial(_end_stale, batch_id=one.batch_id, before=before))
    gone = dict.fromkeys(_TABLES, 0)
    for name in _TABLES:
        deleted = _SLICE
        while deleted == _SLICE:
            deleted = run_with_retries(engine, partial(_delete_slice, batch_id=one.batch_id, before=before, name=name))
            gone[name] += deleted
    return PrunedRows(one.batch_id, one.batch_date, one.state, **gone)


def _end_stale(connection: Connection, batch_id: int, before: datetime.date) -> None:
    stale = (score_batches.c.batch_id == batch_id) & (score_batches.c.batch_date < before) & _is_stale(before)
    ended = {"state": "withdrawn", "ended_at": datetime.datetime.now(datetime.UTC)}
    connection.execute(sa.update(score_batches).where(stale).values(ended))


def _delete_slice(connection: Connection, batch_id: int, before: datetime.date, name: str) -> int:
    may_go = sa.select(score_batches.c.batch_id).where(
        score_batches.c.batch_id == batch_id, score_batches.c.batch_date < before, score_batches.c.state.in_(_ENDED)
    )
    # Held until the rows are gone: who restores the batch meanwhile waits, and then finds that it is not whole.
    if connection.scalar(may_go.with_for_update()) is None:
        return 0
    table, key = _TABLES[name]
    rows = table.c.batch_id == batch_id
    last = connection.scalar(sa.select(key).where(rows).order_by(key).offset(_SLICE - 1).limit(1))
    return connection.execute(sa.delete(table).where(rows if last is None else rows & (key <= last))).rowcount


def delete_dated_folders(artifacts: Path, before: datetime.date) -> list[Path]:
    """Deletes the snapshots and reports of the dates before one, and returns their folders.

    Args:
        artifacts: the folder of [artifacts] folder.
        before: what is of this date and later ones stays, and what has another name than a date.
    """
    dated = [path for name in _DATED if (artifacts / name).is_dir() for path in (artifacts / name).iterdir()]
    old = sorted(path for path in dated if path.is_dir() and (date := _date_named(path.name)) and date < before)
    for path in old:
        shutil.rmtree(path)
    return old


def _date_named(name: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(name) if len(name) == len("2026-01-31") else None
    except ValueError:
        return None
