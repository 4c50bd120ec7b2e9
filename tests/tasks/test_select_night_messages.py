"""Which batches SelectNightMessages reads, and what its result depends on."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from luigi.task_register import Register
from published_batches import publish
from sqlalchemy.engine import Engine

from tasks.database.labels import MessageLabel, change_labels
from tasks.database.ledger import withdraw_batch
from tasks.database.schema import open_database
from tasks.monitoring.drift import Crossing, DriftFigures, accept_drift, write_drift
from tasks.scheduler import calendar
from tasks.select_night_messages import SelectNightMessages, find_window
from tasks.settings.storage import DatabaseSettings

DAY = datetime.timedelta(days=1)
SCORES = {"m-1": 0.9, "m-2": 0.1}


@pytest.fixture
def engine(tmp_path: Path, set_settings: Callable[..., None]) -> Iterator[Engine]:
    """The database of the settings in force."""
    set_settings("corpus", self_training="nights")
    engine = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/spamscore.db"))
    yield engine
    engine.dispose()


def read_stage() -> SelectNightMessages:
    """Returns the stage as a new process sees it."""
    Register.clear_instance_cache()
    return SelectNightMessages()


def list_used() -> list[int]:
    return [batch.batch_id for batch in read_stage().nights.used]


def list_left_out() -> dict[int, str]:
    return {entry["batch"]: entry["reason"] for entry in read_stage().nights.left_out}


@given(st.dates(datetime.date(1970, 1, 1), datetime.date(2100, 1, 1)), st.integers(1, 400))
def test_the_window_stays_the_same_for_a_period_and_ends_two_days_before_it(today: datetime.date, days: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calendar, "current_date", lambda: today)
        first, last = find_window(days)
        assert (last - first).days == days - 1
        assert 2 <= (today - last).days < days + 2
        start = calendar.start_of_period(days)
        assert start <= today < start + days * DAY
        patch.setattr(calendar, "current_date", lambda: start + (days - 1) * DAY)
        assert find_window(days) == (first, last)
        patch.setattr(calendar, "current_date", lambda: start + days * DAY)
        assert find_window(days) == (first + days * DAY, last + days * DAY)


def test_published_batches_of_the_window_are_read_and_all_others_are_left_out(engine: Engine) -> None:
    first, last = find_window(30)
    inside, superseded, both = (
        publish(engine, SCORES, date, version=n) for date, n in ((first, 1), (last, 1), (last, 2))
    )
    publish(engine, SCORES, first - DAY)
    publish(engine, SCORES, last + DAY)
    provisional = publish(engine, SCORES, first + DAY, provisional=True)
    withdrawn = publish(engine, SCORES, first + 2 * DAY)
    withdraw_batch(engine, withdrawn)
    assert list_used() == [inside, both]
    assert list_left_out() == {
        provisional: "provisional: scored before its date was over",
        withdrawn: "withdrawn",
    }
    assert superseded not in list_left_out()


def test_a_drifted_batch_is_left_out_until_a_person_accepts_it(engine: Engine) -> None:
    first, _ = find_window(30)
    batch = publish(engine, SCORES, first)
    usual = read_stage().fingerprint()
    crossing = Crossing("flagged_share", 0.5, 0.1, "50.00 % of the messages are flagged, where 10.00 % is allowed")
    write_drift(engine, DriftFigures(batch, first, 2, 2, 1), np.zeros(20, np.int64), [crossing])
    assert list_used() == []
    assert list_left_out() == {batch: f"drifted: {crossing.said}"}
    assert read_stage().fingerprint() != usual
    accept_drift(engine, batch, "ann")
    assert list_used() == [batch]
    assert read_stage().fingerprint() == usual


def test_the_fingerprint_changes_with_the_messages_of_the_window_not_with_their_scores(engine: Engine) -> None:
    first, last = find_window(30)
    empty = read_stage().fingerprint()
    batch = publish(engine, SCORES, first)
    one = read_stage().fingerprint()
    publish(engine, {"m-1": 0.2, "m-2": 0.3}, first, version=2)
    assert read_stage().fingerprint() == one != empty
    publish(engine, SCORES, last, snapshot="other")
    assert read_stage().fingerprint() not in (one, empty)
    publish(engine, SCORES, last + DAY)
    withdraw_batch(engine, publish(engine, SCORES, last, version=3))
    withdraw_batch(engine, publish(engine, SCORES, first, version=3))
    assert read_stage().fingerprint() == empty
    assert batch


@pytest.mark.parametrize(
    ("key", "value"), [("messages", "9"), ("days", "7"), ("weight", "0.1"), ("spam", "0.8"), ("ham", "0.1")]
)
def test_the_fingerprint_changes_with_each_setting(
    engine: Engine, set_settings: Callable[..., None], key: str, value: str
) -> None:
    assert engine
    before = read_stage().fingerprint()
    set_settings("corpus", **{f"self_training_{key}": value})
    assert read_stage().fingerprint() != before


def test_the_fingerprint_changes_with_the_labels_that_people_gave_before_the_period(engine: Engine) -> None:
    start = datetime.datetime.combine(calendar.start_of_period(30), datetime.time(), datetime.UTC)
    before = read_stage().fingerprint()
    label = MessageLabel(start.date(), "m-1", "ann", "ham", start, "Call me")
    change_labels(engine, [label])
    assert (read_stage().labelled_by_people, read_stage().fingerprint()) == ([], before)
    change_labels(engine, [dataclasses.replace(label, labelled_at=start - datetime.timedelta(seconds=1))])
    assert read_stage().labelled_by_people == [("ham", "Call me")]
    assert read_stage().fingerprint() != before


def test_the_nights_are_read_once_per_process(engine: Engine) -> None:
    first, _ = find_window(30)
    stage = read_stage()
    before = stage.fingerprint()
    publish(engine, SCORES, first)
    assert stage.fingerprint() == before
    assert read_stage().fingerprint() != before


def test_without_a_database_there_are_no_nights_and_none_is_created(set_settings: Callable[..., None]) -> None:
    set_settings("corpus", self_training="nights")
    assert (list_used(), list_left_out()) == ([], {})
    assert not Path("spamscore.db").exists()
