"""Defines the tables of the scores and the labels in SQLAlchemy Core.

`tasks.database.migrations` creates them in a database; a test checks that the two definitions agree. Their rows are
written by `tasks.database.ledger` and `tasks.database.labels`.

Times are UTC everywhere: `timestamp with time zone` on PostgreSQL, text without an offset on SQLite, `datetime(6)`
without an offset on MySQL and MariaDB. Values read through `UtcDateTime` always have
a time zone.
"""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

MESSAGE_ID_LENGTH = 255
REASON_LENGTH = 64
DETAIL_LENGTH = 1000

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime.datetime]):
    """A time in UTC. Accepts and returns datetimes with a time zone, whatever the database stores.

    Raises:
        ValueError: a datetime to store has no time zone; SQLAlchemy wraps the error in a StatementError.
    """

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Returns the column type of a database. For MySQL it asks for microseconds, which are off by default."""
        if is_mysql(dialect):
            return mysql.DATETIME(fsp=6)
        return sa.DateTime(timezone=dialect.name == "postgresql")

    def process_bind_param(self, value: datetime.datetime | None, dialect: Dialect) -> datetime.datetime | None:
        """Converts a datetime to UTC, and drops the time zone if the database stores none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"expected a datetime with a time zone, received {value!r}. Use datetime.now(UTC)")
        utc_value = value.astimezone(datetime.UTC)
        return utc_value if dialect.name == "postgresql" else utc_value.replace(tzinfo=None)

    def process_result_value(self, value: datetime.datetime | None, _: Dialect) -> datetime.datetime | None:
        """Returns the datetime in UTC."""
        if value is None or value.tzinfo is not None:
            return value and value.astimezone(datetime.UTC)
        return value.replace(tzinfo=datetime.UTC)


