"""Rows of messages out of a SQL query, streamed through SQLAlchemy in the shape of `tasks.sources.rows`.

The query is the user's and only reads: its transaction is a read-only one where the database has such, and is rolled
back in any case. Opening the database is `tasks.database.connection`'s part.
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
from tasks.database.connection import connect, mask_password
from tasks.settings.storage import DatabaseSettings
from tasks.sources.rows import SourceRow, check_columns, convert_row

FETCH_SIZE = 1000  # rows fetched from the server in one go

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
        database: [database]; its address is taken when ``url`` is empty, its time limit always.
        url: SQLAlchemy address of the section.
        parameters: what ``:name`` in the query is bound to; those it does not mention are left out.
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
        SettingsError: the address cannot be read.
        DatabaseError: the database cannot be reached, or is lost on the way.
        InputError: the query is not valid, returns no rows by its nature, or lacks a column.
    """
    statement = bind_parameters(source)
    engine = open_source_database(source)
    return _query_rows(source, engine, statement)


def bind_parameters(source: QuerySource) -> sa.TextClause:
    """The query with the parameters that it mentions.

    Raises:
        InputError: it mentions another one.
    """
    statement = sa.text(source.query)
    mentioned = statement.compile().params
    unknown = [f":{name}" for name in mentioned if name not in source.parameters]
    if unknown:
        known = " and ".join(f":{name}" for name in source.parameters) or "none"
        raise InputError(
            f"{source}: {', '.join(unknown)} is bound to nothing. Parameters are {known}; "
            rf"a colon that is meant as it is, before a letter, is written \:."
        )
    return statement.bindparams(**{name: source.parameters[name] for name in mentioned})


def open_source_database(source: QuerySource) -> Engine:
    """The database to ask: the section's own, or that of [database].

    Raises:
        SettingsError: the address cannot be read.
        DatabaseError: it cannot be reached; a SQLite file that is not there is not made.
    """
    settings = DatabaseSettings(source.url or source.database.url, source.database.connect_timeout)
    section = source.section if source.url else "database"
    engine = connect(settings, section)
    if engine.dialect.name == "sqlite" and not Path((engine.url.database or "").removeprefix("file:")).exists():
        raise DatabaseError(
            f"[{section}] url = {mask_password(engine.url)}: no such file (looked in {Path.cwd()}), and {source} reads "
            f"from it. Correct [{section}] url."
        )
    return engine


def _query_rows(source: QuerySource, engine: Engine, statement: sa.TextClause) -> Iterator[SourceRow]:
    text_column = source.columns["text_column"]
    with _explained(source, engine), engine.connect() as connection, _executed(connection, statement) as result:
        places = _places(source, result)
        for number, row in enumerate(result, 1):
            yield convert_row(number, {name: row[place] for name, place in places}, text_column)
        connection.rollback()


def _executed(connection: Connection, statement: sa.TextClause) -> CursorResult[Any]:
    """Runs the query on a cursor of the server's where there is one, so that rows come as they are asked for."""
    if connection.dialect.name in _READ_ONLY:
        connection.exec_driver_sql(_READ_ONLY[connection.dialect.name])
    if connection.dialect.name == "sqlite":
        # SQLite stores any bytes as text, and its driver ends the whole query at the first that are not UTF-8.
        driver: Any = connection.connection.driver_connection
        driver.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
    return connection.execution_options(yield_per=FETCH_SIZE).execute(statement)


def _places(source: QuerySource, result: CursorResult[Any]) -> list[tuple[str, int]]:
    """Each column asked for with its place in the rows."""
    if not result.returns_rows:
        raise InputError(f"{source}: expected a SELECT, received a statement that returns no rows: {_shown(source)}")
    found = list(result.keys())
    check_columns(str(source), source.section, source.columns, found)
    return [(name, found.index(name)) for name in dict.fromkeys(source.columns.values())]


@contextlib.contextmanager
def _explained(source: QuerySource, engine: Engine) -> Iterator[None]:
    try:
        yield
    except exc.DBAPIError as error:
        said = _said(error, engine)
        if error.connection_invalidated:
            raise DatabaseError(
                f"{mask_password(engine.url)}: lost while {source} was read: {said}. Run again."
            ) from None
        raise InputError(
            f"{source}: {mask_password(engine.url)} refused it: {said}. Correct it; it is: {_shown(source)}"
        ) from None
    except exc.SQLAlchemyError as error:
        raise InputError(f"{source}: {_said(error, engine)}. Correct it; it is: {_shown(source)}") from None


def _said(error: exc.SQLAlchemyError, engine: Engine) -> str:
    """What the driver said, on one line, without the password."""
    reason = getattr(error, "orig", None) or error
    text = " ".join(str(reason).split()).rstrip(".")
    return text.replace(str(engine.url.password), "***") if engine.url.password else text


def _shown(source: QuerySource) -> str:
    return " ".join(source.query.split())[:300]
