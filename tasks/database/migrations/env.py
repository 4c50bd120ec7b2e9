"""Configures Alembic: passes it the connection that `tasks.database.schema` has opened and locked."""

from __future__ import annotations

from alembic import context

from tasks.database.migrations import VERSION_TABLE
from tasks.database.tables import metadata


def run() -> None:
    """Runs the migrations on the given connection, inside its transaction. The caller commits."""
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
    )
    with context.begin_transaction():
        context.run_migrations()


run()
