"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.errors import InputError
from tasks.sources.rows import SourceRow, check_columns, convert_row
from tasks.sources.text_files import FileSource

BATCH_SIZE = 1024  # rows of a Parquet file decoded at once


def read_parquet(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a Parquet file."""
    try:
        with pq.ParquetFile(source.path, buffer_size=2**20) as file:
            _check_schema(source, file.schema_arrow)
            yield from _batch_rows(source, file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{source}: cannot be read as Parquet: {' '.join(str(error).split())[:300]}. "
            f"Provide the file again, or correct [{source.section}] format."
        ) from None


def _check_schema(source: FileSource, schema: Any) -> None:
    check_columns(str(source), source.section, source.columns, schema.names)
    for setting, name in source.columns.items():
        kind = _value_type(schema.field(name).type)
        expected = _expected(kind, setting == "text_column")
        if expected:
            raise InputError(f"{source}: [{source.section}] {setting} = {name}: expected {expected}, received {kind}")


def _expected(kind: Any, is_message: bool) -> str | None:
    """What a column should hold instead of this type; None when the type will do."""
    if is_message:
        fits = any(test(kind) for test in _TEXT_TYPES) or pa.types.is_null(kind)
        return None if fits else "a column of text"
    return "a column of text, numbers or dates" if pa.types.is_nested(kind) else None


_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)


def _batch_rows(source: FileSource, file: Any) -> Iterator[SourceRow]:
    names = list(dict.fromkeys(source.columns.values()))
    text_column, number = source.columns["text_column"], 0
    for batch in file.iter_batches(batch_size=BATCH_SIZE, columns=names):
        columns = [_python_values(batch.column(name)) for name in names]
        for values in zip(*columns, strict=True):
            number += 1
            yield convert_row(number, dict(zip(names, values, strict=True)), text_column)


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _python_values(column: Any) -> list[Any]:
    """The values of an Arrow array; times as ISO text at face value, since Python's cannot hold every one of them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type) and column.type.tz:
        column = pc.local_timestamp(column)
    if pa.types.is_temporal(column.type):
        column = pc.cast(column, pa.string())
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return list(pc.cast(column, pa.large_binary()).to_pylist())
