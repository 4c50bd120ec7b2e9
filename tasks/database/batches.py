"""What readers ask of the batches: which there are, which is published, its scores, what was refused, whether its rows
are still those that were published.

All but the streams answer in one query. On a database that has no tables yet, there is nothing, and nothing is made.
What changes a batch is `tasks.database.ledger`'s.
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
from tasks.database.schema import has_schema, schema_revision
from tasks.database.tables import published_scores, rejected_messages, score_batches, spam_scores

_FETCH = 10_000  # rows asked for at a time


@dataclass(frozen=True)
class BatchRow:
    """A batch as the database has it; times are UTC, counts are None until it was published.

    `ended_at` is when it was superseded or withdrawn. `state` is running, published, superseded or withdrawn.
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
    """One thing that `score_batches` says of a batch, and what its rows say."""

    name: str
    expected: int | str
    found: int | str

    @property
    def agrees(self) -> bool:
        """Whether the two are the same."""
        return self.expected == self.found

    def __str__(self) -> str:
        return f"{self.name}: expected {self.expected}, found {self.found}"


# The columns of a BatchRow, in its order.
BATCH_COLUMNS = [score_batches.c[field.name] for field in dataclasses.fields(BatchRow)]


def find_published_batch(engine: Engine, date: datetime.date) -> BatchRow | None:
    """The published batch of a date."""
    found = _select_batches(engine, sa.select(*BATCH_COLUMNS).where(score_batches.c.published_date == date))
    return found[0] if found else None


def find_latest_published_batch(engine: Engine, before: datetime.date | None = None) -> BatchRow | None:
    """The published batch of the latest date; of the latest before a date, if one is given."""
    wanted = sa.select(*BATCH_COLUMNS).where(score_batches.c.published_date.is_not(None))
    if before is not None:
        wanted = wanted.where(score_batches.c.published_date < before)
    found = _select_batches(engine, wanted.order_by(score_batches.c.published_date.desc()).limit(1))
    return found[0] if found else None


def list_batches(engine: Engine, limit: int = 50) -> list[BatchRow]:
    """The batches of the latest dates, the newest first."""
    order = (score_batches.c.batch_date.desc(), score_batches.c.batch_id.desc())
    return _select_batches(engine, sa.select(*BATCH_COLUMNS).order_by(*order).limit(limit))


def list_batches_of_date(engine: Engine, date: datetime.date) -> list[BatchRow]:
    """All batches of a date, the newest first."""
    order = score_batches.c.batch_id.desc()
    return _select_batches(engine, sa.select(*BATCH_COLUMNS).where(score_batches.c.batch_date == date).order_by(order))


def find_completed_dates(
    engine: Engine, recipes: Mapping[datetime.date, str], exactly: bool = False
) -> set[datetime.date]:
    """Those of some dates whose scores by a recipe are published, by one query.

    A date counts too if a batch by its recipe was published and a person went back to another.

    Args:
        engine: the database.
        recipes: of each date.
        exactly: the published batch must be the recipe's own.
    """
    if not has_schema(engine):
        return set()
    columns = (score_batches.c.batch_date, score_batches.c.recipe, score_batches.c.state)
    wanted = sa.select(*columns).where(
        score_batches.c.batch_date.in_(list(recipes)), score_batches.c.state.in_(("published", "superseded"))
    )
    with read_transaction(engine) as connection:
        rows = connection.execute(wanted).all()
    return select_completed_dates(((row.batch_date, row.recipe, row.state) for row in rows), recipes, exactly)


def find_never_published_dates(engine: Engine, dates: Sequence[datetime.date]) -> list[datetime.date]:
    """Those of some dates of which nothing was ever published, by one query: no person took anything back either."""
    if not has_schema(engine):
        return list(dates)
    ever = score_batches.c.published_at.is_not(None)
    wanted = sa.select(score_batches.c.batch_date).where(score_batches.c.batch_date.in_(dates), ever)
    with read_transaction(engine) as connection:
        known = set(connection.scalars(wanted))
    return [date for date in dates if date not in known]


def find_published_dates(engine: Engine, dates: Iterable[datetime.date]) -> set[datetime.date]:
    """Those of some dates that have a published batch, by one query."""
    if not has_schema(engine):
        return set()
    wanted = sa.select(score_batches.c.published_date).where(score_batches.c.published_date.in_(list(dates)))
    with read_transaction(engine) as connection:
        return set(connection.scalars(wanted))


