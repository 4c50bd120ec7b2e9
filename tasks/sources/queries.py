"""Streams the rows of a SQL query through SQLAlchemy, as rows of `tasks.sources.rows`.

The query comes from the user and may only read. Its transaction is read-only where the database supports it, and is
always rolled back. `tasks.database.connection` opens the database.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, CursorResult, Engine

from models.errors import DatabaseError, InputError
from tasks.database.connection import connect, is_missing_file
from tasks.database.driver_errors import describe_error, find_advice
from tasks.settings.masking import mask_password
from tasks.settings.storage import DatabaseSettings
from tasks.sources.rows import SourceRow, check_columns, convert_row

FETCH_SIZE = 1000  # rows fetched from the server at a time

_READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}


@dataclass(frozen=True)
class QuerySource:
    """A query for messages.

    Attributes:
        section: section of luigi.cfg that holds the query: corpus or messages.
        query: one SELECT.
        columns: names of the columns to read, by the setting that names each; ``text_column`` is the message.
        database: the settings of [database]; its URL is used if ``url`` is empty, its connect timeout always.
        url: SQLAlchemy URL of the section.
        parameters: values of ``:name`` in the query; values that the query does not use are left out.
    """

    section: str
    query: str
    columns: Mapping[str, str]
    database: DatabaseSettings
    url: str = ""
    parameters: Mapping[str, date] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"[{self.section}] query"


def read_query(source: QuerySource) -> Iterator[SourceRow]:
    """Yields each row that a query returns, in its order.

    The database is opened at the call; the query runs when the first row is asked for.

    Raises:
        SettingsError: the URL cannot be parsed.
        DatabaseError: the database cannot be reached, or the connection is lost while rows are read.
        InputError: the query is invalid, is a statement that returns no rows, or lacks a column.
    """
    statement = bind_parameters(source)
    engine = open_source_database(source)
    return _stream_rows(source, engine, statement)


def bind_parameters(source: QuerySource) -> sa.TextClause:
    """Returns the query with its parameters bound.

    Raises:
        InputError: the query uses a parameter that has no value.
    """
    statement = sa.text(source.query)
    used = statement.compile().params
    unknown = [f":{name}" for name in used if name not in source.parameters]
    if unknown:
        available = " and ".join(f":{name}" for name in source.parameters) or "none"
        raise InputError(
            f"{source}: unknown parameter {', '.join(unknown)}. Parameters are {available}. "
            r"Write \: for a literal colon before a letter."
        )
    return statement.bindparams(**{name: source.parameters[name] for name in used})


def open_source_database(source: QuerySource) -> Engine:
    """Opens the database of a query: the one of its section, or the one of [database].

    Raises:
        SettingsError: the URL cannot be parsed.
        DatabaseError: the database cannot be reached, or its SQLite file does not exist; the file is not created.
    """
    settings = DatabaseSettings(source.url or source.database.url, source.database.connect_timeout)
    section = source.section if source.url else "database"
    engine = connect(settings, section)
    if is_missing_file(engine):
        raise DatabaseError(
            f"[{section}] url = {mask_password(engine.url)}: no such file (looked in {Path.cwd()}), and {source} reads "
            f"from it. Correct [{section}] url."
        )
    return engine


def _stream_rows(source: QuerySource, engine: Engine, statement: sa.TextClause) -> Iterator[SourceRow]:
    text_column = source.columns["text_column"]
    with _translate_errors(source, engine), engine.connect() as connection, _execute(connection, statement) as result:
        column_indices = _find_column_indices(source, result)
        for row_number, row in enumerate(result, 1):
            yield convert_row(row_number, {name: row[index] for name, index in column_indices}, text_column)
        connection.rollback()


def _execute(connection: Connection, statement: sa.TextClause) -> CursorResult[Any]:
    """Runs a query in a read-only transaction, with a server-side cursor where the database has one."""
    if connection.dialect.name in _READ_ONLY:
        connection.exec_driver_sql(_READ_ONLY[connection.dialect.name])
    if connection.dialect.name == "sqlite":
        # SQLite stores any bytes as text. By default its driver ends the query at the first that are not UTF-8.
        driver: Any = connection.connection.driver_connection
        driver.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
    if connection.dialect.name == "postgresql":
        _read_any_value(connection)
    return connection.execution_options(yield_per=FETCH_SIZE).execute(statement)


def _read_any_value(connection: Connection) -> None:
    """Makes PostgreSQL's driver return what it has no Python value for as text or bytes, instead of ending the query.

    Such values are ``infinity``, years before 1 and after 9999, and texts of a SQL_ASCII database, which may have any
    encoding. `tasks.sources.rows` converts them; a date among them is unreadable, which rejects its row only.
    """
    import psycopg
    from psycopg.pq import Format

    driver: Any = connection.connection.driver_connection
    if driver.info.parameter_status("server_encoding") == "SQL_ASCII":
        connection.exec_driver_sql("SET LOCAL client_encoding TO SQL_ASCII")
    for name in ("date", "time", "timetz", "timestamp", "timestamptz", "interval"):
        oid = psycopg.adapters.types[name].oid
        strict: Any = driver.adapters.get_loader(oid, Format.TEXT)
        driver.adapters.register_loader(oid, _lenient_loader(strict))


def _lenient_loader(strict: Any) -> Any:
    """Returns a loader of psycopg that returns the text of a value that another loader refuses."""
    import psycopg
    from psycopg.adapt import Loader

    class LenientLoader(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._strict = strict(oid, context)

        def load(self, data: Any) -> Any:
            try:
                return self._strict.load(data)
            except (psycopg.DataError, NotImplementedError):  # the latter: an intervalstyle other than the default
                return bytes(data).decode()

    return LenientLoader


def _find_column_indices(source: QuerySource, result: CursorResult[Any]) -> list[tuple[str, int]]:
    """Returns each requested column with its index in the rows of a result."""
    if not result.returns_rows:
        raise InputError(
            f"{source}: expected a SELECT, received a statement that returns no rows: {_shorten_query(source)}"
        )
    names = list(result.keys())
    check_columns(str(source), source.section, source.columns, names)
    return [(name, names.index(name)) for name in dict.fromkeys(source.columns.values())]


@contextlib.contextmanager
def _translate_errors(source: QuerySource, engine: Engine) -> Iterator[None]:
    """Raises SQLAlchemy's errors as InputError, or as DatabaseError if the connection was lost."""
    try:
        yield
    except exc.DBAPIError as error:
        reason, advice = describe_error(error, engine.url), find_advice(error, engine.url)
        if error.connection_invalidated:
            raise DatabaseError(
                f"{mask_password(engine.url)}: connection lost while {source} was read: {reason}. Run again."
            ) from None
        raise InputError(
            f"{source}: {mask_password(engine.url)} rejected the query: {reason}. "
            f"{advice or 'Correct the query'}: {_shorten_query(source)}"
        ) from None
    except exc.SQLAlchemyError as error:
        raise InputError(
            f"{source}: {describe_error(error, engine.url)}. Correct the query: {_shorten_query(source)}"
        ) from None


def _shorten_query(source: QuerySource) -> str:
    return " ".join(source.query.split())[:300]
