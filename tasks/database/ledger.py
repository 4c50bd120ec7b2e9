"""How a batch is written once: begun or taken up again, committed chunk by chunk, published in one transaction.

A chunk's rows and its row in the ledger (`batch_chunks`) commit together, and the ledger's key refuses a chunk that is
there: a killed run goes on where it stopped, and a second writer, a retry or a speculative copy cannot double a row.
All take an engine from `tasks.database.connection.open_database`. Who only asks finds the functions in
`tasks.database.batches`.
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
from tasks.database.connection import mask_password, read_transaction, run_with_retries
from tasks.database.tables import batch_chunks, rejected_messages, score_batches, spam_scores
from tasks.database.writer import Columns, insert_rows

_LOOKUP = 1_000  # identifiers in one query
_BEGIN_ATTEMPTS = 5

# What makes two runs of a date the same batch: their chunks hold the same messages and the same scores.
_SAME_BATCH = ("recipe", "model_name", "model_version", "snapshot", "chunk_size")


@dataclass(frozen=True)
class BatchPlan:
    """What a batch is going to be.

    Attributes:
        batch_date: the date whose messages are scored.
        recipe: fingerprint of all that the scores are made of, up to 16 characters.
        model_name: name of the model.
        model_version: version in service.
        checkpoint: the checkpoint its weights are from.
        snapshot: path or fingerprint of the messages as they were read.
        threshold: probability from which a message is flagged.
        devices: what computes.
        chunk_size: messages a chunk.
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


@dataclass(frozen=True)
class Batch:
    """A batch that may be written to; `resumed` if an earlier run began it."""

    batch_id: int
    resumed: bool


class _ChunkRows(NamedTuple):
    """What a chunk is in three tables."""

    ledger: dict[str, Any]
    scored: Columns
    rejected: Columns


def start_batch(engine: Engine, plan: BatchPlan) -> Batch:
    """Takes up the date's running batch if it is the one planned, else withdraws it and begins a new one.

    Processes that begin the same batch at once are given the same one.

    Raises:
        DatabaseError: the database refused or was lost, or others kept beginning batches of this date.
    """
    for _ in range(_BEGIN_ATTEMPTS):
        try:
            return run_with_retries(engine, partial(_begin, plan=plan))
        except exc.IntegrityError:
            continue  # another process has begun one since we looked
    raise DatabaseError(
        f"{mask_password(engine.url)}: {plan.batch_date} got another running batch {_BEGIN_ATTEMPTS} times meanwhile. "
        "Two runs with different settings compete for the date: end one of them."
    )


def _begin(connection: Connection, plan: BatchPlan) -> Batch:
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
    """Numbers of the chunks that are committed."""
    with read_transaction(engine) as connection:
        return set(
            connection.scalars(sa.select(batch_chunks.c.chunk_number).where(batch_chunks.c.batch_id == batch_id))
        )


def commit_chunk(engine: Engine, batch_id: int, chunk: ScoredChunk) -> bool:
    """Writes a chunk in one transaction: its row in the ledger, its scores, its refused messages.

    A message whose identifier the batch has already is refused: of a chunk's own the earliest row keeps its score, and
    of several chunks the one that commits first.

    Returns:
        True if this call wrote it; False if it was there, and nothing was written.

    Raises:
        DatabaseError: the batch is not running any more, or the database refused or was lost.
        sqlalchemy.exc.IntegrityError: a row broke another rule: two refused messages with one row number, for example.
    """
    chunk = chunk.with_sound_ids()
    while True:
        # Made before the transaction, which holds a lock that others may wait for.
        rows = _ChunkRows(_ledger_row(batch_id, chunk), chunk.score_columns(batch_id), chunk.rejected_columns(batch_id))
        try:
            return run_with_retries(engine, partial(_write_chunk, rows=rows))
        except exc.IntegrityError as error:
            if chunk.chunk_number in find_committed_chunks(engine, batch_id):
                return False
            chunk = chunk.without(chunk.known(_ids_there(engine, batch_id, chunk.message_ids, error)))


