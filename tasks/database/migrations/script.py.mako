"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Brings the schema from the version before to this one."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Takes the schema back to the version before."""
    ${downgrades if downgrades else "pass"}
