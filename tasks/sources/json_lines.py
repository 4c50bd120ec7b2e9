"""Reads rows from files with one JSON object per line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.sources.file_source import FileSource
from tasks.sources.rows import NumberLiteral, SourceRow, check_columns, convert_row, describe_type
from tasks.sources.text_files import LINE_TOO_LONG, read_lines


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=NumberLiteral, parse_float=NumberLiteral, parse_constant=_reject_constant)


def read_json_lines(source: FileSource) -> Iterator[SourceRow]:
    """Yields the row of each line. A key that is missing in an object is a missing value. A blank line is not a row.

    Raises:
        InputError: after the last row, if a column is in no object of the file.
    """
    keys = _KeyTracker(source)
    row_number = 0
    for line in read_lines(source, newline="\n"):
        if line is None or not line.isspace():
            row_number += 1
            content, fault = _parse_object(line)
            keys.add(content)
            yield _convert_object(row_number, content, fault, keys.required, source.columns["text_column"])
    keys.check()


class _KeyTracker:
    """Notices when a column is in no object of a file: JSON lines have no header to check it against."""

    def __init__(self, source: FileSource) -> None:
        self.source = source
        self.required = tuple(dict.fromkeys(source.columns.values()))
        self.missing = set(self.required)
        self.seen: dict[str, None] = {}

    def add(self, content: Mapping[str, Any]) -> None:
        """Records the keys of an object."""
        if self.missing:
            self.missing -= content.keys()
            self.seen.update(dict.fromkeys(itertools.islice(content, 100)) if len(self.seen) < 1000 else {})

    def check(self) -> None:
        """Raises InputError if a column was in no object."""
        if self.seen and self.missing:
            present = [name for name in self.required if name not in self.seen and name not in self.missing]
            names = [*self.seen, *present]
            check_columns(str(self.source), self.source.section, self.source.columns, names, " No line has it.")


def _parse_object(line: str | None) -> tuple[dict[str, Any], str | None]:
    """Returns the object of a line and None, or an empty object and the fault of the line."""
    if line is None:
        return {}, LINE_TOO_LONG
    try:
        content = _DECODER.decode(line)
    except RecursionError:
        return {}, "invalid JSON: nested too deep"
    except ValueError as error:
        return {}, f"invalid JSON: {error}"
    if not isinstance(content, dict):
        return {}, f"not a JSON object: received {describe_type(content)}"
    return content, None


def _convert_object(
    row_number: int, content: Mapping[str, Any], fault: str | None, names: Iterable[str], text_column: str
) -> SourceRow:
    row = convert_row(row_number, {name: content.get(name) for name in names}, text_column)
    return row if fault is None else row._replace(fault=fault)
