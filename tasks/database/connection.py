"""Connects to databases, and runs transactions: read-only, writing, and with retries.

Connections are not pooled: Luigi's workers fork, a connection that two processes share breaks both, and a server closes
one that is idle for an hour. Code that runs many transactions in a row uses `persistent_connection`. The schema is the
part of `tasks.database.schema`.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, ExceptionContext
from sqlalchemy.pool import NullPool, QueuePool

from models.errors import DatabaseError
from tasks.database.driver_errors import describe_error, find_advice, is_option_error, is_retryable
from tasks.database.tables import is_mysql
from tasks.database.urls import (
    check_options,
    connect_arguments,
    invalid_url_error,
    option_error,
    parse_url,
    sqlite_path,
    url_hint,
)
from tasks.settings.masking import mask_password

if TYPE_CHECKING:
    from tasks.settings.storage import DatabaseSettings

_CHECK_VIOLATION_CODES = frozenset({3819, 4025})  # of MySQL and MariaDB
_RETRY_DELAYS = (0.1, 0.5, 2.0, 5.0)  # seconds before each retry
_EXTRAS = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}
_COMMITTED = "Committed rows are safe: correct the cause and run again."

Result = TypeVar("Result")


def connect(settings: DatabaseSettings, section: str = "database") -> Engine:
    """Opens the database of a URL and checks that it can be reached. Creates nothing, not even a SQLite file.

    Args:
        settings: the URL, and the seconds to wait for a connection.
        section: the section of luigi.cfg that the URL is from, for error messages.

    Raises:
        SettingsError: the URL cannot be parsed, or names a database, driver or option that is not known.
        DatabaseError: the driver is not installed, or the database cannot be reached.
    """
    url = parse_url(settings.url, section)
    engine = _add_listeners(_create_engine(url, settings.connect_timeout, section))
    if url.get_backend_name() == "sqlite":
        _check_sqlite_folder(url, section)
    if not is_missing_file(engine):
        _check_reachable(engine, section)
    return engine


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """Runs a ``with`` block in one transaction that only reads.

    Raises:
        DatabaseError: the database reported an error, or the connection was lost.
    """
    with _translate_errors(engine), engine.connect() as connection:
        yield connection


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Runs a ``with`` block in one transaction that writes: commits at its end, rolls back on an error.

    Raises:
        sqlalchemy.exc.IntegrityError: a row violates a constraint of its table.
        DatabaseError: the database reported another error, or the connection was lost.
    """
    with _translate_errors(engine), _transaction(engine) as connection:
        yield connection


def begin_lasting_transaction(connection: Connection) -> None:
    """Begins a transaction of PostgreSQL that may stay idle for hours, to hold a lock until it ends.

    A lock of the session instead would not work through a connection pooler such as PgBouncer: it gives the session to
    other clients between two transactions, and the lock stays on it after the run. While a READ COMMITTED transaction
    is idle, it has no snapshot, so that it does not delay the database's vacuum.

    Args:
        connection: a connection without a transaction.
    """
    connection.execution_options(isolation_level="READ COMMITTED")
    # The second of these settings came with PostgreSQL 17.
    connection.exec_driver_sql(
        "SELECT set_config(name, '0', true) "
        "FROM unnest(ARRAY['idle_in_transaction_session_timeout', 'transaction_timeout']) AS name "
        "WHERE current_setting(name, true) IS NOT NULL"
    )


def run_with_retries(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Runs a function in one transaction, and retries for about eight seconds after a deadlock or a server restart.

    The function must be safe to run twice: a connection may break after the commit and before the server's answer.

    Raises:
        sqlalchemy.exc.IntegrityError: a row violates a constraint of its table.
        DatabaseError: the database reported another error, or the connection stayed lost.
    """
    with _translate_errors(engine):
        for delay in _RETRY_DELAYS:
            try:
                return _run_once(engine, work)
            except exc.DBAPIError as error:
                if not is_retryable(error):
                    raise
                time.sleep(delay)
        return _run_once(engine, work)


def _run_once(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    with _transaction(engine) as connection:
        return work(connection)


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.execution_options(spamscore_writes=True)
        with connection.begin():
            yield connection


@contextmanager
def _translate_errors(engine: Engine) -> Iterator[None]:
    """Raises SQLAlchemy's errors as DatabaseError, except IntegrityError."""
    try:
        yield
    except exc.IntegrityError:
        raise
    except exc.SQLAlchemyError as error:
        raise DatabaseError(
            f"{mask_password(engine.url)}: {describe_error(error, engine.url)}. {_advise(error, engine.url)}"
        ) from error


def _advise(error: BaseException, url: URL) -> str:
    advice = find_advice(error, url)
    return f"{advice}." if advice else _COMMITTED


def _create_engine(url: URL, timeout: int, section: str) -> Engine:
    try:
        if url.drivername == "postgresql+psycopg" and not find_spec("pgpq"):
            raise ModuleNotFoundError(name="pgpq")  # before a batch has scored anything
        check_options(url, section)
        # hide_parameters: otherwise the text of an error would contain message identifiers.
        return sa.create_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args=connect_arguments(url, timeout)
        )
    except exc.NoSuchModuleError:
        raise invalid_url_error(str(url), section, f"SQLAlchemy knows no {url.drivername}") from None
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(url.get_backend_name())
        install = f'pip install "spamscore[{extra}]"' if extra else f"pip install {error.name}"
        raise DatabaseError(
            f"{mask_password(url)}: its driver {error.name} is not installed. Install it: {install}"
        ) from None
    except (TypeError, ValueError) as error:  # an option that SQLAlchemy converts to a number
        raise option_error(url, section, describe_error(error, url)) from None


