"""What a task takes for dates and how it writes them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from models.errors import SettingsError
from tasks.scheduler.parameters import DatesParameter, dates_of

PARAMETER = DatesParameter("dates")


def january(*days: int) -> tuple[datetime.date, ...]:
    return tuple(datetime.date(2026, 1, day) for day in days)


DATES = [
    ("2026-01-31", january(31)[0], "2026-01-31"),
    ("2026-01-01..2026-01-03", january(1, 2, 3), "2026-01-01..2026-01-03"),
    ("2026-01-03,2026-01-01", january(1, 3), "2026-01-01,2026-01-03"),
    ("2026-01-02, 2026-01-01", january(1, 2), "2026-01-01..2026-01-02"),
    ("2026-01-01..2026-01-02,2026-01-02,2026-01-07", january(1, 2, 7), "2026-01-01..2026-01-02,2026-01-07"),
    ("2026-01-05..2026-01-05", january(5)[0], "2026-01-05"),
]


@pytest.mark.parametrize(("text", "value", "written"), DATES, ids=[row[0] for row in DATES])
def test_dates_are_read_and_written(text: str, value: Any, written: str) -> None:
    assert PARAMETER.parse(text) == value
    assert PARAMETER.serialize(value) == written
    assert PARAMETER.parse(written) == value


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30", "2026-01-01..", "2026-01-03..2026-01-01"])
def test_what_is_no_date_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--date.*: expected .*2026-01-"):
        PARAMETER.parse(text)


def test_luigi_makes_one_value_of_many_dates() -> None:
    assert PARAMETER.normalize(PARAMETER._parse_list(["2026-01-02", "2026-01-01"])) == january(1, 2)


def test_one_date_or_several_are_a_tuple() -> None:
    assert dates_of(january(1)[0]) == january(1)
    assert dates_of(january(1, 2)) == january(1, 2)