def _write_chunk(connection: Connection, rows: _ChunkRows) -> bool:
    batch_id, chunk_number = rows.ledger["batch_id"], rows.ledger["chunk_number"]
    batch = _held(connection, batch_id)
    if batch is None or batch.state != "running":
        if _has_chunk(connection, batch_id, chunk_number):
            return False  # a copy that comes late
        rule = f"chunk {chunk_number} can only be added to a running batch"
        raise _refused(connection.engine, batch_id, batch, rule)
    # The ledger first: of two writers of a chunk, one waits here and is refused before it has written anything.
    connection.execute(sa.insert(batch_chunks).values(rows.ledger))
    insert_rows(connection, spam_scores, rows.scored)
    insert_rows(connection, rejected_messages, rows.rejected)
    return True


def _held(connection: Connection, batch_id: int) -> Any:
    """The batch's state and date, kept so until the transaction ends. Other chunks may be committed meanwhile."""
    wanted = sa.select(score_batches.c.state, score_batches.c.batch_date).where(score_batches.c.batch_id == batch_id)
    return connection.execute(wanted.with_for_update(read=True)).one_or_none()


def _has_chunk(connection: Connection, batch_id: int, chunk_number: int) -> bool:
    key = (batch_chunks.c.batch_id == batch_id) & (batch_chunks.c.chunk_number == chunk_number)
    return connection.scalar(sa.select(batch_chunks.c.chunk_number).where(key)) is not None


