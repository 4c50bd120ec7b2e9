"""Connects to databases, and runs transactions: read-only, writing, and with retries.

Connections are not pooled: Luigi's workers fork, a connection that two processes share breaks both, and a server closes
one that is idle for an hour. Code that runs many transactions in a row uses `persistent_connection`. The schema is the
part of `tasks.database.schema`.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, ExceptionContext
from sqlalchemy.pool import NullPool, QueuePool

from models.errors import DatabaseError, SettingsError
from tasks.database.tables import is_mysql

if TYPE_CHECKING:
    from tasks.settings.storage import DatabaseSettings

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_EXTRAS = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mysql"}
_EXAMPLE = "postgresql://user:password@host:5432/spamscore"

# SQLite has one writer at a time. Other writers wait up to this long for the lock.
_SQLITE_BUSY_SECONDS = 60

# Errors worth a retry: a deadlock, a lock timeout, a server that restarts.
_RETRYABLE_STATES = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03"})
_RETRYABLE_MYSQL_CODES = frozenset({1020, 1205, 1213, 2002, 2003, 2006, 2013})
_CHECK_VIOLATION_CODES = frozenset({3819, 4025})  # of MySQL and MariaDB
_RETRY_DELAYS = (0.1, 0.5, 2.0, 5.0)  # seconds before each retry

# Keys in the query of a URL whose values are secret.
_SECRET_KEY = re.compile(r"pass|secret|token|api_?key|credential|signature", re.IGNORECASE)

Result = TypeVar("Result")


def mask_password(url: str | URL) -> str:
    """Returns a URL with its password, and secrets in its query, as ``***``; a URL that cannot be parsed as ``…``."""
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        scheme = re.match(r"[\w+]+://", str(url))
        return f"{scheme[0] if scheme else ''}…"
    masked = parsed.update_query_dict({key: "***" for key in parsed.query if _SECRET_KEY.search(key)})
    return masked.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def connect(settings: DatabaseSettings, section: str = "database") -> Engine:
    """Opens the database of a URL and checks that it can be reached. Creates nothing, not even a SQLite file.

    Args:
        settings: the URL, and the seconds to wait for a connection.
        section: the section of luigi.cfg that the URL is from, for error messages.

    Raises:
        SettingsError: the URL cannot be parsed, or names a database or driver that SQLAlchemy does not know.
        DatabaseError: the driver is not installed, or the database cannot be reached.
    """
    url = _parse_url(settings.url, section)
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
                if not _is_retryable(error):
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
            f"{mask_password(engine.url)}: {_describe_error(error, engine.url)}. "
            "Committed rows are safe: correct the cause and run again."
        ) from error


def _is_retryable(error: exc.DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    code = error.orig.args[0] if error.orig and error.orig.args else None
    # A psycopg error without a state comes from the connection, not from the server.
    is_lost = isinstance(error, exc.OperationalError) and hasattr(error.orig, "sqlstate") and state is None
    return error.connection_invalidated or is_lost or state in _RETRYABLE_STATES or code in _RETRYABLE_MYSQL_CODES


def _describe_error(error: BaseException, url: URL) -> str:
    """Returns the driver's error message on one line, without the password."""
    driver_error = getattr(error, "orig", None) or error
    text = str(driver_error.args[-1]) if driver_error.args else type(driver_error).__name__
    if url.password:
        text = text.replace(str(url.password), "***")
    return " ".join(text.split()).rstrip(".")


def _parse_url(text: str, section: str) -> URL:
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):
        raise _invalid_url_error(text, section, "it cannot be parsed") from None
    if "@" in (url.host or ""):
        raise _invalid_url_error("…", section, "its user or password contains an @, which must be written %40")
    if url.drivername == "sqlite" and sqlite_path(url) is None:
        raise _invalid_url_error(text, section, "an in-memory database is lost when the run ends")
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _invalid_url_error(text: str, section: str, reason: str) -> SettingsError:
    return SettingsError(
        f"[{section}] url = {mask_password(text)}: {reason}. Expected a SQLAlchemy URL such as {_EXAMPLE} or "
        f"sqlite:///spamscore.db, with characters such as @ : / in a password written %40 %3A %2F. {_url_hint(section)}"
    )


def _url_hint(section: str) -> str:
    return (
        f"Set [{section}] url in luigi.cfg, or the environment variable SPAMSCORE_{section.upper()}_URL, which is the "
        "place for a password."
    )


def _create_engine(url: URL, timeout: int, section: str) -> Engine:
    try:
        if url.drivername == "postgresql+psycopg" and not find_spec("pgpq"):
            raise ModuleNotFoundError(name="pgpq")  # before a batch has scored anything
        # hide_parameters: otherwise the text of an error would contain message identifiers.
        return sa.create_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args=_connect_arguments(url, timeout)
        )
    except exc.NoSuchModuleError:
        raise _invalid_url_error(str(url), section, f"SQLAlchemy knows no {url.drivername}") from None
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(url.get_backend_name())
        install = f'pip install "spamscore[{extra}]"' if extra else f"pip install {error.name}"
        raise DatabaseError(
            f"{mask_password(url)}: its driver {error.name} is not installed. Install it: {install}"
        ) from None


def _connect_arguments(url: URL, timeout: int) -> dict[str, Any]:
    """Returns the arguments for the driver, except those that the URL sets itself."""
    defaults: dict[str, dict[str, Any]] = {
        "sqlite+pysqlite": {"timeout": _SQLITE_BUSY_SECONDS},
        "postgresql+psycopg": {"connect_timeout": timeout, "application_name": "spamscore"},
        "mysql+pymysql": {
            "connect_timeout": timeout,
            "charset": "utf8mb4",
            # An administrator may have removed it. Without it, a text that is too long is truncated silently.
            "init_command": "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')",
        },
    }
    driver = f"{url.get_backend_name().replace('mariadb', 'mysql')}+{url.get_driver_name()}"
    return {key: value for key, value in defaults.get(driver, {}).items() if key not in url.query}


def _add_listeners(engine: Engine) -> Engine:
    if engine.dialect.name == "sqlite":
        _control_sqlite_transactions(engine)
    if is_mysql(engine.dialect):
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


def sqlite_path(url: URL) -> Path | None:
    """Returns the path of a SQLite file, or None for an in-memory database."""
    name = (url.database or "").removeprefix("file:")
    return None if name in ("", ":memory:") or url.query.get("mode") == "memory" else Path(name)


def is_missing_file(engine: Engine) -> bool:
    """Returns whether the URL names a SQLite file that does not exist."""
    path = sqlite_path(engine.url) if engine.dialect.name == "sqlite" else None
    return path is not None and not path.exists()


def _check_sqlite_folder(url: URL, section: str) -> None:
    path = sqlite_path(url)
    if path is not None and not path.parent.is_dir():
        raise DatabaseError(
            f"{mask_password(url)}: no such folder: {path.parent}. Create it, or correct the URL: {_url_hint(section)}"
        )


def _check_reachable(engine: Engine, section: str) -> None:
    # SQLite does not open its file before a statement needs it.
    probe = "PRAGMA schema_version" if engine.dialect.name == "sqlite" else "SELECT 1"
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(probe)
    except exc.SQLAlchemyError as error:
        raise DatabaseError(
            f"{mask_password(engine.url)}: cannot be reached: {_describe_error(error, engine.url)}. "
            f"{_url_hint(section)}"
        ) from None
