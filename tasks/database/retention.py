"""Deletes the rows of old batches that are not published, a bounded number per transaction, and old artifact folders.

Published batches are never deleted. The row of every batch in `score_batches` stays: it records what readers saw on
that date and from which model, and that its recipe is complete, so that no run repeats it. `restore_batch` counts the
rows of a batch before it publishes it, so a partly deleted batch cannot be restored.

Of the artifacts, only folders with messages are deleted: snapshots and reports, and selections of night messages.
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

from tasks.artifacts.folders import MANIFEST, read_json
from tasks.database.connection import read_transaction, run_with_retries
from tasks.database.schema import has_schema
from tasks.database.tables import batch_chunks, rejected_messages, score_batches, spam_scores

_SLICE_ROWS = 10_000  # rows deleted in one transaction
_ENDED_STATES = ("superseded", "withdrawn")
_NIGHT_MESSAGES = "night_messages"
# Artifact folders with one subfolder per date that contains messages.
_DATED_FOLDERS = ("snapshots", "reports")

# The tables with rows of a batch, each with the column that its rows are ordered by within the batch.
_TABLES: dict[str, tuple[sa.Table, sa.Column[Any]]] = {
    "scores": (spam_scores, spam_scores.c.message_id),
    "rejected": (rejected_messages, rejected_messages.c.row_number),
    "chunks": (batch_chunks, batch_chunks.c.chunk_number),
}


@dataclass(frozen=True)
class PrunedRows:
    """The numbers of rows of a batch that retention can delete, or has deleted."""

    batch_id: int
    batch_date: datetime.date
    state: str
    scores: int
    rejected: int
    chunks: int

    @property
    def rows(self) -> int:
        """Number of rows in all three tables."""
        return self.scores + self.rejected + self.chunks


def find_prunable_batches(engine: Engine, before: datetime.date) -> list[PrunedRows]:
    """Returns the batches of old dates whose rows can be deleted: superseded, withdrawn or stale ones.

    A running batch is stale if it was started before the given date and has committed no chunk since. Its age alone is
    not enough: an old date may be scored at this moment.

    Args:
        engine: the database; if it has no tables, the result is empty and nothing is created.
        before: batches of this date and later ones are kept.
    """
    if not has_schema(engine):
        return []
    table = score_batches.c
    statement = sa.select(table.batch_id, table.batch_date, table.state, *map(_count_rows_query, _TABLES)).where(
        table.batch_date < before, table.state.in_(_ENDED_STATES) | _is_stale(before)
    )
    with read_transaction(engine) as connection:
        rows = connection.execute(statement.order_by(table.batch_date, table.batch_id)).all()
    candidates = [PrunedRows(*row) for row in rows]
    return [batch for batch in candidates if batch.rows or batch.state == "running"]


def _count_rows_query(name: str) -> sa.ScalarSelect[int]:
    table, _ = _TABLES[name]
    return sa.select(sa.func.count()).where(table.c.batch_id == score_batches.c.batch_id).scalar_subquery()


def _is_stale(before: datetime.date) -> sa.ColumnElement[bool]:
    cutoff = datetime.datetime.combine(before, datetime.time(), datetime.UTC)
    later_chunk = sa.select(batch_chunks.c.chunk_number).where(
        batch_chunks.c.batch_id == score_batches.c.batch_id, batch_chunks.c.written_at >= cutoff
    )
    started_before = score_batches.c.started_at < cutoff
    return (score_batches.c.state == "running") & started_before & ~later_chunk.correlate(score_batches).exists()


def prune_batch(engine: Engine, batch: PrunedRows, before: datetime.date) -> PrunedRows:
    """Deletes the rows of a batch if retention allows it.

    A stale running batch is withdrawn first, so that no run writes to it any more.
    Each transaction deletes up to 10,000 rows, and checks first that the batch may still be deleted. If the process is
    killed in between, the call can simply be repeated.

    Args:
        engine: the database.
        batch: a result of `find_prunable_batches`.
        before: as for `find_prunable_batches`.

    Returns:
        The deleted rows; none if the batch was restored meanwhile.

    Raises:
        DatabaseError: the database reported an error, or the connection was lost.
    """
    run_with_retries(engine, partial(_withdraw_stale, batch_id=batch.batch_id, before=before))
    deleted = dict.fromkeys(_TABLES, 0)
    for name in _TABLES:
        count = _SLICE_ROWS
        while count == _SLICE_ROWS:
            count = run_with_retries(engine, partial(_delete_slice, batch_id=batch.batch_id, before=before, name=name))
            deleted[name] += count
    return PrunedRows(batch.batch_id, batch.batch_date, batch.state, **deleted)


def _withdraw_stale(connection: Connection, batch_id: int, before: datetime.date) -> None:
    is_stale = (score_batches.c.batch_id == batch_id) & (score_batches.c.batch_date < before) & _is_stale(before)
    values = {"state": "withdrawn", "ended_at": datetime.datetime.now(datetime.UTC)}
    connection.execute(sa.update(score_batches).where(is_stale).values(values))


def _delete_slice(connection: Connection, batch_id: int, before: datetime.date, name: str) -> int:
    deletable = sa.select(score_batches.c.batch_id).where(
        score_batches.c.batch_id == batch_id,
        score_batches.c.batch_date < before,
        score_batches.c.state.in_(_ENDED_STATES),
    )
    # The row stays locked until the commit: a concurrent restore waits, and then finds the batch incomplete.
    if connection.scalar(deletable.with_for_update()) is None:
        return 0
    table, key = _TABLES[name]
    rows = table.c.batch_id == batch_id
    last = connection.scalar(sa.select(key).where(rows).order_by(key).offset(_SLICE_ROWS - 1).limit(1))
    return connection.execute(sa.delete(table).where(rows if last is None else rows & (key <= last))).rowcount


def delete_dated_folders(artifacts: Path, before: datetime.date) -> list[Path]:
    """Deletes the snapshots and reports of old dates, and selections with messages of old dates; returns their folders.

    The model that was trained on a selection does not need it any more: a stage that is complete requires nothing.

    Args:
        artifacts: the folder that [artifacts] folder names.
        before: folders of this date and later ones are kept, as are folders not named after a date.
    """
    dated = [path for name in _DATED_FOLDERS if (artifacts / name).is_dir() for path in (artifacts / name).iterdir()]
    old = sorted(path for path in dated if path.is_dir() and (date := _parse_folder_date(path.name)) and date < before)
    selections = [path.parent for path in sorted((artifacts / _NIGHT_MESSAGES).glob("*/manifest.json"))]
    old += [path for path in selections if (date := _read_first_date(path)) and date < before]
    for path in old:
        shutil.rmtree(path)
    return old


def _read_first_date(selection: Path) -> datetime.date | None:
    """Returns the first date of a selection's messages; None if it has none."""
    batches = read_json(selection / MANIFEST)["batches"]
    return min((datetime.date.fromisoformat(batch["date"]) for batch in batches), default=None)


def _parse_folder_date(name: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(name) if len(name) == len("2026-01-31") else None
    except ValueError:
        return None
