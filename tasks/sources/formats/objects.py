"""Converts the objects of formats without a header to rows.

Their keys are the columns. A missing key is a missing value.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.sources.file_source import FileSource
from tasks.sources.rows import SourceRow, check_columns, convert_row, describe_type
from tasks.storage.stored_objects import SourcePath


class KeyTracker:
    """Notices when a column is in no object of a file: these formats have no header to check it against.

    Attributes:
        required: the requested columns, without repetition.
    """

    def __init__(self, source: FileSource) -> None:
        self.required = tuple(dict.fromkeys(source.columns.values()))
        self._source = source
        self._missing = set(self.required)
        self._seen: dict[str, None] = {}
        self._wrapped: str | None = None

    def add(self, content: Mapping[str, Any]) -> None:
        """Records the keys of an object."""
        if self._missing:
            self._missing -= content.keys()
            self._seen.update(dict.fromkeys(itertools.islice(content, 100)) if len(self._seen) < 1000 else {})
            self._wrapped = self._wrapped or next((key for key, value in content.items() if _is_array(value)), None)

    def check(self) -> None:
        """Checks that each column was in an object, or that there was none.

        Raises:
            InputError: a column was in no object. Names the keys of the objects.
        """
        if self._seen and self._missing:
            present = [name for name in self.required if name not in self._seen and name not in self._missing]
            names = [*self._seen, *present]
            hint = " No row has it."
            if self._wrapped:
                hint += describe_wrapped_array(self._source.path, self._wrapped)
            check_columns(str(self._source), self._source.section, self._source.columns, names, hint)


def _is_array(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def describe_wrapped_array(path: SourcePath, key: str) -> str:
    """Says that the rows are below a key of an object, and how to make a file of them; with a space before it."""
    return (
        f" The key {key[:60]!r} holds an array of objects: if they are the messages, write that array to a file of its "
        f"own, as with jq '.[\"{key[:60]}\"]' {path.name} > messages.json, and read that file."
    )


def as_object(content: Any) -> tuple[dict[str, Any], str | None]:
    """Returns a decoded object and None, or an empty object and the fault if the content is no object."""
    if isinstance(content, dict):
        return content, None
    return {}, f"not a JSON object: received {describe_type(content)}"


def convert_object(
    row_number: int, content: Mapping[str, Any], fault: str | None, names: Iterable[str], text_column: str
) -> SourceRow:
    """Converts an object to a row.

    Args:
        row_number: row number, from 1.
        content: values by key.
        fault: what is wrong with the object, or None.
        names: the requested columns.
        text_column: the column of the message.
    """
    row = convert_row(row_number, {name: content.get(name) for name in names}, text_column)
    return row if fault is None else row._replace(fault=fault)
