"""Escaping and truncation of untrusted text, JSON, CSV, durations, and columns that fit a terminal."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import printing


@given(st.text())
def test_an_escaped_text_is_printable(text: str) -> None:
    escaped = printing.escape_unprintable(text)
    assert escaped.isprintable()
    escaped.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, Straße, 中文, 🎁", "plain, Straße, 中文, 🎁"),
        ("\x1b[31mred\x1b[0m", "[U+001B][31mred[U+001B][0m"),
        ("two\nlines\r\tand", "two\\nlines\\r\\tand"),
        ("\u202egnp.exe", "[U+202E]gnp.exe"),
        ("in\u200bvisible\u3164", "in[U+200B]visible[U+3164]"),
        ("half \ud83d", "half [U+D83D]"),
        ("\x9b2J", "[U+009B]2J"),
    ],
)
def test_control_invisible_and_bidirectional_characters_are_escaped(text: str, expected: str) -> None:
    assert printing.escape_unprintable(text) == expected


@given(st.text(), st.integers(1, 40))
def test_a_truncated_text_fits_the_width(text: str, width: int) -> None:
    truncated = printing.truncate(text, width)
    assert printing.display_width(truncated) <= width
    assert len(truncated) <= width * 14 + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        ("exactly 10", "exactly 10"),
        ("eleven char", "eleven ch…"),
        ("中文中文中文", "中文中文…"),
        ("", ""),
    ],
)
def test_a_truncated_text_ends_with_an_ellipsis(text: str, expected: str) -> None:
    assert printing.truncate(text, 10) == expected


def test_combining_characters_are_truncated() -> None:
    assert len(printing.truncate("e" + "\u0301" * 1000, 20)) <= 81


@given(st.dictionaries(st.text(), st.text()))
def test_json_is_printable_and_parses_to_the_same_value(content: dict[str, str]) -> None:
    text = printing.format_json(content)
    assert text.isprintable()
    assert json.loads(text) == content


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.04, "0.0 s"), (8.44, "8.4 s"), (725, "12 min 5 s"), (12_060, "3 h 21 min")]
)
def test_a_duration_is_formatted_for_a_person(seconds: float, expected: str) -> None:
    assert printing.format_duration(seconds) == expected


def test_csv_keeps_exact_values() -> None:
    rows = [("a,b", 'quo"te'), ("two\nlines", "\x1b[31m"), ("", "ü")]
    text = "\n".join(printing.csv_lines(["one", "two"], rows))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["one", "two"], *map(list, rows)]


def test_a_narrow_terminal_drops_columns_by_priority() -> None:
    names = [("id", 0), ("date", 0), ("model", 2), ("took", 3)]
    cells = {printing.Column(name, drop_priority=priority): ["x" * 10] for name, priority in names}
    for width, expected in (
        (46, ["id", "date", "model", "took"]),
        (45, ["id", "date", "model"]),
        (33, ["id", "date"]),
        (5, ["id", "date"]),
    ):
        fitting = printing.select_fitting_columns(cells, width)
        assert [column.title for column in cells if column in fitting] == expected
