"""What Alembic runs before the versions: it hands them the connection that `tasks.database.connection` has opened
and locked.
"""

from __future__ import annotations

from alembic import context

from tasks.database.migrations import VERSION_TABLE
from tasks.database.tables import metadata


def run() -> None:
    """Runs the versions on the connection given, inside its transaction; who gave it commits."""
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
    )
    with context.begin_transaction():
        context.run_migrations()


run()
