"""The schema's versions, as Alembic runs them; `tasks.database.open_database` is what starts it."""
