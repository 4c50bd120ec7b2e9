"""Inserts many rows into a table in the fastest way each database has, in the transaction of the caller.

PostgreSQL: binary COPY, which pgpq encodes from whole columns. SQLite: a prepared statement with many rows. MySQL: the
driver's executemany. `tasks.database.urls` allows one driver for each database. `benchmarks/` has the figures.
`tasks.database.ledger` decides what the rows are and what happens when a row is rejected.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

if TYPE_CHECKING:
    import psycopg
    from numpy.typing import NDArray

Columns: TypeAlias = "Mapping[str, list[Any] | NDArray[Any]]"

# Rows in one call of the driver. The driver builds one statement from them, so they are in memory twice.
_SLICE_ROWS = 10_000
# Values in one SQLite statement. SQLite accepts up to 32,766.
_SQLITE_VALUES = 4_000

# Arrow's names for the column types of `tasks.database.tables`. Subclasses come before their base classes.
_ARROW_TYPES: list[tuple[type[sa.types.TypeEngine[Any]], str]] = [
    (sa.BigInteger, "int64"),
    (sa.Integer, "int32"),
    (sa.Float, "float64"),
    (sa.Boolean, "bool"),
    (sa.Date, "date32"),
    (sa.String, "large_string"),
]


def insert_rows(connection: Connection, table: sa.Table, columns: Columns) -> None:
    """Inserts rows in the current transaction of a connection.

    Args:
        connection: SQLAlchemy connection; the caller commits.
        table: table to insert into.
        columns: values of all rows, [rows], by column name: a list of plain Python values, or an array. Rows sorted by
            the key of the table are inserted many times faster. Dates and times are not converted: use SQLAlchemy Core
            for a table that has them.

    Raises:
        ValueError: the columns differ in length.
        sqlalchemy.exc.IntegrityError: a row exists already, or violates another constraint of the table. On PostgreSQL
            the transaction can then only be rolled back.
        sqlalchemy.exc.DBAPIError: the database reported another error, or the connection was lost.
    """
    if not any(map(len, columns.values())):
        return
    if connection.dialect.name == "postgresql":
        _insert_by_copy(connection, table, columns)
    elif connection.dialect.name == "sqlite":
        _insert_multi_row(connection, table, columns)
    else:
        _insert_executemany(connection, table, columns)


def _insert_by_copy(connection: Connection, table: sa.Table, columns: Columns) -> None:
    import pyarrow as pa
    from pgpq import ArrowToPostgresBinaryEncoder

    driver: psycopg.Connection[Any] = connection.connection.dbapi_connection  # type: ignore[assignment]
    statement = f"COPY {_quote_target(connection, table, columns)} FROM STDIN (FORMAT BINARY)"
    rows = pa.record_batch({name: pa.array(values, _arrow_type(table.c[name])) for name, values in columns.items()})
    encoder = ArrowToPostgresBinaryEncoder(rows.schema)
    try:
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for block in (encoder.write_header(), encoder.write_batch(rows), encoder.finish()):
                copy.write(block)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _wrap_driver_error(connection, statement, error) from error


def _arrow_type(column: sa.Column[Any]) -> str:
    for column_type, name in _ARROW_TYPES:
        implementation = column.type.impl if isinstance(column.type, sa.types.TypeDecorator) else column.type
        if isinstance(implementation, column_type):
            return name
    raise TypeError(f"{column}: expected a column type of _ARROW_TYPES for COPY, received {column.type!r}")


def _wrap_driver_error(connection: Connection, statement: str, error: Exception) -> exc.StatementError:
    """Returns the error that SQLAlchemy would have raised for this error of the driver."""
    dialect = connection.dialect
    is_disconnect = dialect.is_disconnect(error, connection.connection.dbapi_connection, None)  # type: ignore[arg-type]
    wrapped = exc.DBAPIError.instance(
        statement,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=is_disconnect,
        dialect=dialect,
    )
    if is_disconnect:
        connection.invalidate(error)
    return wrapped


def _insert_multi_row(connection: Connection, table: sa.Table, columns: Columns) -> None:
    """Inserts many rows per statement. SQLite's driver releases Python's lock once per statement, for other threads."""
    # For a bool the driver looks for an adapter, which takes half as long as the rest of the row; not so for a number.
    numbers = {name: _convert_bools(values) for name, values in columns.items()}
    count, values = len(columns), itertools.chain.from_iterable(_rows(numbers))
    target = _quote_target(connection, table, columns)
    while value_slice := tuple(itertools.islice(values, _SQLITE_VALUES // count * count)):
        connection.exec_driver_sql(_build_multi_row_insert(target, count, len(value_slice) // count), value_slice)


def _convert_bools(values: list[Any] | NDArray[Any]) -> list[Any] | NDArray[Any]:
    return values.astype("int8") if not isinstance(values, list) and values.dtype.kind == "b" else values


@functools.lru_cache(maxsize=8)  # a statement has thousands of placeholders, and nearly all statements are equal
def _build_multi_row_insert(target: str, columns: int, rows: int) -> str:
    placeholders = ", ".join([f"({', '.join('?' * columns)})"] * rows)
    return f"INSERT INTO {target} VALUES {placeholders}"  # noqa: S608 - names of our own tables


def _insert_executemany(connection: Connection, table: sa.Table, columns: Columns) -> None:
    placeholders = ", ".join("%s" for _ in columns)
    target = _quote_target(connection, table, columns)
    statement = f"INSERT INTO {target} VALUES ({placeholders})"  # noqa: S608 - names of our own tables
    for rows in _slices(columns):
        connection.exec_driver_sql(statement, rows)


def _slices(columns: Columns) -> Iterator[list[tuple[Any, ...]]]:
    rows = _rows(columns)
    while row_slice := list(itertools.islice(rows, _SLICE_ROWS)):
        yield row_slice


def _rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """Returns the rows as plain Python values: drivers do not accept numpy's."""
    return zip(*(values if isinstance(values, list) else values.tolist() for values in columns.values()), strict=True)


def _quote_target(connection: Connection, table: sa.Table, names: Iterable[str]) -> str:
    """Returns the table and its columns, quoted for the database: `row_number` is a reserved word in MySQL."""
    quote = connection.dialect.identifier_preparer.quote
    return f"{quote(table.name)} ({', '.join(quote(name) for name in names)})"
