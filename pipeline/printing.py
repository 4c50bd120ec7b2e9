"""Prints results: tables and colours in a terminal, tab-separated columns in a pipe, JSON, CSV.

Untrusted text (messages and their identifiers) goes through `escape_unprintable` before it is printed, so that it
cannot colour, clear or reorder a terminal. Rich is imported only where a terminal is drawn on.
"""

from __future__ import annotations

import csv
import datetime
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# Columns of output that is read later, in a log or a mail. A terminal has its own width; COLUMNS takes precedence.
_PAGE_WIDTH = 100
# Combining characters have no width of their own. At most this many characters per column are looked at.
_CHARACTERS_PER_COLUMN = 4
# Characters without a visible form that Unicode classifies as letters, marks or symbols, so that `str.isprintable`
# accepts them. The same list is in `models.reports.pages`, which a command cannot import: it would load
# NumPy and Jinja.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape_unprintable(text: str) -> str:
    r"""Escapes control, invisible and bidirectional characters: as ``\n``, ``\r``, ``\t``, or as ``[U+202E]``."""
    if _is_printable(text):
        return text
    return "".join(
        character if _is_printable(character) else _SHORT_ESCAPES.get(character, f"[U+{ord(character):04X}]")
        for character in text
    )


def _is_printable(text: str) -> bool:
    return text.isprintable() and not _INVISIBLE.search(text)


def truncate(text: str, width: int) -> str:
    """Returns the escaped text, cut to a width in terminal columns; a text that was cut ends with ``…``."""
    from rich.cells import set_cell_size

    escaped = escape_unprintable(text[: width * _CHARACTERS_PER_COLUMN])
    if len(text) <= width * _CHARACTERS_PER_COLUMN and display_width(escaped) <= width:
        return escaped
    return set_cell_size(escaped, min(display_width(escaped), max(width - 1, 0))).rstrip() + "…"


def display_width(text: str) -> int:
    """Returns the number of terminal columns that a text takes."""
    from rich import cells

    return cells.cell_len(text)


def is_terminal() -> bool:
    """Returns whether standard output is a terminal."""
    return sys.stdout.isatty()


def open_console() -> Console:
    """Returns a Rich console on standard output.

    In a terminal it has the terminal's width, and colours unless NO_COLOR is set. Elsewhere it is plain.
    """
    from rich.console import Console

    terminal = is_terminal()
    width = None if terminal or os.environ.get("COLUMNS") else _PAGE_WIDTH
    return Console(file=sys.stdout, width=width, force_terminal=terminal, markup=False, emoji=False, highlight=False)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: the heading in a terminal.
        value: returns the value of a row; a pipe gets it in plain format.
        formatter: formats the value for a terminal; if not given, it is formatted as in a pipe.
        align_right: whether the column is right-aligned, as numbers are.
        style: the Rich style.
        drop_priority: the columns with the highest number are dropped first where a terminal is too narrow; 0 is never
            dropped.
        wrap: whether a long value is wrapped to the next line, instead of being cut.
    """

    title: str
    value: Callable[[Any], Any] = str
    formatter: Callable[[Any], str] | None = None
    align_right: bool = False
    style: str = ""
    drop_priority: int = 0
    wrap: bool = False

    def format_cell(self, row: Any) -> str:
        """Formats the value of a row for a terminal."""
        value = self.value(row)
        if value is None:
            return ""
        return escape_unprintable(self.formatter(value) if self.formatter else format_plain(value))


def format_plain(value: Any) -> str:
    """Formats a value for a program: None is empty, booleans are true and false, dates and times are ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date):
        return value.isoformat()
    return escape_unprintable(str(value))


def format_count(value: float) -> str:
    """Formats a count for a person: ``1,234,567``."""
    return f"{value:,.0f}"


def format_minute(value: datetime.datetime) -> str:
    """Formats a time for a person, to the minute: ``2026-01-31 04:05``."""
    return f"{value:%Y-%m-%d %H:%M}"


