"""Adds the durations of reading and waiting to those of the other stages of a batch, and the processor time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = ("seconds_read", "seconds_wait", "seconds_processor")


def upgrade() -> None:
    """Adds the columns that do not exist: MySQL commits each of them, so a killed migration may have added some."""
    existing = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("score_batches")}
    for name in COLUMNS:
        if name not in existing:
            op.add_column("score_batches", sa.Column(name, sa.Double))


def downgrade() -> None:
    """Drops the columns."""
    for name in COLUMNS:
        op.drop_column("score_batches", name)
