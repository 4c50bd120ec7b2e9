"""The schema's versions, as Alembic runs them; `tasks.database.connection.open_database` is what starts it."""

from __future__ import annotations

# The newest of `versions`: known without importing Alembic, which costs 0.3 s.
SCHEMA_REVISION = "0005"
# A name of our own, for a database that is shared may have an alembic_version of somebody else's.
VERSION_TABLE = "spamscore_version"
