"""The one bulk writer: rows into a table by the fastest way its database has, in the caller's transaction.

PostgreSQL takes binary COPY, SQLite a prepared statement with many rows in it, MySQL the driver's own way to send many,
and others SQLAlchemy's own insert. `benchmarks/` has the figures; what the rows are, and what happens when one is
refused, is `tasks.ledger`'s.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

if TYPE_CHECKING:
    import psycopg

# Rows in one call of the driver, where the driver makes one statement of them and so holds them twice.
_SLICE = 10_000
# Values in one statement of SQLite's; it takes up to 32,766.
_SQLITE_VALUES = 4_000

# PostgreSQL's names of the types that `tasks.tables` is made of, the nearest class first.
_COPY_TYPES: list[tuple[type[sa.types.TypeEngine[Any]], str]] = [
    (sa.BigInteger, "int8"),
    (sa.Integer, "int4"),
    (sa.Float, "float8"),
    (sa.Boolean, "bool"),
    (sa.Date, "date"),
    (sa.String, "varchar"),
]


def insert_rows(
    connection: Connection, table: sa.Table, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Inserts rows in the transaction that the connection is in.

    Args:
        connection: SQLAlchemy's connection; committing is the caller's.
        table: where the rows go.
        columns: names of its columns, in the order of a row's values.
        rows: one tuple a row, of plain Python values (no numpy ones); sorted by the table's key they go in many times
            faster. Dates and times are not converted on their way: use Core for a table that has them.

    Raises:
        sqlalchemy.exc.IntegrityError: a row is there already, or breaks another rule of the table. On PostgreSQL the
            transaction can only be rolled back then.
        sqlalchemy.exc.DBAPIError: the database refused otherwise, or was lost.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    rows = itertools.chain([first], rows)
    way = f"{connection.dialect.name}+{connection.dialect.driver}"
    if way == "postgresql+psycopg":
        _copy(connection, table, columns, rows)
    elif way == "sqlite+pysqlite":
        _execute_many_values(connection, table, columns, rows)
    elif way in ("mysql+pymysql", "mariadb+pymysql"):
        _execute_prepared(connection, table, columns, rows)
    else:
        _execute_core(connection, table, columns, rows)


def _copy(connection: Connection, table: sa.Table, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    driver: psycopg.Connection[Any] = connection.connection.dbapi_connection  # type: ignore[assignment]
    statement = f"COPY {_target(connection, table, columns)} FROM STDIN (FORMAT BINARY)"
    try:
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.set_types([_copy_type(table.c[name]) for name in columns])
            for row in rows:
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _wrapped(connection, statement, error) from error


def _copy_type(column: sa.Column[Any]) -> str:
    for kind, name in _COPY_TYPES:
        implementation = column.type.impl if isinstance(column.type, sa.types.TypeDecorator) else column.type
        if isinstance(implementation, kind):
            return name
    raise TypeError(f"{column}: no type for COPY is known for {column.type!r}; expected one of _COPY_TYPES")


def _wrapped(connection: Connection, statement: str, error: Exception) -> exc.StatementError:
    """The error as SQLAlchemy would have raised it, had the statement gone through SQLAlchemy."""
    dialect = connection.dialect
    lost = dialect.is_disconnect(error, connection.connection.dbapi_connection, None)  # type: ignore[arg-type]
    wrapped = exc.DBAPIError.instance(
        statement,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=dialect,
    )
    if lost:
        connection.invalidate(error)
    return wrapped


def _execute_many_values(
    connection: Connection, table: sa.Table, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """SQLite's driver gives up Python's lock once a statement: with many rows in one, other threads go on meanwhile."""
    count, values = len(columns), itertools.chain.from_iterable(rows)
    target = _target(connection, table, columns)
    while some := tuple(itertools.islice(values, _SQLITE_VALUES // count * count)):
        connection.exec_driver_sql(_insert_many(target, count, len(some) // count), some)


@functools.lru_cache(maxsize=8)  # the longest is one of thousands of places, and the same for nearly all statements
def _insert_many(target: str, columns: int, rows: int) -> str:
    places = ", ".join([f"({', '.join('?' * columns)})"] * rows)
    return f"INSERT INTO {target} VALUES {places}"  # noqa: S608 - names are ours


def _execute_prepared(
    connection: Connection, table: sa.Table, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    values = ", ".join("%s" for _ in columns)
    statement = f"INSERT INTO {_target(connection, table, columns)} VALUES ({values})"  # noqa: S608 - names are ours
    for some in _slices(rows):
        connection.exec_driver_sql(statement, some)


def _execute_core(
    connection: Connection, table: sa.Table, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    for some in _slices(rows):
        connection.execute(sa.insert(table), [dict(zip(columns, row, strict=True)) for row in some])


def _slices(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    each = iter(rows)
    while some := list(itertools.islice(each, _SLICE)):
        yield some


def _target(connection: Connection, table: sa.Table, columns: Sequence[str]) -> str:
    """The table and its columns, quoted as the database wants them (`row_number` is a word of MySQL's own)."""
    quote = connection.dialect.identifier_preparer.quote
    return f"{quote(table.name)} ({', '.join(quote(name) for name in columns)})"
