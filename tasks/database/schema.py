"""The schema of the database: whether it is there, which version it has, and how it is migrated."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from models.errors import DatabaseError, SettingsError
from tasks.database.connection import connect, is_missing_file, mask_password, read_transaction, write_transaction
from tasks.database.migrations import SCHEMA_REVISION, VERSION_TABLE
from tasks.database.tables import is_mysql

if TYPE_CHECKING:
    from alembic.config import Config

    from tasks.settings.storage import DatabaseSettings


_SUPPORTED = ("sqlite", "postgresql", "mysql", "mariadb")


_SQLITE_PAGE = 32_768  # bytes


_MIGRATION_LOCK_SECONDS = 600


_MIGRATION_LOCK = 0x5BA3_5C0E  # any number that nobody else who locks in the same database has


def open_database(settings: DatabaseSettings) -> Engine:
    """Opens the database and brings its schema up: made where there is none, migrated where it is older.

    Any number of processes may do so at once.

    Raises:
        SettingsError: as `connect`, and for a database that is none of the four supported.
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
    """Whether the tables are there. Creates nothing.

    Raises:
        DatabaseError: they are, of a version that this code does not know.
    """
    if is_missing_file(engine):
        return False
    with read_transaction(engine) as connection:
        revision = schema_revision(connection)
    if revision not in (None, SCHEMA_REVISION):
        _refuse_unknown(engine, revision)
    return revision is not None


def has_table(engine: Engine, name: str) -> bool:
    """Whether a table is there: a schema of an earlier version, which the next run brings up, may have none yet."""
    if not has_schema(engine):
        return False
    with read_transaction(engine) as connection:
        return sa.inspect(connection).has_table(name)


def schema_revision(connection: Connection) -> str | None:
    """The version of the schema that is there, or None where there is none."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num", sa.String))
    return connection.execute(sa.select(table.c.version_num)).scalar()


def alembic_config(connection: Connection) -> Config:
    """What Alembic's commands want: where the versions are, and the connection to work on."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "tasks.database:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _migrate(engine: Engine) -> None:
    from alembic import command

    if engine.dialect.name == "sqlite":
        _lay_out(engine)
    with _migration_lock(engine), write_transaction(engine) as connection:
        # Asked again: another process may have been first while this one waited.
        revision = schema_revision(connection)
        if revision is not None:
            _refuse_unknown(engine, revision)
        command.upgrade(alembic_config(connection), "head")


def _lay_out(engine: Engine) -> None:
    """Says how SQLite's file is laid out; both are kept in it.

    With the write-ahead log a long read no longer keeps a chunk from being written. Large pages, which a file can only
    be given while it is empty, take rows by the thousand a tenth to a quarter faster.
    """
    connection = engine.raw_connection()
    try:
        connection.cursor().execute(f"PRAGMA page_size = {_SQLITE_PAGE}")
        connection.cursor().execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError:
        pass  # another process is at it, or the file is read-only, which the migration says better
    finally:
        connection.close()


@contextmanager
def _migration_lock(engine: Engine) -> Iterator[None]:
    """Lets one process migrate at a time. SQLite needs none: its writing transactions take turns.

    The lock is a connection's own, which goes when it is closed: after the migration was committed, not before.
    """
    with read_transaction(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        if is_mysql(engine.dialect):
            name = f"spamscore.{engine.url.database}"[:64]
            if connection.scalar(sa.select(sa.func.get_lock(name, _MIGRATION_LOCK_SECONDS))) != 1:
                raise DatabaseError(
                    f"{mask_password(engine.url)}: another process has been migrating it for ten minutes."
                )
        yield


def _refuse_unknown(engine: Engine, revision: str | None) -> None:
    from alembic.script import ScriptDirectory

    with engine.connect() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
    known = sorted(one.revision for one in script.walk_revisions())
    if revision not in known:
        raise DatabaseError(
            f"{mask_password(engine.url)}: its schema is version {revision}, and this spamscore knows {', '.join(known)}. "
            f"A newer spamscore made it: install that one, or set [database] url to another database."
        )
