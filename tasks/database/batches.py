"""Reads batches: which exist, which is published, its scores and rejected messages, and whether its rows are intact.

Every function except the streams runs one query. In a database without tables they find nothing and create nothing.
`tasks.database.ledger` changes batches.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from tasks.database.chunks import RejectedMessage, add_checksums, checksum_rows, format_checksum
from tasks.database.completion import select_completed_dates
from tasks.database.connection import read_transaction
from tasks.database.migrations import SCHEMA_REVISION
from tasks.database.schema import UNREADABLE, has_schema, read_revision
from tasks.database.tables import batch_chunks, published_scores, rejected_messages, score_batches, spam_scores
from tasks.rejection_limit import Reason

# The column `checkpoint` ends with this if the weights are those of the step at which the checkpoint was written.
OF_STEP = " (weights of its step)"
_FETCH_SIZE = 10_000  # rows fetched at a time
_CURRENT = (SCHEMA_REVISION, UNREADABLE)


@dataclass(frozen=True)
class BatchRow:
    """A row of `score_batches`. Times are in UTC; counts are None until the batch is published.

    `checkpoint` is the training and checkpoint of the weights, such as ``<training>/ckpt-72``. `state` is running,
    published, superseded or withdrawn. `ended_at` is the time it was superseded or withdrawn. A `provisional` batch was
    scored before its date was over.
    """

    batch_id: int
    batch_date: datetime.date
    state: str
    model_name: str
    model_version: int
    checkpoint: str
    recipe: str
    snapshot: str
    threshold: float
    devices: str
    chunk_size: int
    messages_read: int | None
    scored: int | None
    rejected: int | None
    flagged: int | None
    checksum: str | None
    started_at: datetime.datetime
    published_at: datetime.datetime | None
    ended_at: datetime.datetime | None
    seconds_total: float | None
    seconds_text: float | None
    seconds_network: float | None
    seconds_write: float | None
    seconds_read: float | None
    seconds_wait: float | None
    seconds_processor: float | None
    provisional: bool

    @property
    def chosen_checkpoint(self) -> str | None:
        """The checkpoint that a person chose with --checkpoint; None if the model version itself scored the batch."""
        if not self.checkpoint.endswith(OF_STEP):
            return None
        return self.checkpoint.removesuffix(OF_STEP).rpartition("/")[2]


class ScoreRow(NamedTuple):
    """A row of the view `published_scores`."""

    batch_date: datetime.date
    message_id: str
    spam_probability: float
    flagged: bool
    model_version: int
    batch_id: int
    scored_at: datetime.datetime


@dataclass(frozen=True)
class Comparison:
    """A value of a batch in `score_batches`, and the same value computed from its rows."""

    name: str
    expected: int | str
    found: int | str

    @property
    def agrees(self) -> bool:
        """Whether the two values are equal."""
        return self.expected == self.found

    def __str__(self) -> str:
        return f"{self.name}: expected {self.expected}, found {self.found}"


# The columns of a BatchRow, in the order of its fields.
BATCH_COLUMNS = [score_batches.c[field.name] for field in dataclasses.fields(BatchRow)]


def find_batch(engine: Engine, batch_id: int) -> BatchRow | None:
    """Returns the batch with a number, or None."""
    rows = _select_batches(engine, sa.select(*BATCH_COLUMNS).where(score_batches.c.batch_id == batch_id))
    return rows[0] if rows else None


def count_committed(engine: Engine, batch_id: int) -> tuple[int, int]:
    """Returns how many messages the committed chunks of a batch have: all, and the rejected ones."""
    columns = (batch_chunks.c.messages_read, batch_chunks.c.rejected)
    sums = [sa.func.coalesce(sa.func.sum(column), 0) for column in columns]
    with read_transaction(engine) as connection:
        row = connection.execute(sa.select(*sums).where(batch_chunks.c.batch_id == batch_id)).one()
    return int(row[0]), int(row[1])


def find_published_batch(engine: Engine, date: datetime.date) -> BatchRow | None:
    """Returns the published batch of a date, or None."""
    rows = _select_batches(engine, sa.select(*BATCH_COLUMNS).where(score_batches.c.published_date == date))
    return rows[0] if rows else None


def find_latest_published_batch(
    engine: Engine, before: datetime.date | None = None, final: bool = False
) -> BatchRow | None:
    """Returns the published batch of the latest date, or None.

    Args:
        engine: the database.
        before: consider only earlier dates.
        final: leave out provisional batches.
    """
    statement = sa.select(*BATCH_COLUMNS).where(score_batches.c.published_date.is_not(None))
    if before is not None:
        statement = statement.where(score_batches.c.published_date < before)
    rows = _select_batches(engine, statement.order_by(score_batches.c.published_date.desc()).limit(1), final)
    return rows[0] if rows else None


def list_batches(engine: Engine, limit: int = 50) -> list[BatchRow]:
    """Returns up to `limit` batches, those of the latest date first."""
    order = (score_batches.c.batch_date.desc(), score_batches.c.batch_id.desc())
    return _select_batches(engine, sa.select(*BATCH_COLUMNS).order_by(*order).limit(limit))


def list_batches_of_date(engine: Engine, date: datetime.date) -> list[BatchRow]:
    """Returns all batches of a date, the newest first."""
    order = score_batches.c.batch_id.desc()
    return _select_batches(engine, sa.select(*BATCH_COLUMNS).where(score_batches.c.batch_date == date).order_by(order))


def list_batches_between(engine: Engine, first: datetime.date, last: datetime.date) -> list[BatchRow]:
    """Returns all batches of the dates from `first` to `last`, the earliest date and the first batch first."""
    table = score_batches.c
    statement = sa.select(*BATCH_COLUMNS).where(table.batch_date.between(first, last))
    return _select_batches(engine, statement.order_by(table.batch_date, table.batch_id))


def find_completed_dates(
    engine: Engine, recipes: Mapping[datetime.date, str], exactly: bool = False
) -> set[datetime.date]:
    """Returns the dates whose scores by a recipe are published, in one query.

    A date also counts if a batch of its recipe was published and a person then went back to another batch.

    Args:
        engine: the database.
        recipes: recipe of each date.
        exactly: whether the published batch must be the one of the recipe.
    """
    if not has_schema(engine):
        return set()
    columns = (score_batches.c.batch_date, score_batches.c.recipe, score_batches.c.state)
    statement = sa.select(*columns).where(
        score_batches.c.batch_date.in_(list(recipes)), score_batches.c.state.in_(("published", "superseded"))
    )
    with read_transaction(engine) as connection:
        rows = connection.execute(statement).all()
    return select_completed_dates(((row.batch_date, row.recipe, row.state) for row in rows), recipes, exactly)


def find_never_published_dates(engine: Engine, dates: Sequence[datetime.date]) -> list[datetime.date]:
    """Returns the dates of which no batch was ever published, except provisional ones, in one query.

    A batch that was withdrawn later counts as published.
    """
    if not has_schema(engine):
        return list(dates)
    was_published = score_batches.c.published_at.is_not(None)
    statement = sa.select(score_batches.c.batch_date).where(
        score_batches.c.batch_date.in_(dates), was_published, is_final(engine)
    )
    with read_transaction(engine) as connection:
        once_published = set(connection.scalars(statement))
    return [date for date in dates if date not in once_published]


def find_published_dates(engine: Engine, dates: Iterable[datetime.date]) -> set[datetime.date]:
    """Returns the dates that have a published batch, in one query."""
    if not has_schema(engine):
        return set()
    statement = sa.select(score_batches.c.published_date).where(score_batches.c.published_date.in_(list(dates)))
    with read_transaction(engine) as connection:
        return set(connection.scalars(statement))


def find_published_snapshots(engine: Engine, dates: Iterable[datetime.date]) -> dict[datetime.date, tuple[int, str]]:
    """Returns the number and the snapshot of the published batch of each date that has one, in one query."""
    table = score_batches.c
    statement = sa.select(table.published_date, table.batch_id, table.snapshot)
    if not has_schema(engine):
        return {}
    with read_transaction(engine) as connection:
        rows = connection.execute(statement.where(table.published_date.in_(list(dates)))).all()
    return {date: (batch_id, snapshot) for date, batch_id, snapshot in rows}


def stream_scores(
    engine: Engine,
    date: datetime.date,
    flagged_only: bool = False,
    limit: int | None = None,
    order: Literal["probability", "message_id"] = "probability",
) -> Iterator[ScoreRow]:
    """Streams the published scores of a date: memory does not grow with their number.

    Args:
        engine: the database.
        date: date of the batch.
        flagged_only: leave out scores below the threshold.
        limit: maximum number of rows; None for all.
        order: ``probability``, the highest first, or ``message_id``.
    """
    if not has_schema(engine):
        return
    view = published_scores.c
    order_columns = (view.spam_probability.desc(), view.message_id) if order == "probability" else (view.message_id,)
    statement = sa.select(published_scores).where(view.batch_date == date).order_by(*order_columns).limit(limit)
    for row in _stream_rows(engine, statement.where(view.flagged) if flagged_only else statement):
        yield ScoreRow(*row)


def stream_rejections(engine: Engine, batch_id: int) -> Iterator[RejectedMessage]:
    """Streams the rejected messages of a batch, in the order of their rows."""
    table = rejected_messages.c
    columns = (table.row_number, table.message_id, table.reason, table.detail)
    for row in _stream_rows(engine, sa.select(*columns).where(table.batch_id == batch_id).order_by(table.row_number)):
        yield RejectedMessage(*row)


def read_rejection_reasons(engine: Engine, batch_id: int) -> list[Reason]:
    """Returns why messages of a batch were rejected, the most frequent reason first."""
    table = rejected_messages.c
    counted = (
        sa.select(table.reason, sa.func.count().label("rows"), sa.func.min(table.row_number).label("first_row"))
        .where(table.batch_id == batch_id)
        .group_by(table.reason)
        .subquery()
    )
    statement = (
        sa.select(counted.c.reason, counted.c.rows, counted.c.first_row, table.detail)
        .join(rejected_messages, (table.batch_id == batch_id) & (table.row_number == counted.c.first_row))
        .order_by(counted.c.rows.desc(), counted.c.reason)
    )
    with read_transaction(engine) as connection:
        return [Reason(*row) for row in connection.execute(statement)]


def was_published(engine: Engine, date: datetime.date, snapshot: str) -> bool:
    """Returns whether a batch of this snapshot is published or was published before."""
    table = score_batches.c
    statement = sa.select(table.batch_id).where(
        table.batch_date == date, table.snapshot == snapshot, table.published_at.is_not(None)
    )
    with read_transaction(engine) as connection:
        return connection.scalars(statement.limit(1)).first() is not None


def compare_rows(engine: Engine, batch: BatchRow) -> list[Comparison]:
    """Compares checksum and counts of a batch in `score_batches` with its current rows. It must have been published."""
    with read_transaction(engine) as connection:
        counts = compare_counts(batch, count_rows(connection, batch.batch_id))
    return [Comparison("checksum", str(batch.checksum), recompute_checksum(engine, batch.batch_id)), *counts]


def compare_counts(batch: Any, rows: Mapping[str, int]) -> list[Comparison]:
    """Compares the counts of a batch in `score_batches` with the counts of its rows.

    Args:
        batch: a BatchRow, or a row with its columns, of a batch that was published at some time.
        rows: the result of `count_rows`.
    """
    counts = {**rows, "messages_read": rows["scored"] + rows["rejected"]}
    return [Comparison(name, getattr(batch, name), count) for name, count in counts.items()]


def count_rows(connection: Connection, batch_id: int) -> dict[str, int]:
    """Counts the rows of a batch in the tables: scored, rejected, flagged."""
    flags = sa.func.coalesce(sa.func.sum(sa.case((spam_scores.c.flagged, 1), else_=0)), 0)
    scored, flagged = connection.execute(
        sa.select(sa.func.count(), flags).select_from(spam_scores).where(spam_scores.c.batch_id == batch_id)
    ).one()
    rejected = connection.scalar(
        sa.select(sa.func.count()).select_from(rejected_messages).where(rejected_messages.c.batch_id == batch_id)
    )
    return {"scored": scored, "rejected": int(rejected or 0), "flagged": int(flagged)}


def recompute_checksum(engine: Engine, batch_id: int) -> str:
    """Computes the checksum of the current rows of a batch, to compare with the published one. Rows are streamed."""
    table = spam_scores.c
    statement = sa.select(table.message_id, table.spam_probability, table.flagged).where(table.batch_id == batch_id)
    with (
        read_transaction(engine) as connection,
        connection.execution_options(yield_per=_FETCH_SIZE).execute(statement) as result,
    ):
        return format_checksum(add_checksums(_checksum_partition(rows) for rows in result.partitions()))


def _checksum_partition(rows: Iterable[Any]) -> int:
    import numpy as np

    message_ids, probabilities, flags = zip(*rows, strict=True)
    return checksum_rows(message_ids, np.array(probabilities), np.array(flags, dtype=bool))


def _stream_rows(engine: Engine, statement: sa.Select[Any]) -> Iterator[Any]:
    # The result is closed explicitly: on PostgreSQL it is a server-side cursor, which otherwise stays open when the
    # caller stops early.
    with (
        read_transaction(engine) as connection,
        connection.execution_options(yield_per=_FETCH_SIZE).execute(statement) as result,
    ):
        yield from result


def _select_batches(engine: Engine, statement: sa.Select[Any], final: bool = False) -> list[BatchRow]:
    revision = read_revision(engine)
    if revision is None:
        return []
    if final:
        statement = statement.where(is_final(engine))
    with read_transaction(engine) as connection:
        columns = list(BATCH_COLUMNS) if revision in _CURRENT else _existing_columns(connection)
        return [BatchRow(*row) for row in connection.execute(statement.with_only_columns(*columns))]


def _existing_columns(connection: Connection) -> list[sa.ColumnElement[Any]]:
    """Returns the columns of a BatchRow, with null or false for those that an older, not yet migrated schema lacks."""
    existing = {column["name"] for column in sa.inspect(connection).get_columns(score_batches.name)}
    return [
        column if column.name in existing else (sa.null() if column.nullable else sa.false()).label(column.name)
        for column in BATCH_COLUMNS
    ]


def is_final(engine: Engine) -> sa.ColumnElement[bool]:
    """Returns the condition that a batch is not provisional. In an older, not yet migrated schema, all are final."""
    return ~score_batches.c.provisional if read_revision(engine) in _CURRENT else sa.true()
