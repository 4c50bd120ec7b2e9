"""Rows of files with one JSON object a line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.sources.rows import NumberLiteral, SourceRow, check_columns, convert_row, describe_type
from tasks.sources.text_files import LINE_TOO_LONG, FileSource, read_lines


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_int=NumberLiteral, parse_float=NumberLiteral, parse_constant=_refuse_constant)


def read_json_lines(source: FileSource) -> Iterator[SourceRow]:
    """Rows of a file of JSON objects, one a line; a key that is not there is a value that is not there."""
    keys = _SeenKeys(source)
    number = 0
    for line in read_lines(source, newline="\n"):
        if line is None or not line.isspace():
            number += 1
            found, fault = _json_object(line)
            keys.add(found)
            yield _json_row(number, found, fault, keys.wanted, source.columns["text_column"])
    keys.check()


class _SeenKeys:
    """Finds out whether a column is in no object at all: JSON lines have no header to look it up in."""

    def __init__(self, source: FileSource) -> None:
        self.source = source
        self.wanted = tuple(dict.fromkeys(source.columns.values()))
        self.missing = set(self.wanted)
        self.seen: dict[str, None] = {}

    def add(self, found: Mapping[str, Any]) -> None:
        if self.missing:
            self.missing -= found.keys()
            self.seen.update(dict.fromkeys(itertools.islice(found, 100)) if len(self.seen) < 1000 else {})

    def check(self) -> None:
        if self.seen and self.missing:
            names = [*self.seen, *(name for name in self.wanted if name not in self.seen and name not in self.missing)]
            check_columns(str(self.source), self.source.section, self.source.columns, names, " No line has it.")


def _json_object(line: str | None) -> tuple[dict[str, Any], str | None]:
    """The object of a line, or the line's fault."""
    if line is None:
        return {}, LINE_TOO_LONG
    try:
        found = _JSON.decode(line)
    except RecursionError:
        return {}, "invalid JSON: nested too deep"
    except ValueError as error:
        return {}, f"invalid JSON: {error}"
    if not isinstance(found, dict):
        return {}, f"not a JSON object: received {describe_type(found)}"
    return found, None


def _json_row(
    number: int, found: Mapping[str, Any], fault: str | None, names: Iterable[str], text_column: str
) -> SourceRow:
    row = convert_row(number, {name: found.get(name) for name in names}, text_column)
    return row if fault is None else row._replace(fault=fault)
