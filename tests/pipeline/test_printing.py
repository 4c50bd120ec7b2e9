"""What is shown of strangers' texts, how it is cut, and the forms a program reads."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import printing


@given(st.text())
def test_whatever_comes_in_nothing_that_acts_on_a_terminal_goes_out(text: str) -> None:
    shown = printing.visible(text)
    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
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
def test_what_controls_hides_or_reorders_is_spelled_out(text: str, shown: str) -> None:
    assert printing.visible(text) == shown


@given(st.text(), st.integers(1, 40))
def test_a_text_is_cut_to_the_columns_there_are(text: str, width: int) -> None:
    shown = printing.shortened(text, width)
    assert printing.cell_len(shown) <= width
    assert len(shown) <= width * 14 + 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short", "short"),
        ("exactly 10", "exactly 10"),
        ("eleven char", "eleven ch…"),
        ("中文中文中文", "中文中文…"),
        ("", ""),
    ],
)
def test_what_was_cut_ends_in_dots(text: str, shown: str) -> None:
    assert printing.shortened(text, 10) == shown


def test_a_thousand_accents_on_a_letter_do_not_pile_up() -> None:
    assert len(printing.shortened("e" + "\u0301" * 1000, 20)) <= 81


@given(st.dictionaries(st.text(), st.text()))
def test_json_says_the_same_to_a_program_and_nothing_to_a_terminal(content: dict[str, str]) -> None:
    text = printing.as_json(content)
    assert text.isprintable()
    assert json.loads(text) == content


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0 s"), (8.44, "8.4 s"), (725, "12 min 5 s"), (12_060, "3 h 21 min")]
)
def test_a_duration_is_said_as_a_person_would(seconds: float, shown: str) -> None:
    assert printing.duration(seconds) == shown


def test_csv_keeps_every_value_as_it_is() -> None:
    rows = [("a,b", 'quo"te'), ("two\nlines", "\x1b[31m"), ("", "ü")]
    text = "\n".join(printing.csv_lines(["one", "two"], rows))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["one", "two"], *map(list, rows)]


def test_a_narrow_terminal_loses_the_least_wanted_columns_first() -> None:
    names = [("id", 0), ("date", 0), ("model", 2), ("took", 3)]
    cells = {printing.Column(name, leaves=leaves): ["x" * 10] for name, leaves in names}
    for width, kept in (
        (46, ["id", "date", "model", "took"]),
        (45, ["id", "date", "model"]),
        (33, ["id", "date"]),
        (5, ["id", "date"]),
    ):
        there = printing.fitting(cells, width)
        assert [column.title for column in cells if column in there] == kept
