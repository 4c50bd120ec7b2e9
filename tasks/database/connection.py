"""The way into a database: its address, its driver, one transaction, and a schema of the version this code knows.

Alembic is imported only when a schema has to be made, changed or refused, so that "is it done?" stays a fast question.
No connection is pooled: Luigi's workers fork, a connection shared by two processes breaks both, and a server forgets
one that is idle for an hour. Who has many transactions one after another keeps one meanwhile (`connection_kept`).
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

# SQLite has one writer at a time; the others wait this long for theirs to be the turn.
_SQLITE_BUSY_SECONDS = 60

# What goes away by itself: a deadlock, a lock waited for too long, a server that restarts.
_PASSING_STATES = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03"})
_PASSING_MYSQL = frozenset({1020, 1205, 1213, 2002, 2003, 2006, 2013})
_BROKEN_CHECK = frozenset({3819, 4025})  # MySQL's and MariaDB's
_PAUSES = (0.1, 0.5, 2.0, 5.0)

# Keys of an address's query whose values nobody else is to see.
_SECRET_KEY = re.compile(r"pass|secret|token|api_?key|credential|signature", re.IGNORECASE)

Result = TypeVar("Result")


def mask_password(url: str | URL) -> str:
    """An address fit to be shown: its password, and any in its query, as ``***``; one that cannot be read as ``…``."""
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        scheme = re.match(r"[\w+]+://", str(url))
        return f"{scheme[0] if scheme else ''}…"
    shown = parsed.update_query_dict({key: "***" for key in parsed.query if _SECRET_KEY.search(key)})
    return shown.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def connect(settings: DatabaseSettings, section: str = "database") -> Engine:
    """Opens the database an address names and sees that it answers; creates nothing, not even SQLite's file.

    Args:
        settings: the address and the seconds to wait for a connection.
        section: the section of luigi.cfg that the address is from, for messages.

    Raises:
        SettingsError: the address cannot be read, or names a database or driver that SQLAlchemy does not know.
        DatabaseError: the driver is not installed, or the database cannot be reached.
    """
    url = _parsed(settings.url, section)
    engine = _prepared(_engine(url, settings.connect_timeout, section))
    if url.get_backend_name() == "sqlite":
        _check_sqlite_folder(url, section)
    if not is_missing_file(engine):
        _check_reachable(engine, section)
    return engine


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads.

    Raises:
        DatabaseError: the database refused, or was lost.
    """
    with _explained(engine), engine.connect() as connection:
        yield connection


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes: committed at the end of the block, rolled back if an error leaves it.

    Raises:
        sqlalchemy.exc.IntegrityError: a row broke a rule of its table.
        DatabaseError: the database refused otherwise, or was lost.
    """
    with _explained(engine), _transaction(engine) as connection:
        yield connection


def run_with_retries(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Does work in one transaction, and again when it fell to a deadlock or a server that restarts; eight seconds long.

    The work must be safe to do twice, for a connection may break after the commit and before its answer.

    Raises:
        sqlalchemy.exc.IntegrityError: a row broke a rule of its table.
        DatabaseError: the database refused otherwise, or stayed lost.
    """
    with _explained(engine):
        for pause in _PAUSES:
            try:
                return _done(engine, work)
            except exc.DBAPIError as error:
                if not _passes(error):
                    raise
                time.sleep(pause)
        return _done(engine, work)


