"""The parameters of tasks: parsing, formatting and errors."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from models.errors import SettingsError
from tasks.scheduler.parameters import CheckpointParameter, DatesParameter, to_dates

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


@pytest.mark.parametrize(("text", "value", "formatted"), DATES, ids=[row[0] for row in DATES])
def test_dates_are_parsed_and_formatted(text: str, value: Any, formatted: str) -> None:
    assert PARAMETER.parse(text) == value
    assert PARAMETER.serialize(value) == formatted
    assert PARAMETER.parse(formatted) == value


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30", "2026-01-01..", "2026-01-03..2026-01-01"])
def test_an_invalid_date_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--date.*: expected .*2026-01-"):
        PARAMETER.parse(text)


def test_luigi_merges_many_dates_into_one_value() -> None:
    assert PARAMETER.normalize(PARAMETER._parse_list(["2026-01-02", "2026-01-01"])) == january(1, 2)


def test_one_or_more_dates_are_converted_to_a_tuple() -> None:
    assert to_dates(january(1)[0]) == january(1)
    assert to_dates(january(1, 2)) == january(1, 2)


@pytest.mark.parametrize("name", [None, "ckpt-72"])
def test_a_checkpoint_is_the_same_after_luigi_has_formatted_and_parsed_it(name: str | None) -> None:
    parameter = CheckpointParameter(default=None)
    assert parameter.parse(parameter.serialize(name)) == name


@pytest.mark.parametrize("text", ["72", "ckpt-", "ckpt-72.index", "../ckpt-72", "ckpt-\u0667"])
def test_a_text_that_is_no_name_of_a_checkpoint_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--checkpoint .*: expected the name of a checkpoint such as ckpt-72"):
        CheckpointParameter(default=None).parse(text)