class MessageId(TypeDecorator[str]):
    """An identifier of up to 255 characters, compared byte by byte: 'A' differs from 'a' and from 'A '.

    By default MySQL and MariaDB ignore case, and trailing spaces in all but their "no pad" collations. PostgreSQL's
    "C" collation sorts like Python's `sorted`, which is the order in which rows are written.
    """

    impl = sa.String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Returns the column type of a database, with its binary collation."""
        if is_mysql(dialect):
            collation = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
            return mysql.VARCHAR(MESSAGE_ID_LENGTH, charset="utf8mb4", collation=collation)
        return sa.String(MESSAGE_ID_LENGTH, collation="C" if dialect.name == "postgresql" else None)


# MySQL's TEXT is limited to 64 KiB, and a message may be longer.
LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def is_mysql(dialect: Dialect) -> bool:
    """Returns whether a database is MySQL or MariaDB, which SQLAlchemy treats as separate dialects."""
    return dialect.name in ("mysql", "mariadb")


def _is_not_postgresql(*_: Any, dialect: Dialect, **__: Any) -> bool:
    return dialect.name != "postgresql"


metadata = sa.MetaData(naming_convention=NAMING_CONVENTION)

# SQLite generates row numbers only for a column whose type is exactly INTEGER.
_BatchId = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
}

score_batches = sa.Table(
    "score_batches",
    metadata,
    sa.Column("batch_id", _BatchId, primary_key=True, autoincrement=True),
    sa.Column("batch_date", sa.Date, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("model_name", sa.String(255), nullable=False),
    sa.Column("model_version", sa.Integer, nullable=False),
    sa.Column("checkpoint", sa.String(1000), nullable=False),
    sa.Column("recipe", sa.String(16), nullable=False),
    sa.Column("snapshot", sa.String(1000), nullable=False),
    sa.Column("threshold", sa.Double, nullable=False),
    sa.Column("devices", sa.String(1000), nullable=False),
    sa.Column("chunk_size", sa.Integer, nullable=False),
    sa.Column("messages_read", sa.BigInteger),
    sa.Column("scored", sa.BigInteger),
    sa.Column("rejected", sa.BigInteger),
    sa.Column("flagged", sa.BigInteger),
    sa.Column("checksum", sa.String(16)),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("published_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("seconds_total", sa.Double),
    sa.Column("seconds_text", sa.Double),
    sa.Column("seconds_network", sa.Double),
    sa.Column("seconds_write", sa.Double),
    # Unique columns that are null in all states except one. They enforce "at most one per date" in every database.
    sa.Column(
        "published_date", sa.Date, sa.Computed("CASE WHEN state = 'published' THEN batch_date END", persisted=True)
    ),
    sa.Column("running_date", sa.Date, sa.Computed("CASE WHEN state = 'running' THEN batch_date END", persisted=True)),
    sa.Column("seconds_read", sa.Double),
    sa.Column("seconds_wait", sa.Double),
    sa.Column("seconds_processor", sa.Double),
    sa.Column("provisional", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("published_date"),
    sa.UniqueConstraint("running_date"),
    sa.CheckConstraint("state IN ('running', 'published', 'superseded', 'withdrawn')", name="state"),
    sa.CheckConstraint(
        "state <> 'published' OR (messages_read IS NOT NULL AND scored IS NOT NULL AND rejected IS NOT NULL"
        " AND flagged IS NOT NULL AND checksum IS NOT NULL AND published_at IS NOT NULL)",
        name="published_whole",
    ),
    sa.CheckConstraint("messages_read = scored + rejected", name="nothing_dropped"),
    sa.Index(None, "batch_date", "state"),
    sqlite_autoincrement=True,  # the number of a deleted batch is not reused
    **_TABLE_OPTIONS,
)

spam_scores = sa.Table(
    "spam_scores",
    metadata,
    sa.Column("batch_id", _BatchId, primary_key=True, autoincrement=False),
    sa.Column("message_id", MessageId, primary_key=True),
    sa.Column("spam_probability", sa.Double, nullable=False),
    sa.Column("flagged", sa.Boolean, nullable=False),
    # On PostgreSQL this check would take most of the insert time. There the foreign key of `batch_chunks` protects the
    # batch.
    sa.ForeignKeyConstraint(["batch_id"], ["score_batches.batch_id"]).ddl_if(callable_=_is_not_postgresql),
    sa.CheckConstraint("spam_probability BETWEEN 0 AND 1", name="spam_probability"),
    sqlite_with_rowid=False,
    **_TABLE_OPTIONS,
)

rejected_messages = sa.Table(
    "rejected_messages",
    metadata,
    sa.Column("batch_id", _BatchId, sa.ForeignKey("score_batches.batch_id"), primary_key=True, autoincrement=False),
    sa.Column("row_number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("message_id", MessageId),
    sa.Column("reason", sa.String(REASON_LENGTH), nullable=False),
    sa.Column("detail", sa.String(DETAIL_LENGTH)),
    **_TABLE_OPTIONS,
)

batch_chunks = sa.Table(
    "batch_chunks",
    metadata,
    sa.Column("batch_id", _BatchId, sa.ForeignKey("score_batches.batch_id"), primary_key=True, autoincrement=False),
    sa.Column("chunk_number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("first_row", sa.BigInteger, nullable=False),
    sa.Column("messages_read", sa.BigInteger, nullable=False),
    sa.Column("scored", sa.BigInteger, nullable=False),
    sa.Column("rejected", sa.BigInteger, nullable=False),
    sa.Column("flagged", sa.BigInteger, nullable=False),
    sa.Column("checksum", sa.String(16), nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("written_at", UtcDateTime, nullable=False),
    sa.CheckConstraint("messages_read = scored + rejected", name="nothing_dropped"),
    **_TABLE_OPTIONS,
)

# Labels that people gave to messages. The message is stored too: without it, a label is worthless once its snapshot is
# deleted. There is no foreign key to a batch, because labels outlive batches.
labels = sa.Table(
    "labels",
    metadata,
    sa.Column("batch_date", sa.Date, primary_key=True, autoincrement=False),
    sa.Column("message_id", MessageId, primary_key=True),
    sa.Column("labelled_by", MessageId, primary_key=True),
    sa.Column("label", sa.String(4), nullable=False),
    sa.Column("labelled_at", UtcDateTime, nullable=False),
    sa.Column("text", LongText, nullable=False),
    sa.CheckConstraint("label IN ('spam', 'ham')", name="label"),
    **_TABLE_OPTIONS,
)

# The drift of each batch against earlier ones, as its report measured it. Values of `score_batches` are not repeated.
batch_drift = sa.Table(
    "batch_drift",
    metadata,
    sa.Column("batch_id", _BatchId, sa.ForeignKey("score_batches.batch_id"), primary_key=True, autoincrement=False),
    sa.Column("unknown_share", sa.Double),
    sa.Column("psi_validation", sa.Double),
    sa.Column("psi_validation_by_chance", sa.Double),
    sa.Column("psi_before", sa.Double),
    sa.Column("psi_before_by_chance", sa.Double),
    sa.Column("score_counts", sa.Text, nullable=False),
    sa.Column("crossed", sa.Text, nullable=False),
    sa.Column("measured_at", UtcDateTime, nullable=False),
    sa.Column("accepted_at", UtcDateTime),
    sa.Column("accepted_by", sa.String(255)),
    **_TABLE_OPTIONS,
)

# The view that readers use. It is not in the metadata because it is not a table; a migration creates it.
published_scores = sa.table(
    "published_scores",
    sa.column("batch_date", sa.Date),
    sa.column("message_id", MessageId),
    sa.column("spam_probability", sa.Double),
    sa.column("flagged", sa.Boolean),
    sa.column("model_version", sa.Integer),
    sa.column("batch_id", _BatchId),
    sa.column("scored_at", UtcDateTime),
)
