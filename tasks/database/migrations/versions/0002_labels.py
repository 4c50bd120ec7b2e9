"""Creates the table of the labels that people give to messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from tasks.database.tables import MessageId, UtcDateTime, is_mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = {"batch_date", "message_id", "labelled_by", "label", "labelled_at", "text"}


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "labels",
        sa.Column("batch_date", sa.Date, nullable=False, autoincrement=False),
        sa.Column("message_id", MessageId, nullable=False),
        sa.Column("labelled_by", MessageId, nullable=False),
        sa.Column("label", sa.String(4), nullable=False),
        sa.Column("labelled_at", UtcDateTime, nullable=False),
        sa.Column("text", sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb"), nullable=False),
        sa.PrimaryKeyConstraint("batch_date", "message_id", "labelled_by", name=op.f("pk_labels")),
        sa.CheckConstraint("label IN ('spam', 'ham')", name=op.f("ck_labels_label")),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        if_not_exists=_was_left_by_killed_migration(),
    )


def _was_left_by_killed_migration() -> bool:
    """Returns whether a killed migration created the table: MySQL commits it before the version.

    A table with other columns belongs to another application, and creating ours then fails.
    """
    inspector = sa.inspect(op.get_bind())
    if not is_mysql(op.get_context().dialect) or not inspector.has_table("labels"):
        return False
    return {column["name"] for column in inspector.get_columns("labels")} == COLUMNS


def downgrade() -> None:
    """Drops the table, and with it every label."""
    op.drop_table("labels")
