"""Marks the batches that were scored before their date was over."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column unless it exists: MySQL commits it, so a killed migration may have added it."""
    if "provisional" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("score_batches")}:
        op.add_column("score_batches", sa.Column("provisional", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drops the column."""
    op.drop_column("score_batches", "provisional")