def format_duration(seconds: float) -> str:
    """Formats a duration for a person: ``8.4 s``, ``12 min 5 s``, ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, remaining_seconds = divmod(round(seconds), 60)
    return f"{minutes} min {remaining_seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def print_rows(columns: Sequence[Column], rows: Sequence[Any]) -> None:
    """Prints a table in a terminal; in a pipe, one line per row with tabs between the values and no header."""
    if is_terminal():
        _draw_table(columns, rows)
    else:
        print_lines("\t".join(format_plain(column.value(row)) for column in columns) for row in rows)


def _draw_table(columns: Sequence[Column], rows: Sequence[Any]) -> None:
    console = open_console()
    cells = {column: [column.format_cell(row) for row in rows] for column in columns}
    fitting = select_fitting_columns(cells, console.width)
    table = make_table(columns=[column for column in columns if column in fitting], show_header=True)
    for index in range(len(rows)):
        table.add_row(*(styled_text(cells[column][index], column.style) for column in columns if column in fitting))
    console.print(table)
    if dropped := [column.title for column in columns if column not in fitting]:
        console.print(f"not shown in {console.width} columns: {', '.join(dropped)}", style="dim")


_COLUMN_GAP = 2


def select_fitting_columns(cells: dict[Column, list[str]], width: int) -> set[Column]:
    """Returns the columns that fit into a width; the others are dropped in the order of `Column.drop_priority`."""
    widths = {column: max(map(display_width, [column.title, *values])) for column, values in cells.items()}
    fitting = set(widths)
    droppable = [column for column in widths if column.drop_priority]
    for column in sorted(droppable, key=lambda column: -column.drop_priority):
        if sum(widths[other] + _COLUMN_GAP for other in fitting) - _COLUMN_GAP > width:
            fitting.remove(column)
    return fitting


def make_table(columns: Sequence[Column], show_header: bool = False) -> Table:
    """Returns an empty Rich table without lines."""
    from rich.table import Table

    table = Table(
        box=None, show_header=show_header, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0), header_style="bold"
    )
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.align_right else "left"
        overflow: Literal["fold", "ellipsis"] = "fold" if column.wrap else "ellipsis"
        table.add_column(column.title, justify=justify, no_wrap=not column.wrap, overflow=overflow)
    return table


def styled_text(text: str, style: str = "") -> Text:
    """Returns a Rich text with a style. Unlike a plain string, it is never parsed as markup."""
    from rich.text import Text

    return Text(text, style)


def print_lines(lines: Iterable[str]) -> None:
    """Writes lines to standard output. It does not flush after each: there may be millions of them."""
    for line in lines:
        sys.stdout.write(line + "\n")


def format_json(value: Any, indent: int | None = None) -> str:
    """Formats a value as JSON. Unprintable characters are escaped; a program that parses it reads the same value."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_json_value)
    return "\n".join(_escape_json(line) for line in text.split("\n"))


def _json_value(value: Any) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def _escape_json(line: str) -> str:
    if _is_printable(line):
        return line
    return "".join(character if _is_printable(character) else json.dumps(character)[1:-1] for character in line)


def print_json(value: Any) -> None:
    """Prints an indented JSON document."""
    print_lines([format_json(value, indent=2)])


def csv_lines(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yields the lines of a CSV with a header. Values are exact in a file or pipe, and escaped in a terminal."""
    line: list[str] = []

    class LineBuffer:
        def write(self, text: str) -> None:
            line[:] = [text.removesuffix("\n")]

    write_row = csv.writer(LineBuffer(), lineterminator="\n").writerow
    format_value = format_plain if is_terminal() else _format_exact
    write_row(names)
    yield line[0]
    for row in rows:
        write_row([format_value(value) for value in row])
        yield line[0]


def _format_exact(value: Any) -> str:
    return value if isinstance(value, str) else format_plain(value)