def stream_scores(
    engine: Engine,
    date: datetime.date,
    flagged_only: bool = False,
    limit: int | None = None,
    order: Literal["probability", "message_id"] = "probability",
) -> Iterator[ScoreRow]:
    """The published scores of a date, streamed: memory does not grow with them.

    Args:
        engine: the database.
        date: the date of the batch.
        flagged_only: leave out what the threshold lets pass.
        limit: most rows wanted.
        order: ``probability``, the most suspicious first, or ``message_id``.
    """
    if not has_schema(engine):
        return
    view = published_scores.c
    by = (view.spam_probability.desc(), view.message_id) if order == "probability" else (view.message_id,)
    wanted = sa.select(published_scores).where(view.batch_date == date).order_by(*by).limit(limit)
    for row in _streamed(engine, wanted.where(view.flagged) if flagged_only else wanted):
        yield ScoreRow(*row)


def stream_rejections(engine: Engine, batch_id: int) -> Iterator[RejectedMessage]:
    """The refused messages of a batch in the order of their rows, streamed."""
    table = rejected_messages.c
    columns = (table.row_number, table.message_id, table.reason, table.detail)
    for row in _streamed(engine, sa.select(*columns).where(table.batch_id == batch_id).order_by(table.row_number)):
        yield RejectedMessage(*row)


def compare_rows(engine: Engine, batch: BatchRow) -> list[Comparison]:
    """What `score_batches` says of a batch that was published once, held against the rows that are there now."""
    with read_transaction(engine) as connection:
        counts = compare_counts(batch, count_rows(connection, batch.batch_id))
    return [Comparison("checksum", str(batch.checksum), recompute_checksum(engine, batch.batch_id)), *counts]


def compare_counts(batch: Any, rows: Mapping[str, int]) -> list[Comparison]:
    """What `score_batches` says of a batch's counts, held against those of its rows.

    Args:
        batch: a BatchRow, or a row with its columns, of a batch that was published once.
        rows: what `count_rows` gave.
    """
    found = {**rows, "messages_read": rows["scored"] + rows["rejected"]}
    return [Comparison(name, getattr(batch, name), number) for name, number in found.items()]


def count_rows(connection: Connection, batch_id: int) -> dict[str, int]:
    """How many rows the tables have of a batch: scored, rejected, flagged."""
    flags = sa.func.coalesce(sa.func.sum(sa.case((spam_scores.c.flagged, 1), else_=0)), 0)
    scored, flagged = connection.execute(
        sa.select(sa.func.count(), flags).select_from(spam_scores).where(spam_scores.c.batch_id == batch_id)
    ).one()
    refused = connection.scalar(
        sa.select(sa.func.count()).select_from(rejected_messages).where(rejected_messages.c.batch_id == batch_id)
    )
    return {"scored": scored, "rejected": int(refused or 0), "flagged": int(flagged)}


def recompute_checksum(engine: Engine, batch_id: int) -> str:
    """The checksum of the rows that are in the table now, to hold against the one published; streamed."""
    table = spam_scores.c
    wanted = sa.select(table.message_id, table.spam_probability, table.flagged).where(table.batch_id == batch_id)
    with (
        read_transaction(engine) as connection,
        connection.execution_options(yield_per=_FETCH).execute(wanted) as result,
    ):
        return format_checksum(add_checksums(_checksum_of(part) for part in result.partitions()))


def _checksum_of(rows: Iterable[Any]) -> int:
    import numpy as np

    message_ids, probabilities, flags = zip(*rows, strict=True)
    return checksum_rows(message_ids, np.array(probabilities), np.array(flags, dtype=bool))


def _streamed(engine: Engine, statement: sa.Select[Any]) -> Iterator[Any]:
    # The cursor is closed by itself: on PostgreSQL it is one of the server's, and who stops early leaves it open.
    with (
        read_transaction(engine) as connection,
        connection.execution_options(yield_per=_FETCH).execute(statement) as result,
    ):
        yield from result


def _select_batches(engine: Engine, statement: sa.Select[Any]) -> list[BatchRow]:
    if not has_schema(engine):
        return []
    with read_transaction(engine) as connection:
        columns = _columns_there(connection)
        return [BatchRow(*row) for row in connection.execute(statement.with_only_columns(*columns))]


def _columns_there(connection: Connection) -> list[sa.ColumnElement[Any]]:
    """The columns of a BatchRow; null for those that a schema of an earlier version, not yet brought up, has not."""
    if schema_revision(connection) == SCHEMA_REVISION:
        return list(BATCH_COLUMNS)
    there = {column["name"] for column in sa.inspect(connection).get_columns(score_batches.name)}
    return [column if column.name in there else sa.null().label(column.name) for column in BATCH_COLUMNS]