def _add_listeners(engine: Engine) -> Engine:
    if engine.dialect.name == "sqlite":
        _control_sqlite_transactions(engine)
    if engine.dialect.name == "postgresql":
        _set_iso_dates(engine)
    if is_mysql(engine.dialect):
        _set_strict_mode(engine)
        _translate_mysql_check_errors(engine)
    return engine


def _control_sqlite_transactions(engine: Engine) -> None:
    """Starts SQLite transactions explicitly: Python's driver starts them late and ends them early.

    A transaction that will write takes the write lock at its start: after a read it could no longer get it.
    """

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("spamscore_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _set_iso_dates(engine: Engine) -> None:
    """Sets the format in which PostgreSQL sends dates: the driver reads no other, and an administrator may set one."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        if not (connection.info.parameter_status("DateStyle") or "").startswith("ISO"):
            connection.execute("SET datestyle TO ISO")
            connection.commit()


def _set_strict_mode(engine: Engine) -> None:
    """Sets MySQL's strict mode, which an administrator may have removed: a text too long is then truncated silently."""

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')")


def _translate_mysql_check_errors(engine: Engine) -> None:
    """Turns a violated CHECK into an IntegrityError, as other drivers do; this driver reports a server error."""

    @event.listens_for(engine, "handle_error")
    def translate(context: ExceptionContext) -> exc.IntegrityError | None:
        error = context.original_exception
        if error.args and error.args[0] in _CHECK_VIOLATION_CODES:
            return exc.IntegrityError(context.statement, None, error, hide_parameters=True)
        return None


@contextmanager
def persistent_connection(engine: Engine) -> Iterator[Engine]:
    """Yields an engine that keeps its connection open between transactions, and closes it at the end of the block.

    A new connection costs PostgreSQL a process. Closing the last one makes SQLite copy its write-ahead log into the
    database. A connection that was lost is replaced at the start of the next transaction.
    """

    def connect_detached() -> Any:
        connection = engine.raw_connection()
        driver_connection = connection.dbapi_connection
        connection.detach()
        return driver_connection

    persistent = _add_listeners(
        sa.create_engine(
            engine.url, creator=connect_detached, poolclass=QueuePool, pool_size=1, max_overflow=-1, pool_pre_ping=True,
            hide_parameters=True,
        )
    )  # fmt: skip
    try:
        yield persistent
    finally:
        persistent.dispose()


def is_missing_file(engine: Engine) -> bool:
    """Returns whether the URL names a SQLite file that does not exist."""
    path = sqlite_path(engine.url) if engine.dialect.name == "sqlite" else None
    return path is not None and not path.exists()


def _check_sqlite_folder(url: URL, section: str) -> None:
    path = sqlite_path(url)
    if path is not None and not os.access(path.parent, os.X_OK):
        raise DatabaseError(
            f"{mask_password(url)}: no such folder: {path.parent}, or this user may not enter it. Create it, grant the "
            f"permission, or correct the URL: {url_hint(section)}"
        )


def _check_reachable(engine: Engine, section: str) -> None:
    # SQLite does not open its file before a statement needs it.
    probe = "PRAGMA schema_version" if engine.dialect.name == "sqlite" else "SELECT 1"
    url = engine.url
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(probe)
    except exc.SQLAlchemyError as error:
        if is_option_error(error):
            raise option_error(url, section, describe_error(error, url)) from None
        raise _unreachable_error(url, error, section) from None
    except (TypeError, ValueError, OSError) as error:  # PyMySQL refuses the value of an option, or a certificate
        raise option_error(url, section, f"its driver refuses an option: {describe_error(error, url)}") from None
    except RuntimeError as error:  # PyMySQL misses a library for the server's kind of login
        raise _unreachable_error(url, error, section) from None


def _unreachable_error(url: URL, error: BaseException, section: str) -> DatabaseError:
    advice = find_advice(error, url)
    return DatabaseError(
        f"{mask_password(url)}: cannot be reached: {describe_error(error, url)}. {f'{advice}. ' if advice else ''}"
        f"{url_hint(section)}"
    )