def _refused(engine: Engine, batch_id: int, batch: Any, rule: str) -> DatabaseError:
    found = "not there" if batch is None else f"{batch.state} (of {batch.batch_date})"
    return DatabaseError(
        f"{mask_password(engine.url)}: batch {batch_id} is {found}: {rule}. "
        "Another run took its place or a person withdrew it; run the date again."
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


def _ids_there(engine: Engine, batch_id: int, message_ids: list[str], error: exc.IntegrityError) -> set[str]:
    """Those of some identifiers that the batch has. If it has none, they were not what the error was about."""
    found: set[str] = set()
    with read_transaction(engine) as connection:
        for start in range(0, len(message_ids), _LOOKUP):
            some = spam_scores.c.message_id.in_(message_ids[start : start + _LOOKUP])
            found.update(
                connection.scalars(sa.select(spam_scores.c.message_id).where(spam_scores.c.batch_id == batch_id, some))
            )
    if not found:
        raise error
    return found


def publish_batch(
    engine: Engine, batch_id: int, expected_rows: int, receipt: Callable[[BatchRow], None] = lambda _: None
) -> BatchRow:
    """Makes a batch the one that readers see, in one transaction, once it is whole. The one before is superseded.

    A batch that is published is left as it is.

    Args:
        engine: the database.
        batch_id: a running batch.
        expected_rows: messages in the snapshot.
        receipt: takes the batch as it is about to be published, before the commit, so that a kill leaves no published
            batch without what this writes; called again when the transaction is done again.

    Raises:
        DatabaseError: its ledger, its rows and the messages expected do not agree; it was withdrawn or superseded; or
            the database refused or was lost.
    """
    date = _date_of(engine, batch_id)

    def publish(connection: Connection) -> None:
        batch = _locked(connection, date)[batch_id]
        if batch.state == "published":
            return
        if batch.state != "running":
            raise _refused(engine, batch_id, batch, "only a running batch can be published")
        counts = _ledger_counts(connection, batch_id)
        _reconcile(engine, batch, counts, count_rows(connection, batch_id), expected_rows)
        _put_in_service(connection, date, batch_id, **counts, published_at=_now())
        receipt(_read_row(connection, batch_id))

    run_with_retries(engine, publish)
    return _row_of(engine, batch_id)


def withdraw_batch(engine: Engine, batch_id: int) -> BatchRow:
    """Takes a running or published batch out: its rows stay, readers see none of them, and its date can be run again.

    Raises:
        DatabaseError: it is superseded, or is not there.
    """
    date = _date_of(engine, batch_id)

    def withdraw(connection: Connection) -> None:
        batch = _locked(connection, date)[batch_id]
        if batch.state == "superseded":
            raise _refused(engine, batch_id, batch, "only a running or published batch can be withdrawn")
        if batch.state != "withdrawn":
            _set_state(connection, batch_id, "withdrawn", ended_at=_now())

    run_with_retries(engine, withdraw)
    return _row_of(engine, batch_id)


def restore_batch(engine: Engine, batch_id: int) -> BatchRow:
    """Makes a superseded or withdrawn batch the published one again; the one in its place is superseded.

    Raises:
        DatabaseError: it was never published, has not all its rows any more, or is not there.
    """
    date = _date_of(engine, batch_id)

    def restore(connection: Connection) -> None:
        batch = _locked(connection, date)[batch_id]
        if batch.published_at is None:
            raise _refused(engine, batch_id, batch, "only a batch that was published once can be restored")
        if batch.state == "published":
            return
        _require_whole(engine, batch, count_rows(connection, batch_id))
        _put_in_service(connection, date, batch_id)

    run_with_retries(engine, restore)
    return _row_of(engine, batch_id)


def _require_whole(engine: Engine, batch: Any, rows: dict[str, int]) -> None:
    wrong = [str(one) for one in compare_counts(batch, rows) if not one.agrees]
    if wrong:
        raise DatabaseError(
            f"{mask_password(engine.url)}: batch {batch.batch_id} of {batch.batch_date} is not whole any more and stays "
            f"{batch.state}: {'; '.join(wrong)}. Its rows were pruned or deleted: restore another batch of the date, "
            "or score it again."
        )


def _put_in_service(connection: Connection, date: datetime.date, batch_id: int, **values: Any) -> None:
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


def _date_of(engine: Engine, batch_id: int) -> datetime.date:
    # In a transaction of its own: MySQL shows one what there was at its first plain read, and `_locked` must be first.
    with read_transaction(engine) as connection:
        date = connection.scalar(sa.select(score_batches.c.batch_date).where(score_batches.c.batch_id == batch_id))
    if date is None:
        raise _refused(engine, batch_id, None, "expected the number of a batch")
    return cast("datetime.date", date)


def _locked(connection: Connection, date: datetime.date) -> dict[int, Any]:
    """The batches of a date by number, held until the transaction ends: no other can change them, no chunk be added."""
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
    counts: dict[str, Any] = {column.name: sum(row[place] for row in rows) for place, column in enumerate(columns)}
    return {**counts, "checksum": format_checksum(add_checksums(parse_checksum(row.checksum) for row in rows))}


def _reconcile(engine: Engine, batch: Any, ledger: dict[str, Any], tables: dict[str, int], expected_rows: int) -> None:
    pairs = {"messages": (expected_rows, ledger["messages_read"])}
    pairs |= {f"rows {name}": (ledger[name], there) for name, there in tables.items()}
    wrong = [
        f"{name}: expected {expected}, found {found}" for name, (expected, found) in pairs.items() if expected != found
    ]
    if wrong:
        raise DatabaseError(
            f"{mask_password(engine.url)}: batch {batch.batch_id} of {batch.batch_date} is not whole and stays unpublished: "
            f"{'; '.join(wrong)}. Run the date again; if it says the same, withdraw the batch and run once more."
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
    """Notes the seconds that a batch took, those of its stages, and those of all its threads on processors.

    Stages overlap, so theirs add up to more than the total. What is None stays as it was.
    """
    given = {
        "total": total, "read": read, "text": text, "network": network, "write": write, "wait": wait,
        "processor": processor,
    }  # fmt: skip
    values = {f"seconds_{name}": seconds for name, seconds in given.items() if seconds is not None}
    if values:
        statement = sa.update(score_batches).where(score_batches.c.batch_id == batch_id).values(values)
        run_with_retries(engine, lambda connection: connection.execute(statement))


def _row_of(engine: Engine, batch_id: int) -> BatchRow:
    with read_transaction(engine) as connection:
        return _read_row(connection, batch_id)


def _read_row(connection: Connection, batch_id: int) -> BatchRow:
    wanted = sa.select(*BATCH_COLUMNS).where(score_batches.c.batch_id == batch_id)
    return BatchRow(*connection.execute(wanted).one())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
