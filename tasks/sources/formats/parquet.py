"""Reads rows from Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.errors import InputError
from tasks.sources.file_source import FileSource
from tasks.sources.rows import SourceRow, check_columns, convert_row
from tasks.storage.stored_objects import open_random

BATCH_SIZE = 1024  # rows decoded at a time


def read_parquet(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a Parquet file.

    Raises:
        InputError: the file is damaged, lacks a column, or has a column of a type that cannot be converted.
    """
    try:
        with open_random(source.path) as content, pq.ParquetFile(content, buffer_size=2**20) as file:
            _check_schema(source, file.schema_arrow)
            yield from _read_batches(source, file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{source}: cannot be read as Parquet: {' '.join(str(error).split())[:300]}. "
            f"Provide the file again, or correct [{source.section}] format."
        ) from None


def _check_schema(source: FileSource, schema: Any) -> None:
    check_columns(str(source), source.section, source.columns, schema.names)
    for setting, name in source.columns.items():
        column_type = _value_type(schema.field(name).type)
        expected = _describe_expected_type(column_type, setting == "text_column")
        if expected:
            raise InputError(
                f"{source}: [{source.section}] {setting} = {name}: expected {expected}, received {column_type}"
            )


def _describe_expected_type(column_type: Any, is_message: bool) -> str | None:
    """Says what a column must contain instead of this type, or returns None if the type is accepted."""
    if is_message:
        accepted = any(is_text(column_type) for is_text in _TEXT_TYPES) or pa.types.is_null(column_type)
        return None if accepted else "a column of text"
    return "a column of text, numbers or dates" if pa.types.is_nested(column_type) else None


_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)


def _read_batches(source: FileSource, file: Any) -> Iterator[SourceRow]:
    names = list(dict.fromkeys(source.columns.values()))
    text_column, row_number = source.columns["text_column"], 0
    for batch in file.iter_batches(batch_size=BATCH_SIZE, columns=names):
        columns = [_python_values(batch.column(name)) for name in names]
        for values in zip(*columns, strict=True):
            row_number += 1
            yield convert_row(row_number, dict(zip(names, values, strict=True)), text_column)


def _value_type(column_type: Any) -> Any:
    return column_type.value_type if pa.types.is_dictionary(column_type) else column_type


def _python_values(column: Any) -> list[Any]:
    """Returns the values of an Arrow array.

    Dates and times become ISO text in the local time of the column: Python's types cannot represent all of them.
    """
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
