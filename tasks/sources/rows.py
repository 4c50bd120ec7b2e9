"""The one shape in which rows of messages reach the pipeline, whatever they were read from, and how values become text.

A malformed row is a row with a fault: it goes on to the stage that counts and refuses it. Reading files is
`tasks.sources.files`'s part, SQL queries `tasks.sources.queries`'s.
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
    """One row of data as it was found.

    Attributes:
        row_number: 1 for the first row of data; a header and blank lines do not count.
        values: the columns asked for, by name; None where there is no value. Of a row with a fault, what could be read.
        fault: what is wrong with the row, "<kind>" or "<kind>: <details>"; None when nothing is.
    """

    row_number: int
    values: dict[str, str | None]
    fault: str | None


class NumberLiteral(str):
    """A number of a JSON file as it is written: an id of twenty digits or 0.10 must not go through a float."""

    __slots__ = ()


def convert_row(number: int, values: Mapping[str, Any], text_column: str) -> SourceRow:
    """A row of typed values (JSON, Parquet, SQL): the message must be text, the rest becomes text.

    Args:
        number: 1-based row number.
        values: Python values by column.
        text_column: the column that is the message.
    """
    texts: dict[str, str | None] = {}
    fault = None
    for name, value in values.items():
        try:
            texts[name] = to_message_text(value) if name == text_column else to_plain_text(value)
        except TypeError as error:
            texts[name] = None
            fault = fault or f"{error}: column {name} holds {describe_type(value)}"
    return SourceRow(number, texts, fault)


def to_message_text(value: Any) -> str | None:
    """The text of a message; bytes are UTF-8.

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
    """The text of an id, label or date: numbers in decimal, a whole float without ".0", times in ISO 8601, bytes that
    are not UTF-8 in hexadecimal; NaN is None.

    Raises:
        TypeError: the value is a list, a mapping or the like.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        raise TypeError("value is not text or a number")
    for kinds, convert in _CONVERSIONS:
        if isinstance(value, kinds):
            return convert(value)
    # UUIDs, network addresses, times of day and enumerations of database drivers all print as what they are.
    return str(value)


def _number_text(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)


def _bytes_text(value: bytes | bytearray | memoryview) -> str:
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return bytes(value).hex()


_CONVERSIONS: tuple[tuple[Any, Callable[[Any], str]], ...] = (
    (str, lambda value: replace_surrogates(str(value))),
    (bool, lambda value: str(value).lower()),
    (int, str),
    (float, _number_text),
    (Decimal, lambda value: format(value, "f")),
    (date, lambda value: str(value.isoformat())),
    (bytes | bytearray | memoryview, _bytes_text),
)


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate: such a half of a character has no bytes in UTF-8."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def describe_type(value: Any) -> str:
    """What a value is, in the words of JSON where they fit."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, NumberLiteral | int | float | Decimal):
        return "a number"
    names = {str: "a string", dict: "an object", list: "a list", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def fault_kind(fault: str) -> str:
    """The kind of a fault, without its details: what faults are counted by."""
    return fault.partition(":")[0].partition(" (line")[0]


def check_columns(where: str, section: str, columns: Mapping[str, str], names: Sequence[str], hint: str = "") -> None:
    """Holds the columns asked for to those that there are.

    Args:
        where: the setting and the file or query, for the message.
        section: section of luigi.cfg.
        columns: column by the setting that names it.
        names: the columns there are.
        hint: a sentence more for the message, with a space before it.

    Raises:
        InputError: a column is not there or is there twice; naming setting, the columns there are and the nearest.
    """
    for setting, name in columns.items():
        count = list(names).count(name)
        if count != 1:
            received = "more than one column has the name." if count else f"no such column{suggest_name(name, names)}"
            raise InputError(
                f"{where}: [{section}] {setting} = {name}: {received} Columns are {_listed(names)}.{hint} "
                f"Correct [{section}] {setting} or the source."
            )


def suggest_name(name: str, names: Sequence[str]) -> str:
    """The end of a sentence: a question that proposes the most similar name, or a full stop."""
    folded = {one.casefold(): one for one in names}
    near = difflib.get_close_matches(name.casefold(), list(folded), n=1)
    return f"; did you mean {folded[near[0]]}?" if near else "."


def _listed(names: Sequence[str], most: int = 30) -> str:
    shown = ", ".join(repr(name[:60])[1:-1] for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
