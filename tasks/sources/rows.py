"""Defines a row of a message source, and converts values of any type to text.

All readers yield `SourceRow`. A malformed row is a row with a fault: the stage that receives it counts and rejects it.
Files are read by `tasks.sources.files`, SQL queries by `tasks.sources.queries`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from models.errors import InputError

_SURROGATE = re.compile("[\ud800-\udfff]")


class SourceRow(NamedTuple):
    """One row of a message source.

    Attributes:
        row_number: 1 for the first row of data; a header and blank lines do not count.
        values: the requested columns by name; None for a missing value. Of a row with a fault, what could be read.
        fault: what is wrong with the row, "<kind>" or "<kind>: <details>"; None for a valid row.
    """

    row_number: int
    values: dict[str, str | None]
    fault: str | None


class NumberLiteral(str):
    """A number exactly as a JSON file spells it: an id of twenty digits or 0.10 must not be converted to a float."""

    __slots__ = ()


def convert_row(row_number: int, values: Mapping[str, Any], text_column: str) -> SourceRow:
    """Converts a row of typed values (JSON, Parquet, SQL) to text. A value that cannot be converted is a fault.

    Args:
        row_number: row number, from 1.
        values: Python values by column.
        text_column: the column of the message, which must be text; values of other columns are converted to text.
    """
    texts: dict[str, str | None] = {}
    fault = None
    for name, value in values.items():
        try:
            texts[name] = to_message_text(value) if name == text_column else to_plain_text(value)
        except TypeError as error:
            texts[name] = None
            fault = fault or f"{error}: column {name} holds {describe_type(value)}"
    return SourceRow(row_number, texts, fault)


def to_message_text(value: Any) -> str | None:
    """Returns the text of a message. Bytes are decoded as UTF-8.

    Raises:
        TypeError: the value is neither text nor bytes nor None.
    """
    if value is None:
        return None
    if isinstance(value, str) and not isinstance(value, NumberLiteral):
        return replace_surrogates(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    raise TypeError("text is not a string")


def to_plain_text(value: Any) -> str | None:
    """Returns the text of an id, label or date.

    Numbers are written in decimal, a whole float without ".0", times in ISO 8601, and bytes that are not UTF-8 in
    hexadecimal. NaN becomes None.

    Raises:
        TypeError: the value is a list, a tuple, a set or a mapping.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        raise TypeError("value is not text or a number")
    for kinds, convert in _CONVERSIONS:
        if isinstance(value, kinds):
            return convert(value)
    # For UUIDs, network addresses, times of day and enumerations of database drivers, str() gives their usual text.
    return str(value)


def _format_float(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)


def _decode_bytes(value: bytes | bytearray | memoryview) -> str:
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return bytes(value).hex()


_CONVERSIONS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (str, lambda value: replace_surrogates(str(value))),
    (bool, lambda value: str(value).lower()),
    (int, str),
    (float, _format_float),
    (Decimal, lambda value: format(value, "f")),
    (date, lambda value: str(value.isoformat())),
    (bytes | bytearray | memoryview, _decode_bytes),
)


def replace_surrogates(text: str) -> str:
    """Replaces each lone surrogate by U+FFFD: half of a surrogate pair cannot be encoded in UTF-8."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def describe_type(value: Any) -> str:
    """Names the type of a value for an error message, with JSON's word where there is one."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, NumberLiteral | int | float | Decimal):
        return "a number"
    names = {str: "a string", dict: "an object", list: "a list", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def fault_kind(fault: str) -> str:
    """Returns the kind of a fault without its details. Faults are counted by kind."""
    return fault.partition(":")[0].partition(" (line")[0]


def check_columns(where: str, section: str, columns: Mapping[str, str], names: Sequence[str], hint: str = "") -> None:
    """Checks that each requested column exists exactly once in a source.

    Args:
        where: the setting and the file or query, for the error message.
        section: section of luigi.cfg.
        columns: requested column by the setting that names it.
        names: the columns of the source.
        hint: one more sentence for the error message, with a space before it.

    Raises:
        InputError: a column is missing or exists twice. Names the setting, the columns of the source and the most
            similar name.
    """
    for setting, name in columns.items():
        count = list(names).count(name)
        if count != 1:
            received = "more than one column has the name." if count else f"no such column{suggest_name(name, names)}"
            raise InputError(
                f"{where}: [{section}] {setting} = {name}: {received} Columns are {_join_names(names)}.{hint} "
                f"Correct [{section}] {setting} or the source."
            )


def suggest_name(name: str, names: Sequence[str]) -> str:
    """Returns the end of a sentence: "; did you mean …?" with the most similar name, or a full stop if none is."""
    names_by_folded = {candidate.casefold(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.casefold(), list(names_by_folded), n=1)
    return f"; did you mean {names_by_folded[matches[0]]}?" if matches else "."


def _join_names(names: Sequence[str], max_names: int = 30) -> str:
    joined = ", ".join(repr(name[:60])[1:-1] for name in names[:max_names])
    return joined + (f" and {len(names) - max_names} more" if len(names) > max_names else "")
