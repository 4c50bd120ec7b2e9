"""Editions of a snapshot: a new one changes the name, an earlier one can be in force again, others do not change."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import ArtifactError
from tasks.artifacts.editions import select_edition, start_edition, with_edition
from tasks.artifacts.fingerprint import compute_fingerprint

DATE, OTHER_DATE = datetime.date(2026, 1, 31), datetime.date(2026, 2, 1)
PARTS, OTHER_PARTS = {"path": "a"}, {"path": "b"}


@pytest.fixture(autouse=True)
def _folder(set_settings: Callable[..., None]) -> None:
    """Changes to a temporary working folder."""


def name(date: datetime.date = DATE) -> str:
    return compute_fingerprint(with_edition(date, PARTS))


def test_a_new_edition_has_a_name_of_its_own_and_changes_no_other_date_or_settings() -> None:
    assert with_edition(DATE, PARTS) == PARTS
    names = {name()}
    for edition in (2, 3):
        start_edition(DATE, PARTS)
        assert with_edition(DATE, PARTS) == {**PARTS, "edition": edition}
        names.add(name())
    assert len(names) == 3
    assert with_edition(OTHER_DATE, PARTS) == PARTS
    assert with_edition(DATE, OTHER_PARTS) == OTHER_PARTS


def test_an_unknown_name_and_an_edition_that_is_in_force_write_nothing() -> None:
    select_edition(DATE, PARTS, "unknown")
    select_edition(DATE, PARTS, name())
    assert list(Path("artifacts/extractions").iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.none() | st.integers(0, 5), max_size=8))
def test_a_new_edition_is_never_one_that_was_in_force_before(actions: list[int | None]) -> None:
    date = OTHER_DATE
    seen = [name(date)]
    for action in actions:
        if action is None:
            start_edition(date, PARTS)
            assert name(date) not in seen
            seen.append(name(date))
        else:
            select_edition(date, PARTS, seen[action % len(seen)])
            assert name(date) == seen[action % len(seen)]


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 1}', '{"a": {"edition": 2}}', '{"a": {"edition": "x"}}'])
def test_a_damaged_file_is_named(content: str) -> None:
    path = Path("artifacts/extractions/2026-01-31.json")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ArtifactError, match=r"extractions/2026-01-31\.json: "):
        with_edition(DATE, PARTS)
