"""Drops the foreign key of the scores on PostgreSQL: without it, inserts are three times as fast.

`batch_chunks` still has a foreign key to the batch, so a batch with a chunk cannot be deleted, and the ledger writes
rows only while it locks the batch. On other databases the check costs next to nothing, and they keep it.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

NAME = "fk_spam_scores_batch_id_score_batches"


def upgrade() -> None:
    """Drops the constraint."""
    if op.get_context().dialect.name == "postgresql":
        op.drop_constraint(op.f(NAME), "spam_scores", type_="foreignkey")


def downgrade() -> None:
    """Creates the constraint again."""
    if op.get_context().dialect.name == "postgresql":
        op.create_foreign_key(op.f(NAME), "spam_scores", "score_batches", ["batch_id"], ["batch_id"])