def _done(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    with _transaction(engine) as connection:
        return work(connection)


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        connection.execution_options(spamscore_writes=True)
        with connection.begin():
            yield connection


@contextmanager
def _explained(engine: Engine) -> Iterator[None]:
    try:
        yield
    except exc.IntegrityError:
        raise
    except exc.SQLAlchemyError as error:
        raise DatabaseError(
            f"{mask_password(engine.url)}: {_reason(error, engine.url)}. What was committed is safe: mend it and run again."
        ) from error


def _passes(error: exc.DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    code = error.orig.args[0] if error.orig and error.orig.args else None
    # A psycopg error without a state is one of the connection, not of the server.
    lost = isinstance(error, exc.OperationalError) and hasattr(error.orig, "sqlstate") and state is None
    return error.connection_invalidated or lost or state in _PASSING_STATES or code in _PASSING_MYSQL


def _reason(error: BaseException, url: URL) -> str:
    """What the driver said, on one line, without the password."""
    said = getattr(error, "orig", None) or error
    text = str(said.args[-1]) if said.args else type(said).__name__
    if url.password:
        text = text.replace(str(url.password), "***")
    return " ".join(text.split()).rstrip(".")


def _parsed(address: str, section: str) -> URL:
    try:
        url = sa.make_url(address)
    except (exc.ArgumentError, ValueError):
        raise _malformed(address, section, "it cannot be read") from None
    if "@" in (url.host or ""):
        raise _malformed("…", section, "a user or password holds an @ that must be written %40")
    if url.drivername == "sqlite" and sqlite_path(url) is None:
        raise _malformed(address, section, "a database in memory is gone when the run ends")
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _malformed(address: str, section: str, reason: str) -> SettingsError:
    return SettingsError(
        f"[{section}] url = {mask_password(address)}: {reason}. Expected a SQLAlchemy address such as {_EXAMPLE} or "
        f"sqlite:///spamscore.db, with signs like @ : / in a password written %40 %3A %2F. {_way_out(section)}"
    )


def _way_out(section: str) -> str:
    return f"Set [{section}] url in luigi.cfg, or SPAMSCORE_{section.upper()}_URL, where a password belongs."


def _engine(url: URL, timeout: int, section: str) -> Engine:
    try:
        if url.drivername == "postgresql+psycopg" and not find_spec("pgpq"):
            raise ModuleNotFoundError(name="pgpq")  # before a batch has scored anything
        # hide_parameters: the text of an error would hold identifiers of messages.
        return sa.create_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args=_connect_arguments(url, timeout)
        )
    except exc.NoSuchModuleError:
        raise _malformed(str(url), section, f"SQLAlchemy knows no {url.drivername}") from None
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(url.get_backend_name())
        install = f'pip install "spamscore[{extra}]"' if extra else f"pip install {error.name}"
        raise DatabaseError(
            f"{mask_password(url)}: its driver {error.name} is not installed. Install it: {install}"
        ) from None


def _connect_arguments(url: URL, timeout: int) -> dict[str, Any]:
    """What the driver is told, but for what the address says itself."""
    known: dict[str, dict[str, Any]] = {
        "sqlite+pysqlite": {"timeout": _SQLITE_BUSY_SECONDS},
        "postgresql+psycopg": {"connect_timeout": timeout, "application_name": "spamscore"},
        "mysql+pymysql": {
            "connect_timeout": timeout,
            "charset": "utf8mb4",
            # Where an administrator took it away, a text too long would be cut in silence.
            "init_command": "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')",
        },
    }
    driver = f"{url.get_backend_name().replace('mariadb', 'mysql')}+{url.get_driver_name()}"
    return {key: value for key, value in known.get(driver, {}).items() if key not in url.query}


def _prepared(engine: Engine) -> Engine:
    if engine.dialect.name == "sqlite":
        _hold_sqlite_transactions(engine)
    if is_mysql(engine.dialect):
        _sort_mysql_errors(engine)
    return engine


def _hold_sqlite_transactions(engine: Engine) -> None:
    """Takes transactions out of the hands of Python's driver, which begins them late and ends them early.

    A transaction that will write takes the lock as it begins: one that read first could not get it any more.
    """

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("spamscore_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _sort_mysql_errors(engine: Engine) -> None:
    """Makes a broken CHECK an IntegrityError, as elsewhere: the driver takes it for a fault of the server."""

    @event.listens_for(engine, "handle_error")
    def sort(context: ExceptionContext) -> exc.IntegrityError | None:
        error = context.original_exception
        if error.args and error.args[0] in _BROKEN_CHECK:
            return exc.IntegrityError(context.statement, None, error, hide_parameters=True)
        return None


@contextmanager
def persistent_connection(engine: Engine) -> Iterator[Engine]:
    """Within, an engine that keeps a connection from one transaction to the next, for who has many; closed at the end.

    A new one costs PostgreSQL a process, and SQLite the copy of its write-ahead log into the database when the last one
    is closed. One that was lost meanwhile is replaced as the next transaction begins.
    """

    def connected() -> Any:
        connection = engine.raw_connection()
        own = connection.dbapi_connection
        connection.detach()
        return own

    kept = _prepared(
        sa.create_engine(
            engine.url, creator=connected, poolclass=QueuePool, pool_size=1, max_overflow=-1, pool_pre_ping=True,
            hide_parameters=True,
        )
    )  # fmt: skip
    try:
        yield kept
    finally:
        kept.dispose()


def sqlite_path(url: URL) -> Path | None:
    """SQLite's file, or None for a database in memory."""
    name = (url.database or "").removeprefix("file:")
    return None if name in ("", ":memory:") or url.query.get("mode") == "memory" else Path(name)


def is_missing_file(engine: Engine) -> bool:
    """Whether the address is of a SQLite file that does not exist."""
    path = sqlite_path(engine.url) if engine.dialect.name == "sqlite" else None
    return path is not None and not path.exists()


def _check_sqlite_folder(url: URL, section: str) -> None:
    path = sqlite_path(url)
    if path is not None and not path.parent.is_dir():
        raise DatabaseError(f"{mask_password(url)}: no such folder: {path.parent}. Create it. Or: {_way_out(section)}")


def _check_reachable(engine: Engine, section: str) -> None:
    # SQLite opens its file no earlier than a statement needs it.
    question = "PRAGMA schema_version" if engine.dialect.name == "sqlite" else "SELECT 1"
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(question)
    except exc.SQLAlchemyError as error:
        raise DatabaseError(
            f"{mask_password(engine.url)}: cannot be reached: {_reason(error, engine.url)}. {_way_out(section)}"
        ) from None
