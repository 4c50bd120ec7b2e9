"""Who is told what of a night, by what the database has of it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from receivers import Web, web_server
from sqlalchemy.engine import Engine

from pipeline.notifications import reason, tell_how_it_ended
from tasks.database.ledger import BatchPlan, publish_batch, start_batch
from tasks.database.schema import open_database
from tasks.monitoring.alerts import DEADLINE, known_alerts, raise_alert
from tasks.monitoring.drift import Crossing, DriftFigures, accept_drift, write_drift
from tasks.scheduler.failures import Failure
from tasks.settings.storage import DatabaseSettings

FIRST, SECOND = datetime.date(2026, 1, 30), datetime.date(2026, 1, 31)
MISSING = [Failure(20, "no such file")]


@pytest.fixture
def web(set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    with web_server() as one:
        monkeypatch.setenv("SPAMSCORE_ALERTS_WEBHOOK_URL", one.url)
        set_settings("metrics", textfile_folder="metrics")
        Path("metrics").mkdir()
        yield one


@pytest.fixture
def engine(web: Web) -> Iterator[Engine]:
    one = open_database(DatabaseSettings())
    yield one
    one.dispose()


def published(engine: Engine, date: datetime.date, crossed: bool = False) -> int:
    """An empty batch with its figures."""
    plan = BatchPlan(date, "r", "spam_ham", 1, "ckpt", "snap", 0.5, "cpu:0", 10)
    batch_id = start_batch(engine, plan).batch_id
    publish_batch(engine, batch_id, 0)
    crossings = [Crossing("psi_before", 0.5, 0.25, "the scores moved")] if crossed else []
    write_drift(engine, DriftFigures(batch_id, date, 0, 0, 0), np.zeros(1, np.int64), crossings)
    return batch_id


def told(web: Web) -> list[tuple[str, str, str]]:
    return [(one["kind"], one["date"][-2:], one["state"]) for one in web.messages]


def metric(part: str, name: str) -> float:
    lines = (Path("metrics") / f"spamscore_{part}.prom").read_text(encoding="utf-8").splitlines()
    return next(float(line.rsplit(maxsplit=1)[1]) for line in lines if line.startswith(name))


def test_a_failing_night_run_ten_times_is_told_once_and_its_recovery_once(web: Web, engine: Engine) -> None:
    for _ in range(10):
        tell_how_it_ended(SECOND, False, MISSING, 1.0)
    assert (told(web), metric("run", "spamscore_run_failed")) == ([("failure", "31", "open")], 1)
    assert web.messages[0]["said"] == "no such file"
    published(engine, SECOND)
    for _ in range(10):
        tell_how_it_ended(SECOND, True, [], 1.0)
    assert told(web) == [("failure", "31", "open"), ("failure", "31", "recovered")]
    assert metric("run", "spamscore_run_failed") == 0
    assert metric("batch", "spamscore_batch_model_version") == 1


def test_a_good_night_of_another_date_does_not_close_one_that_is_still_missing(web: Web, engine: Engine) -> None:
    tell_how_it_ended(FIRST, False, MISSING, 1.0)
    published(engine, SECOND)
    tell_how_it_ended(SECOND, True, [], 1.0)
    assert told(web) == [("failure", "30", "open")]
    published(engine, FIRST)  # caught up
    tell_how_it_ended(SECOND, True, [], 1.0)
    assert told(web)[1:] == [("failure", "30", "recovered")]


def test_a_night_that_is_published_but_not_done_stays_open(web: Web, engine: Engine) -> None:
    published(engine, SECOND)
    tell_how_it_ended(SECOND, False, [Failure(None, "Nightly failed: a disk is full")], 1.0)
    assert told(web) == [("failure", "31", "open")]


def test_drift_is_told_once_and_ends_with_a_batch_that_is_like_those_before(web: Web, engine: Engine) -> None:
    published(engine, FIRST, crossed=True)
    for _ in range(3):
        tell_how_it_ended(FIRST, True, [], 1.0)
    assert told(web) == [("drift", "30", "open")]
    assert web.messages[0]["said"] == "the scores moved"
    assert metric("batch", "spamscore_drift_crossed") == 1
    published(engine, SECOND)
    tell_how_it_ended(SECOND, True, [], 1.0)
    assert told(web)[1:] == [("drift", "30", "recovered")]


def test_drift_that_a_person_accepts_ends_too(web: Web, engine: Engine) -> None:
    batch_id = published(engine, SECOND, crossed=True)
    tell_how_it_ended(SECOND, True, [], 1.0)
    accept_drift(engine, batch_id, "ann")
    tell_how_it_ended(SECOND, True, [], 1.0)
    assert told(web) == [("drift", "31", "open"), ("drift", "31", "recovered")]


def test_a_late_night_is_well_again_once_it_is_published(web: Web, engine: Engine) -> None:
    raise_alert(DEADLINE, SECOND, "too late")
    tell_how_it_ended(FIRST, True, [], 1.0)
    published(engine, SECOND)
    tell_how_it_ended(SECOND, True, [], 1.0)
    assert told(web) == [("deadline", "31", "open"), ("deadline", "31", "recovered")]


def test_without_a_database_the_failure_is_told_and_nothing_of_the_batch_changes(
    web: Web, engine: Engine, set_settings: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    published(engine, FIRST)
    tell_how_it_ended(FIRST, True, [], 1.0)
    before = (Path("metrics") / "spamscore_batch.prom").read_bytes()
    set_settings("database", url="postgresql://nobody:hunter2@127.0.0.1:1/none")
    tell_how_it_ended(SECOND, False, [Failure(None, "cannot be reached")], 1.0)
    assert told(web) == [("failure", "31", "open")]
    assert (Path("metrics") / "spamscore_batch.prom").read_bytes() == before
    assert metric("run", "spamscore_run_failed") == 1
    assert "hunter2" not in caplog.text
    assert known_alerts().dates("failure") == ["2026-01-31"]


REASONS = [
    ([], "it did not come to its end, and no stage said why"),
    ([Failure(None, "a"), Failure(20, "b")], "a; b"),
    ([Failure(None, letter) for letter in "abcde"], "a; b; c; and 2 more"),
]


@pytest.mark.parametrize(("failed", "said"), REASONS, ids=["none", "two", "five"])
def test_an_alert_names_the_first_reasons(failed: list[Failure], said: str) -> None:
    assert reason(failed).startswith(said)
