"""Writes a batch exactly once: starts or resumes it, commits it chunk by chunk, publishes it in one transaction.

The rows of a chunk and its row in the ledger (`batch_chunks`) commit together, and the primary key of the ledger
rejects a chunk that is already committed. So a killed run resumes where it stopped, and a second writer, a retry or a
speculative copy cannot duplicate a row. All functions take an engine from `tasks.database.schema.open_database`.
Functions that only read are in `tasks.database.batches`.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from models.errors import DatabaseError
from tasks.database.batches import BATCH_COLUMNS, BatchRow, compare_counts, count_rows
from tasks.database.chunks import (
    ScoredChunk,
    add_checksums,
    format_checksum,
    parse_checksum,
)
from tasks.database.connection import read_transaction, run_with_retries
from tasks.database.tables import batch_chunks, rejected_messages, score_batches, spam_scores
from tasks.database.writer import Columns, insert_rows
from tasks.settings.masking import mask_password

_START_ATTEMPTS = 5

# Two runs of a date write the same batch if these are equal: their chunks then have the same messages and scores.
_SAME_BATCH = ("recipe", "model_name", "model_version", "snapshot", "chunk_size")


@dataclass(frozen=True)
class BatchPlan:
    """The description of a batch to be written.

    Attributes:
        batch_date: date of the messages.
        recipe: fingerprint of everything the scores depend on, up to 16 characters.
        model_name: name of the model.
        model_version: version in service.
        checkpoint: checkpoint of its weights, such as ``<training>/ckpt-72``; ends with `batches.OF_STEP` if they are
            the weights of the step at which the checkpoint was written.
        snapshot: path or fingerprint of the snapshot of the messages.
        threshold: probability from which a message is flagged.
        devices: the devices that compute the scores.
        chunk_size: messages per chunk.
        provisional: whether the date is not over.
    """

    batch_date: datetime.date
    recipe: str
    model_name: str
    model_version: int
    checkpoint: str
    snapshot: str
    threshold: float
    devices: str
    chunk_size: int
    provisional: bool = False


@dataclass(frozen=True)
class Batch:
    """A running batch that chunks can be committed to. `resumed` tells whether an earlier run started it."""

    batch_id: int
    resumed: bool


class _ChunkRows(NamedTuple):
    """The rows of a chunk in three tables."""

    ledger: dict[str, Any]
    scored: Columns
    rejected: Columns


def start_batch(engine: Engine, plan: BatchPlan) -> Batch:
    """Resumes the running batch of the date if it matches the plan; otherwise withdraws it and starts a new one.

    Processes that start the same batch at the same time get the same batch.

    Raises:
        DatabaseError: the database reported an error or the connection was lost, or other processes kept starting
            batches of this date.
    """
    for _ in range(_START_ATTEMPTS):
        try:
            return run_with_retries(engine, partial(_start_or_resume, plan=plan))
        except exc.IntegrityError:
            continue  # another process has started one meanwhile
    raise DatabaseError(
        f"{mask_password(engine.url)}: another process started a batch of {plan.batch_date}, {_START_ATTEMPTS} times "
        "in a row. Two runs with different settings compete for the date: stop one of them."
    )


def _start_or_resume(connection: Connection, plan: BatchPlan) -> Batch:
    running = connection.execute(
        sa.select(*BATCH_COLUMNS).where(score_batches.c.running_date == plan.batch_date).with_for_update()
    ).one_or_none()
    if running is not None:
        if all(getattr(running, name) == getattr(plan, name) for name in _SAME_BATCH):
            return Batch(running.batch_id, resumed=True)
        _set_state(connection, running.batch_id, "withdrawn", ended_at=_now())
    values = {**dataclasses.asdict(plan), "state": "running", "started_at": _now()}
    created = connection.execute(sa.insert(score_batches).values(values)).inserted_primary_key
    return Batch(cast("Any", created).batch_id, resumed=False)


def find_committed_chunks(engine: Engine, batch_id: int) -> set[int]:
    """Returns the numbers of the committed chunks of a batch."""
    with read_transaction(engine) as connection:
        return set(
            connection.scalars(sa.select(batch_chunks.c.chunk_number).where(batch_chunks.c.batch_id == batch_id))
        )


def commit_chunk(engine: Engine, batch_id: int, chunk: ScoredChunk) -> bool:
    """Writes a chunk in one transaction: its row in the ledger, its scores, its rejected messages.

    Returns:
        True if this call wrote the chunk; False if it was committed already, and nothing was written.

    Raises:
        DatabaseError: the batch is no longer running, the database reported an error, or the connection was lost.
        sqlalchemy.exc.IntegrityError: a row violates a constraint: its identifier or its row number is already in the
            batch.
    """
    # The rows are built before the transaction, which holds a lock that others may wait for.
    rows = _ChunkRows(_ledger_row(batch_id, chunk), chunk.score_columns(batch_id), chunk.rejected_columns(batch_id))
    try:
        return run_with_retries(engine, partial(_write_chunk, rows=rows))
    except exc.IntegrityError:
        if chunk.chunk_number in find_committed_chunks(engine, batch_id):
            return False
        raise


def _write_chunk(connection: Connection, rows: _ChunkRows) -> bool:
    batch_id, chunk_number = rows.ledger["batch_id"], rows.ledger["chunk_number"]
    batch = _lock_batch_shared(connection, batch_id)
    if batch is None or batch.state != "running":
        if _has_chunk(connection, batch_id, chunk_number):
            return False  # a late copy of a committed chunk
        rule = f"chunk {chunk_number} can only be added to a running batch"
        raise _state_error(connection.engine, batch_id, batch, rule)
    # The ledger row comes first: of two writers of a chunk, one waits here, and fails before it has written anything.
    connection.execute(sa.insert(batch_chunks).values(rows.ledger))
    insert_rows(connection, spam_scores, rows.scored)
    insert_rows(connection, rejected_messages, rows.rejected)
    return True


def _lock_batch_shared(connection: Connection, batch_id: int) -> Any:
    """Returns state and date of a batch and locks them until the transaction ends. Other chunks can still commit."""
    statement = sa.select(score_batches.c.state, score_batches.c.batch_date).where(score_batches.c.batch_id == batch_id)
    return connection.execute(statement.with_for_update(read=True)).one_or_none()


def _has_chunk(connection: Connection, batch_id: int, chunk_number: int) -> bool:
    key = (batch_chunks.c.batch_id == batch_id) & (batch_chunks.c.chunk_number == chunk_number)
    return connection.scalar(sa.select(batch_chunks.c.chunk_number).where(key)) is not None


def _state_error(engine: Engine, batch_id: int, batch: Any, rule: str) -> DatabaseError:
    state = "missing" if batch is None else f"{batch.state} (of {batch.batch_date})"
    return DatabaseError(
        f"{mask_password(engine.url)}: batch {batch_id} is {state}: {rule}. "
        "Another run replaced it or a person withdrew it: run the date again."
    )


def _ledger_row(batch_id: int, chunk: ScoredChunk) -> dict[str, Any]:
    return {
        "batch_id": batch_id,
        "chunk_number": chunk.chunk_number,
        "first_row": chunk.first_row,
        "messages_read": chunk.messages_read,
        "scored": len(chunk.message_ids),
        "rejected": len(chunk.rejected),
        "flagged": int(chunk.flagged.sum()),
        "checksum": format_checksum(chunk.checksum()),
        "seconds": chunk.seconds,
        "written_at": _now(),
    }


def publish_batch(
    engine: Engine, batch_id: int, expected_rows: int, before_commit: Callable[[BatchRow], None] = lambda _: None
) -> BatchRow:
    """Publishes a complete batch for readers, and supersedes the one published before, in one transaction.

    A batch that is already published stays unchanged.

    Args:
        engine: the database.
        batch_id: a running batch.
        expected_rows: messages in the snapshot.
        before_commit: called before the commit with the batch as it will be published, so that even a killed process
            leaves no published batch without what this callback writes. Called again if the transaction is retried.

    Raises:
        DatabaseError: ledger, rows and expected messages do not agree; the batch was withdrawn or superseded; the
            database reported an error; or the connection was lost.
    """
    date = _read_batch_date(engine, batch_id)

    def publish(connection: Connection) -> None:
        batch = _lock_batches_of_date(connection, date)[batch_id]
        if batch.state == "published":
            return
        if batch.state != "running":
            raise _state_error(engine, batch_id, batch, "only a running batch can be published")
        counts = _ledger_counts(connection, batch_id)
        _require_complete(engine, batch, counts, count_rows(connection, batch_id), expected_rows)
        _mark_published(connection, date, batch_id, **counts, published_at=_now())
        before_commit(_read_row(connection, batch_id))

    run_with_retries(engine, publish)
    return _read_batch(engine, batch_id)


def withdraw_batch(engine: Engine, batch_id: int) -> BatchRow:
    """Withdraws a running or published batch: its rows stay but are hidden from readers; its date can be run again.

    Raises:
        DatabaseError: the batch is superseded, or does not exist.
    """
    date = _read_batch_date(engine, batch_id)

    def withdraw(connection: Connection) -> None:
        batch = _lock_batches_of_date(connection, date)[batch_id]
        if batch.state == "superseded":
            raise _state_error(engine, batch_id, batch, "only a running or published batch can be withdrawn")
        if batch.state != "withdrawn":
            _set_state(connection, batch_id, "withdrawn", ended_at=_now())

    run_with_retries(engine, withdraw)
    return _read_batch(engine, batch_id)


def restore_batch(engine: Engine, batch_id: int) -> BatchRow:
    """Publishes a superseded or withdrawn batch again, and supersedes the one that is published now.

    Raises:
        DatabaseError: the batch was never published, has lost rows, or does not exist.
    """
    date = _read_batch_date(engine, batch_id)

    def restore(connection: Connection) -> None:
        batch = _lock_batches_of_date(connection, date)[batch_id]
        if batch.published_at is None:
            raise _state_error(engine, batch_id, batch, "only a batch that was published once can be restored")
        if batch.state == "published":
            return
        _require_intact_rows(engine, batch, count_rows(connection, batch_id))
        _mark_published(connection, date, batch_id)

    run_with_retries(engine, restore)
    return _read_batch(engine, batch_id)


def _require_intact_rows(engine: Engine, batch: Any, rows: dict[str, int]) -> None:
    differences = [str(comparison) for comparison in compare_counts(batch, rows) if not comparison.agrees]
    if differences:
        raise DatabaseError(
            f"{mask_password(engine.url)}: batch {batch.batch_id} of {batch.batch_date} is incomplete and stays "
            f"{batch.state}: {'; '.join(differences)}. Its rows were pruned or deleted: restore another batch of the "
            "date, or score the date again."
        )


def _mark_published(connection: Connection, date: datetime.date, batch_id: int, **values: Any) -> None:
    connection.execute(
        sa.update(score_batches)
        .where(score_batches.c.published_date == date)
        .values(state="superseded", ended_at=_now())
    )
    _set_state(connection, batch_id, "published", ended_at=None, **values)


def _set_state(connection: Connection, batch_id: int, state: str, **values: Any) -> None:
    connection.execute(
        sa.update(score_batches).where(score_batches.c.batch_id == batch_id).values(state=state, **values)
    )


def _read_batch_date(engine: Engine, batch_id: int) -> datetime.date:
    # In a separate transaction: MySQL takes its snapshot at the first plain read, so `_lock_batches_of_date` must come
    # first in its transaction.
    with read_transaction(engine) as connection:
        date = connection.scalar(sa.select(score_batches.c.batch_date).where(score_batches.c.batch_id == batch_id))
    if date is None:
        raise _state_error(engine, batch_id, None, "expected the number of an existing batch")
    return cast("datetime.date", date)


def _lock_batches_of_date(connection: Connection, date: datetime.date) -> dict[int, Any]:
    """Returns the batches of a date by number. Until the transaction ends, no other can change them or add chunks."""
    rows = connection.execute(
        sa.select(*BATCH_COLUMNS)
        .where(score_batches.c.batch_date == date)
        .order_by(score_batches.c.batch_id)
        .with_for_update()
    )
    return {row.batch_id: row for row in rows}


def _ledger_counts(connection: Connection, batch_id: int) -> dict[str, Any]:
    columns = [batch_chunks.c[name] for name in ("messages_read", "scored", "rejected", "flagged")]
    rows = connection.execute(
        sa.select(*columns, batch_chunks.c.checksum).where(batch_chunks.c.batch_id == batch_id)
    ).all()
    counts: dict[str, Any] = {column.name: sum(row[index] for row in rows) for index, column in enumerate(columns)}
    return {**counts, "checksum": format_checksum(add_checksums(parse_checksum(row.checksum) for row in rows))}


def _require_complete(
    engine: Engine, batch: Any, ledger: dict[str, Any], tables: dict[str, int], expected_rows: int
) -> None:
    pairs = {"messages": (expected_rows, ledger["messages_read"])}
    pairs |= {f"rows {name}": (ledger[name], count) for name, count in tables.items()}
    differences = [
        f"{name}: expected {expected}, found {found}" for name, (expected, found) in pairs.items() if expected != found
    ]
    if differences:
        raise DatabaseError(
            f"{mask_password(engine.url)}: batch {batch.batch_id} of {batch.batch_date} is incomplete and stays "
            f"unpublished: {'; '.join(differences)}. Run the date again; if the error stays, withdraw the batch and "
            "run once more."
        )


def record_times(
    engine: Engine,
    batch_id: int,
    total: float | None = None,
    read: float | None = None,
    text: float | None = None,
    network: float | None = None,
    write: float | None = None,
    wait: float | None = None,
    processor: float | None = None,
) -> None:
    """Stores the duration of a batch, of its stages, and the processor time of all its threads, in seconds.

    Stages overlap, so their durations add up to more than the total. A value of None leaves the stored one unchanged.
    """
    durations = {
        "total": total, "read": read, "text": text, "network": network, "write": write, "wait": wait,
        "processor": processor,
    }  # fmt: skip
    values = {f"seconds_{name}": seconds for name, seconds in durations.items() if seconds is not None}
    if values:
        statement = sa.update(score_batches).where(score_batches.c.batch_id == batch_id).values(values)
        run_with_retries(engine, lambda connection: connection.execute(statement))


def _read_batch(engine: Engine, batch_id: int) -> BatchRow:
    with read_transaction(engine) as connection:
        return _read_row(connection, batch_id)


def _read_row(connection: Connection, batch_id: int) -> BatchRow:
    statement = sa.select(*BATCH_COLUMNS).where(score_batches.c.batch_id == batch_id)
    return BatchRow(*connection.execute(statement).one())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
