"""Creates the tables of batches, scores, rejected messages and committed chunks, and the view that readers use."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from tasks.database.tables import MessageId, UtcDateTime, is_mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BATCH_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TABLE_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
}


def upgrade() -> None:
    """Creates the four tables and the view."""
    # MySQL commits after each statement, so a killed migration leaves some of the tables and no version. On other
    # databases it is one transaction, so an existing table of that name belongs to another application.
    options = {**TABLE_OPTIONS, "if_not_exists": is_mysql(op.get_context().dialect)}
    _create_score_batches(options)
    _create_spam_scores(options)
    _create_rejected_messages(options)
    _create_batch_chunks(options)
    _create_view()


def downgrade() -> None:
    """Drops the tables and the view, and with them every score."""
    op.execute("DROP VIEW published_scores")
    for name in ("batch_chunks", "rejected_messages", "spam_scores", "score_batches"):
        op.drop_table(name)


def _create_score_batches(options: dict[str, Any]) -> None:
    op.create_table(
        "score_batches",
        sa.Column("batch_id", BATCH_ID, nullable=False, autoincrement=True),
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
        *(sa.Column(name, sa.BigInteger) for name in ("messages_read", "scored", "rejected", "flagged")),
        sa.Column("checksum", sa.String(16)),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("published_at", UtcDateTime),
        sa.Column("ended_at", UtcDateTime),
        *(sa.Column(f"seconds_{part}", sa.Double) for part in ("total", "text", "network", "write")),
        _date_in_state("published"),
        _date_in_state("running"),
        *_score_batches_constraints(),
        sqlite_autoincrement=True,
        **options,
    )
    _create_index("ix_score_batches_batch_date_state", "score_batches", ["batch_date", "state"])


def _date_in_state(state: str) -> sa.Column[Any]:
    rule = sa.Computed(f"CASE WHEN state = '{state}' THEN batch_date END", persisted=True)
    return sa.Column(f"{state}_date", sa.Date, rule)


def _score_batches_constraints() -> list[sa.Constraint]:
    required = ("messages_read", "scored", "rejected", "flagged", "checksum", "published_at")
    is_complete = " AND ".join(f"{name} IS NOT NULL" for name in required)
    return [
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_score_batches")),
        sa.UniqueConstraint("published_date", name=op.f("uq_score_batches_published_date")),
        sa.UniqueConstraint("running_date", name=op.f("uq_score_batches_running_date")),
        sa.CheckConstraint(
            "state IN ('running', 'published', 'superseded', 'withdrawn')", name=op.f("ck_score_batches_state")
        ),
        sa.CheckConstraint(f"state <> 'published' OR ({is_complete})", name=op.f("ck_score_batches_published_whole")),
        sa.CheckConstraint("messages_read = scored + rejected", name=op.f("ck_score_batches_nothing_dropped")),
    ]


def _create_spam_scores(options: dict[str, Any]) -> None:
    op.create_table(
        "spam_scores",
        sa.Column("batch_id", BATCH_ID, nullable=False, autoincrement=False),
        sa.Column("message_id", MessageId, nullable=False),
        sa.Column("spam_probability", sa.Double, nullable=False),
        sa.Column("flagged", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "message_id", name=op.f("pk_spam_scores")),
        _batch_foreign_key("spam_scores"),
        sa.CheckConstraint("spam_probability BETWEEN 0 AND 1", name=op.f("ck_spam_scores_spam_probability")),
        sqlite_with_rowid=False,
        **options,
    )


def _create_rejected_messages(options: dict[str, Any]) -> None:
    op.create_table(
        "rejected_messages",
        sa.Column("batch_id", BATCH_ID, nullable=False, autoincrement=False),
        sa.Column("row_number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("message_id", MessageId),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("detail", sa.String(1000)),
        sa.PrimaryKeyConstraint("batch_id", "row_number", name=op.f("pk_rejected_messages")),
        _batch_foreign_key("rejected_messages"),
        **options,
    )


def _create_batch_chunks(options: dict[str, Any]) -> None:
    op.create_table(
        "batch_chunks",
        sa.Column("batch_id", BATCH_ID, nullable=False, autoincrement=False),
        sa.Column("chunk_number", sa.Integer, nullable=False, autoincrement=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("first_row", "messages_read", "scored", "rejected", "flagged")
        ),
        sa.Column("checksum", sa.String(16), nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("written_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "chunk_number", name=op.f("pk_batch_chunks")),
        _batch_foreign_key("batch_chunks"),
        sa.CheckConstraint("messages_read = scored + rejected", name=op.f("ck_batch_chunks_nothing_dropped")),
        **options,
    )


def _batch_foreign_key(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_batch_id_score_batches")
    return sa.ForeignKeyConstraint(["batch_id"], ["score_batches.batch_id"], name=name)


def _create_index(name: str, table: str, columns: list[str]) -> None:
    # MySQL has no CREATE INDEX IF NOT EXISTS.
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, columns)


def _create_view() -> None:
    select = """
        SELECT batches.batch_date, scores.message_id, scores.spam_probability, scores.flagged,
               batches.model_version, batches.batch_id, batches.published_at AS scored_at
        FROM score_batches batches JOIN spam_scores scores ON scores.batch_id = batches.batch_id
        WHERE batches.state = 'published'
    """
    create = "CREATE OR REPLACE VIEW" if is_mysql(op.get_context().dialect) else "CREATE VIEW"
    op.execute(f"{create} published_scores AS {select}")
