"""Creates the table of the drift of each batch against earlier ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from tasks.database.tables import UtcDateTime, is_mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FIGURES = ("unknown_share", "psi_validation", "psi_validation_by_chance", "psi_before", "psi_before_by_chance")
OTHER_COLUMNS = ("batch_id", "score_counts", "crossed", "measured_at", "accepted_at", "accepted_by")


def upgrade() -> None:
    """Creates the table."""
    batch_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "batch_drift",
        sa.Column("batch_id", batch_id, nullable=False, autoincrement=False),
        *(sa.Column(name, sa.Double) for name in FIGURES),
        sa.Column("score_counts", sa.Text, nullable=False),
        sa.Column("crossed", sa.Text, nullable=False),
        sa.Column("measured_at", UtcDateTime, nullable=False),
        sa.Column("accepted_at", UtcDateTime),
        sa.Column("accepted_by", sa.String(255)),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_batch_drift")),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["score_batches.batch_id"], name=op.f("fk_batch_drift_batch_id_score_batches")
        ),
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
    if not is_mysql(op.get_context().dialect) or not inspector.has_table("batch_drift"):
        return False
    return {column["name"] for column in inspector.get_columns("batch_drift")} == {*FIGURES, *OTHER_COLUMNS}


def downgrade() -> None:
    """Drops the table, and with it all drift figures and acceptances."""
    op.drop_table("batch_drift")
