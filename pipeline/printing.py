"""How an answer reaches a person or a program: tables and colours in a terminal, plain columns in a pipe, JSON, CSV.

What strangers wrote (messages, their identifiers) goes through `visible` before it is shown, so that it cannot colour,
clear or reorder anybody's terminal. Rich is imported only where a terminal is drawn on.
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

# Columns of a page that is read later: a log, a mail. A terminal has its own, and COLUMNS goes before both.
_PAGE_WIDTH = 100
# Characters that combine take no room of their own: of a text this many a column are looked at.
_CHARACTERS_A_COLUMN = 4
# Nothing to see, and yet letters, marks or symbols to Unicode, so that `str.isprintable` lets them through. As in
# `models.reports.evaluation_report`, which a command cannot import: it brings NumPy and Jinja along.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""The text with what controls, hides or reorders it spelled out: ``\n`` and ``\t``, the rest as ``[U+202E]``."""
    if _is_visible(text):
        return text
    return "".join(one if _is_visible(one) else _SHORT.get(one, f"[U+{ord(one):04X}]") for one in text)


def _is_visible(text: str) -> bool:
    return text.isprintable() and not _UNSEEN.search(text)


def shortened(text: str, width: int) -> str:
    """The text made visible and cut to so many columns of a terminal, with ``…`` where it was cut."""
    from rich.cells import set_cell_size

    looked_at = visible(text[: width * _CHARACTERS_A_COLUMN])
    if len(text) <= width * _CHARACTERS_A_COLUMN and cell_len(looked_at) <= width:
        return looked_at
    return set_cell_size(looked_at, min(cell_len(looked_at), max(width - 1, 0))).rstrip() + "…"


def cell_len(text: str) -> int:
    """Columns that a text takes in a terminal."""
    from rich import cells

    return cells.cell_len(text)


def in_terminal() -> bool:
    """Whether a person is looking: standard output is a terminal."""
    return sys.stdout.isatty()


def page() -> Console:
    """Standard output to draw on: in a terminal its width, and colours unless NO_COLOR is set; plain elsewhere."""
    from rich.console import Console

    watched = in_terminal()
    width = None if watched or os.environ.get("COLUMNS") else _PAGE_WIDTH
    return Console(file=sys.stdout, width=width, force_terminal=watched, markup=False, emoji=False, highlight=False)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: over the column in a terminal.
        value: what a row has in it; a pipe gets it plain.
        show: how a terminal shows it; as in a pipe if not given.
        right: whether it stands to the right, as numbers do.
        style: Rich's style of it.
        leaves: columns of higher numbers are left out first where a terminal is too narrow; 0 stays.
        wraps: whether long values go on in the next line, instead of being cut.
    """

    title: str
    value: Callable[[Any], Any] = str
    show: Callable[[Any], str] | None = None
    right: bool = False
    style: str = ""
    leaves: int = 0
    wraps: bool = False

    def shown(self, row: Any) -> str:
        """What a terminal shows of a row."""
        value = self.value(row)
        return "" if value is None else visible(self.show(value) if self.show else plain(value))


def plain(value: Any) -> str:
    """A value for a program: nothing for None, true and false, ISO dates and times, numbers without separators."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date):
        return value.isoformat()
    return visible(str(value))


def count(value: float) -> str:
    """A count for a person: 1,234,567."""
    return f"{value:,.0f}"


def minute(value: datetime.datetime) -> str:
    """A time for a person, to the minute."""
    return f"{value:%Y-%m-%d %H:%M}"


def duration(seconds: float) -> str:
    """A duration for a person: ``8.4 s``, ``12 min 5 s``, ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def print_rows(columns: Sequence[Column], rows: Sequence[Any]) -> None:
    """A table in a terminal; in a pipe a line a row without a head, its values with tabs between."""
    if in_terminal():
        _draw(columns, rows)
    else:
        print_lines("\t".join(plain(column.value(row)) for column in columns) for row in rows)


def _draw(columns: Sequence[Column], rows: Sequence[Any]) -> None:
    console = page()
    cells = {column: [column.shown(row) for row in rows] for column in columns}
    kept = fitting(cells, console.width)
    table = grid(columns=[column for column in columns if column in kept], head=True)
    for place in range(len(rows)):
        table.add_row(*(styled(cells[column][place], column.style) for column in columns if column in kept))
    console.print(table)
    if left_out := [column.title for column in columns if column not in kept]:
        console.print(f"not shown in {console.width} columns: {', '.join(left_out)}", style="dim")


_GAP = 2


def fitting(cells: dict[Column, list[str]], width: int) -> set[Column]:
    """The columns that a terminal has room for."""
    widths = {column: max(map(cell_len, [column.title, *values])) for column, values in cells.items()}
    kept = set(widths)
    for column in sorted((one for one in widths if one.leaves), key=lambda one: -one.leaves):
        if sum(widths[one] + _GAP for one in kept) - _GAP > width:
            kept.remove(column)
    return kept


def grid(columns: Sequence[Column], head: bool = False) -> Table:
    """An empty table without lines."""
    from rich.table import Table

    table = Table(box=None, show_header=head, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        overflow: Literal["fold", "ellipsis"] = "fold" if column.wraps else "ellipsis"
        table.add_column(column.title, justify=justify, no_wrap=not column.wraps, overflow=overflow)
    return table


def styled(text: str, style: str = "") -> Text:
    """Text in a style; unlike a plain string it is never read as markup."""
    from rich.text import Text

    return Text(text, style)


def print_lines(lines: Iterable[str]) -> None:
    """Lines to standard output. Not flushed, for there may be millions of them."""
    for line in lines:
        sys.stdout.write(line + "\n")


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON that says what it says to a program, and cannot disturb a terminal: what is not visible is escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_json_value)
    return "\n".join(_escaped(line) for line in text.split("\n"))


def _json_value(value: Any) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def _escaped(line: str) -> str:
    if _is_visible(line):
        return line
    return "".join(one if _is_visible(one) else json.dumps(one)[1:-1] for one in line)


def print_json(value: Any) -> None:
    """A JSON document, indented."""
    print_lines([as_json(value, indent=2)])


def csv_lines(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """CSV with a head. In a file or pipe values are exact; in a terminal they are made visible."""
    line: list[str] = []

    class Catch:
        def write(self, text: str) -> None:
            line[:] = [text.removesuffix("\n")]

    write = csv.writer(Catch(), lineterminator="\n").writerow
    show = plain if in_terminal() else _exact
    write(names)
    yield line[0]
    for row in rows:
        write([show(value) for value in row])
        yield line[0]


def _exact(value: Any) -> str:
    return value if isinstance(value, str) else plain(value)
