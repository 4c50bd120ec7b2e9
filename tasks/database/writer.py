"""The one bulk writer: rows into a table by the fastest way its database has, in the caller's transaction.

PostgreSQL takes binary COPY, which pgpq makes of whole columns; SQLite a prepared statement with many rows in it, MySQL
the driver's own way to send many, and others SQLAlchemy's own insert. `benchmarks/` has the figures; what the rows are,
and what happens when one is refused, is `tasks.database.ledger`'s.
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

# Rows in one call of the driver, where the driver makes one statement of them and so holds them twice.
_SLICE = 10_000
# Values in one statement of SQLite's; it takes up to 32,766.
_SQLITE_VALUES = 4_000

# Arrow's names of the types that `tasks.database.tables` is made of, the nearest class first.
_ARROW_TYPES: list[tuple[type[sa.types.TypeEngine[Any]], str]] = [
    (sa.BigInteger, "int64"),
    (sa.Integer, "int32"),
    (sa.Float, "float64"),
    (sa.Boolean, "bool"),
    (sa.Date, "date32"),
    (sa.String, "large_string"),
]


def insert_rows(connection: Connection, table: sa.Table, columns: Columns) -> None:
    """Inserts rows in the transaction that the connection is in.

    Args:
        connection: SQLAlchemy's connection; committing is the caller's.
        table: where the rows go.
        columns: values of all rows, [rows], by the name of the column: a list of plain Python values, or an array;
            sorted by the table's key they go in many times faster. Dates and times are not converted on their way: use
            Core for a table that has them.

    Raises:
        ValueError: the columns do not have the same length.
        sqlalchemy.exc.IntegrityError: a row is there already, or breaks another rule of the table. On PostgreSQL the
            transaction can only be rolled back then.
        sqlalchemy.exc.DBAPIError: the database refused otherwise, or was lost.
    """
    if not any(map(len, columns.values())):
        return
    way = f"{connection.dialect.name}+{connection.dialect.driver}"
    if way == "postgresql+psycopg":
        _copy(connection, table, columns)
    elif way == "sqlite+pysqlite":
        _execute_many_values(connection, table, columns)
    elif way in ("mysql+pymysql", "mariadb+pymysql"):
        _execute_prepared(connection, table, columns)
    else:
        _execute_core(connection, table, columns)


def _copy(connection: Connection, table: sa.Table, columns: Columns) -> None:
    import pyarrow as pa
    from pgpq import ArrowToPostgresBinaryEncoder

    driver: psycopg.Connection[Any] = connection.connection.dbapi_connection  # type: ignore[assignment]
    statement = f"COPY {_target(connection, table, columns)} FROM STDIN (FORMAT BINARY)"
    rows = pa.record_batch({name: pa.array(some, _arrow_type(table.c[name])) for name, some in columns.items()})
    encoder = ArrowToPostgresBinaryEncoder(rows.schema)
    try:
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for part in (encoder.write_header(), encoder.write_batch(rows), encoder.finish()):
                copy.write(part)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _wrapped(connection, statement, error) from error


def _arrow_type(column: sa.Column[Any]) -> str:
    for kind, name in _ARROW_TYPES:
        implementation = column.type.impl if isinstance(column.type, sa.types.TypeDecorator) else column.type
        if isinstance(implementation, kind):
            return name
    raise TypeError(f"{column}: no type for COPY is known for {column.type!r}; expected one of _ARROW_TYPES")


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


def _execute_many_values(connection: Connection, table: sa.Table, columns: Columns) -> None:
    """SQLite's driver gives up Python's lock once a statement: with many rows in one, other threads go on meanwhile."""
    # For a bool it looks for an adapter, which takes half as long as all else of a row; for a number it does not.
    numbers = {name: _without_bools(some) for name, some in columns.items()}
    count, values = len(columns), itertools.chain.from_iterable(_rows(numbers))
    target = _target(connection, table, columns)
    while some := tuple(itertools.islice(values, _SQLITE_VALUES // count * count)):
        connection.exec_driver_sql(_insert_many(target, count, len(some) // count), some)


def _without_bools(some: list[Any] | NDArray[Any]) -> list[Any] | NDArray[Any]:
    return some.astype("int8") if not isinstance(some, list) and some.dtype.kind == "b" else some


@functools.lru_cache(maxsize=8)  # the longest is one of thousands of places, and the same for nearly all statements
def _insert_many(target: str, columns: int, rows: int) -> str:
    places = ", ".join([f"({', '.join('?' * columns)})"] * rows)
    return f"INSERT INTO {target} VALUES {places}"  # noqa: S608 - names are ours


def _execute_prepared(connection: Connection, table: sa.Table, columns: Columns) -> None:
    values = ", ".join("%s" for _ in columns)
    statement = f"INSERT INTO {_target(connection, table, columns)} VALUES ({values})"  # noqa: S608 - names are ours
    for some in _slices(columns):
        connection.exec_driver_sql(statement, some)


def _execute_core(connection: Connection, table: sa.Table, columns: Columns) -> None:
    for some in _slices(columns):
        connection.execute(sa.insert(table), [dict(zip(columns, row, strict=True)) for row in some])


def _slices(columns: Columns) -> Iterator[list[tuple[Any, ...]]]:
    each = _rows(columns)
    while some := list(itertools.islice(each, _SLICE)):
        yield some


def _rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    """The rows, of plain Python values: drivers do not know numpy's."""
    return zip(*(some if isinstance(some, list) else some.tolist() for some in columns.values()), strict=True)


def _target(connection: Connection, table: sa.Table, names: Iterable[str]) -> str:
    """The table and its columns, quoted as the database wants them (`row_number` is a word of MySQL's own)."""
    quote = connection.dialect.identifier_preparer.quote
    return f"{quote(table.name)} ({', '.join(quote(name) for name in names)})"
