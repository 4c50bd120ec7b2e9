"""Where the time of a batch went: reading and waiting beside the other stages, and seconds on processors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = ("seconds_read", "seconds_wait", "seconds_processor")


def upgrade() -> None:
    """Adds the columns that are not there: MySQL commits each by itself, and a kill may come between two."""
    there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("score_batches")}
    for name in COLUMNS:
        if name not in there:
            op.add_column("score_batches", sa.Column(name, sa.Double))


def downgrade() -> None:
    """Drops them."""
    for name in COLUMNS:
        op.drop_column("score_batches", name)
