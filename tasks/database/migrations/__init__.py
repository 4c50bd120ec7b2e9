"""Contains the Alembic migrations of the schema. `tasks.database.schema.open_database` runs them."""

from __future__ import annotations

# The newest revision in `versions`. Stored here because importing Alembic to find it takes 0.3 s.
SCHEMA_REVISION = "0006"
# Not Alembic's default name: in a shared database, alembic_version may belong to another application.
VERSION_TABLE = "spamscore_version"
