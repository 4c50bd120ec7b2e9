"""Opens the database with a current schema: reads its version, creates it, migrates it.

Alembic is imported only to create, migrate or refuse a schema: a check whether a date is done must stay fast.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from models.errors import DatabaseError, SettingsError
from tasks.database.connection import (
    begin_lasting_transaction,
    connect,
    is_missing_file,
    read_transaction,
    write_transaction,
)
from tasks.database.driver_errors import is_denied
from tasks.database.migrations import SCHEMA_REVISION, VERSION_TABLE
from tasks.database.tables import is_mysql
from tasks.settings.masking import mask_password

if TYPE_CHECKING:
    from alembic.config import Config

    from tasks.settings.storage import DatabaseSettings

_SUPPORTED = ("sqlite", "postgresql", "mysql", "mariadb")
_SQLITE_PAGE_SIZE = 32_768  # bytes
_MIGRATION_LOCK_SECONDS = 600
_MIGRATION_LOCK_KEY = 0x5BA3_5C0E  # any number that no other application locks in the same database
UNREADABLE = "unreadable"  # in place of the version of a schema


def open_database(settings: DatabaseSettings) -> Engine:
    """Opens the database, and creates its schema or migrates it to the current version.

    Any number of processes may call it at the same time.

    Raises:
        SettingsError: as `connect`, and for a database that is not one of the four supported ones.
        DatabaseError: as `connect`, and for a schema that is newer than this code.
    """
    engine = connect(settings)
    if engine.dialect.name not in _SUPPORTED:
        raise SettingsError(f"[database] url = {mask_password(engine.url)}: expected one of {', '.join(_SUPPORTED)}.")
    with read_transaction(engine) as connection:
        revision = schema_revision(connection)
    if revision != SCHEMA_REVISION:
        _migrate(engine)
    return engine


def has_schema(engine: Engine) -> bool:
    """Returns whether the tables exist. Creates nothing.

    Raises:
        DatabaseError: the schema has a version that this code does not know.
    """
    return read_revision(engine) is not None


def read_revision(engine: Engine) -> str | None:
    """Returns the version of the schema, `UNREADABLE` for a user who may read other tables only, or None.

    Raises:
        DatabaseError: this code does not know the version.
    """
    if is_missing_file(engine):
        return None
    try:
        with read_transaction(engine) as connection:
            revision = schema_revision(connection)
    except DatabaseError as error:
        if is_denied(error.__cause__):
            return UNREADABLE
        raise
    if revision not in (None, SCHEMA_REVISION):
        _check_known_revision(engine, revision)
    return revision


def has_table(engine: Engine, name: str) -> bool:
    """Returns whether a table exists. It may be missing in an older schema, which the next run migrates."""
    if not has_schema(engine):
        return False
    with read_transaction(engine) as connection:
        return sa.inspect(connection).has_table(name)


def schema_revision(connection: Connection) -> str | None:
    """Returns the version of the schema in the database, or None if there is none."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num", sa.String))
    return connection.execute(sa.select(table.c.version_num)).scalar()


def alembic_config(connection: Connection) -> Config:
    """Returns the configuration for Alembic's commands: the location of the migrations and the connection to use."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "tasks.database:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _migrate(engine: Engine) -> None:
    from alembic import command

    if engine.dialect.name == "sqlite":
        _configure_sqlite_file(engine)
    with _migration_lock(engine), write_transaction(engine) as connection:
        # Read again: another process may have migrated while this one waited for the lock.
        revision = schema_revision(connection)
        if revision is not None:
            _check_known_revision(engine, revision)
        command.upgrade(alembic_config(connection), "head")


def _configure_sqlite_file(engine: Engine) -> None:
    """Sets the page size and the journal mode of a SQLite file, which stores both permanently.

    With the write-ahead log, a long read does not block the write of a chunk. Large pages, which can only be set while
    the file is empty, make inserts of thousands of rows a tenth to a quarter faster.
    """
    connection = engine.raw_connection()
    try:
        connection.cursor().execute(f"PRAGMA page_size = {_SQLITE_PAGE_SIZE}")
        connection.cursor().execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError:
        pass  # another process holds the file, or it is read-only, which the migration reports with a clearer error
    finally:
        connection.close()


@contextmanager
def _migration_lock(engine: Engine) -> Iterator[None]:
    """Lets only one process migrate at a time. SQLite needs no lock: it runs one writing transaction at a time.

    A separate connection holds the lock until the migration is committed.
    """
    with read_transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            begin_lasting_transaction(connection)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK_KEY)))
        if is_mysql(engine.dialect):
            name = f"spamscore.{engine.url.database}"[:64]
            if connection.scalar(sa.select(sa.func.get_lock(name, _MIGRATION_LOCK_SECONDS))) != 1:
                raise DatabaseError(
                    f"{mask_password(engine.url)}: another process has been migrating it for ten minutes. "
                    "Wait until that process ends, and run again."
                )
        yield


def _check_known_revision(engine: Engine, revision: str | None) -> None:
    from alembic.script import ScriptDirectory

    with engine.connect() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
    known = sorted(migration.revision for migration in script.walk_revisions())
    if revision not in known:
        raise DatabaseError(
            f"{mask_password(engine.url)}: its schema has version {revision}, but this spamscore knows only "
            f"{', '.join(known)}. A newer spamscore created it: install that version, or set [database] url to another "
            "database."
        )
