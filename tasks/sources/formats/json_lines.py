"""Reads rows from files with one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tasks.sources.file_source import FileSource
from tasks.sources.formats.objects import KeyTracker, as_object, convert_object
from tasks.sources.rows import NumberLiteral, SourceRow
from tasks.sources.text_files import LINE_TOO_LONG, read_lines


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=NumberLiteral, parse_float=NumberLiteral, parse_constant=_reject_constant)


def read_json_lines(source: FileSource) -> Iterator[SourceRow]:
    """Yields the row of each line. A key that is missing in an object is a missing value. A blank line is not a row.

    Raises:
        InputError: after the last row, if a column is in no object of the file.
    """
    keys = KeyTracker(source)
    row_number = 0
    for line in read_lines(source, newline="\n"):
        if line is None or not line.isspace():
            row_number += 1
            content, fault = _parse_object(line)
            keys.add(content)
            yield convert_object(row_number, content, fault, keys.required, source.columns["text_column"])
    keys.check()


def _parse_object(line: str | None) -> tuple[dict[str, Any], str | None]:
    """Returns the object of a line and None, or an empty object and the fault of the line."""
    if line is None:
        return {}, LINE_TOO_LONG
    try:
        return as_object(_DECODER.decode(line))
    except RecursionError:
        return {}, "invalid JSON: nested too deep"
    except ValueError as error:
        return {}, f"invalid JSON: {error}"
