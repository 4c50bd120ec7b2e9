"""The alerts and metrics that a Nightly run sends, for different states of the database."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from receivers import Web, web_server
from sqlalchemy.engine import Engine

from pipeline.notifications import notify_run_end, summarize_failures
from tasks.database.ledger import BatchPlan, publish_batch, start_batch
from tasks.database.schema import open_database
from tasks.monitoring.alerts import DEADLINE, raise_alert, read_alerts
from tasks.monitoring.drift import Crossing, DriftFigures, accept_drift, write_drift
from tasks.scheduler.failures import Failure
from tasks.settings.storage import DatabaseSettings

FIRST, SECOND = datetime.date(2026, 1, 30), datetime.date(2026, 1, 31)
MISSING = [Failure(20, "no such file")]


@pytest.fixture
def web(set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    with web_server() as server:
        monkeypatch.setenv("SPAMSCORE_ALERTS_WEBHOOK_URL", server.url)
        set_settings("metrics", textfile_folder="metrics")
        Path("metrics").mkdir()
        yield server


@pytest.fixture
def engine(web: Web) -> Iterator[Engine]:
    database = open_database(DatabaseSettings())
    yield database
    database.dispose()


def publish_batch_of(engine: Engine, date: datetime.date, crossed: bool = False) -> int:
    """Publishes an empty batch with its drift figures, and returns its id."""
    plan = BatchPlan(date, "r", "spam_ham", 1, "ckpt", "snap", 0.5, "cpu:0", 10)
    batch_id = start_batch(engine, plan).batch_id
    publish_batch(engine, batch_id, 0)
    crossings = [Crossing("psi_before", 0.5, 0.25, "the scores moved")] if crossed else []
    write_drift(engine, DriftFigures(batch_id, date, 0, 0, 0), np.zeros(1, np.int64), crossings)
    return batch_id


def notify(nights: dict[datetime.date, bool], failures: list[Failure], **missed: bool) -> None:
    """Notifies of nights and of missed dates, `d30=False`, that all have the same failures."""
    dates = {datetime.date(2026, 1, int(day.removeprefix("d"))): done for day, done in missed.items()}
    notify_run_end(nights, dates, dict.fromkeys([*nights, *dates], failures), 1.0)


def get_alerts(web: Web) -> list[tuple[str, str, str]]:
    return [(message["kind"], message["date"][-2:], message["state"]) for message in web.messages]


def read_metric(part: str, name: str) -> float:
    lines = (Path("metrics") / f"spamscore_{part}.prom").read_text(encoding="utf-8").splitlines()
    return next(float(line.rsplit(maxsplit=1)[1]) for line in lines if line.startswith(name))


def test_ten_failing_runs_send_one_alert_and_ten_good_runs_one_recovery(web: Web, engine: Engine) -> None:
    for _ in range(10):
        notify({SECOND: False}, MISSING)
    assert (get_alerts(web), read_metric("run", "spamscore_run_failed")) == ([("failure", "31", "open")], 1)
    assert web.messages[0]["said"] == "no such file"
    publish_batch_of(engine, SECOND)
    for _ in range(10):
        notify({SECOND: True}, [])
    assert get_alerts(web) == [("failure", "31", "open"), ("failure", "31", "recovered")]
    assert read_metric("run", "spamscore_run_failed") == 0
    assert read_metric("batch", "spamscore_batch_model_version") == 1


def test_a_good_run_of_another_date_does_not_close_the_alert_of_a_missing_date(web: Web, engine: Engine) -> None:
    notify({FIRST: False}, MISSING)
    publish_batch_of(engine, SECOND)
    notify({SECOND: True}, [])
    assert get_alerts(web) == [("failure", "30", "open")]
    publish_batch_of(engine, FIRST)  # by a catch-up
    notify({SECOND: True}, [])
    assert get_alerts(web)[1:] == [("failure", "30", "recovered")]


REJECTED_NIGHTS = [
    ([Failure(60, "half of them rejected")], "rejected"),
    ([Failure(60, "half of them rejected"), Failure(None, "a disk is full")], "failure"),
]


@pytest.mark.parametrize(("failures", "kind"), REJECTED_NIGHTS, ids=["only rejected", "and another failure"])
def test_a_night_that_only_rejected_messages_has_an_alert_of_its_own_kind(
    web: Web, engine: Engine, failures: list[Failure], kind: str
) -> None:
    for _ in range(2):
        notify({SECOND: False}, failures)
    assert get_alerts(web) == [(kind, "31", "open")]
    assert ("too many messages were rejected" in web.messages[0]["text"]) is (kind == "rejected")
    publish_batch_of(engine, SECOND)
    notify({SECOND: True}, [])
    assert get_alerts(web)[1:] == [(kind, "31", "recovered")]


def test_the_alert_of_a_date_that_is_published_but_not_done_stays_open(web: Web, engine: Engine) -> None:
    publish_batch_of(engine, SECOND)
    notify({SECOND: False}, [Failure(None, "Nightly failed: a disk is full")])
    assert get_alerts(web) == [("failure", "31", "open")]


def test_a_missed_date_that_is_not_done_has_its_own_alert_and_the_run_did_not_fail(web: Web, engine: Engine) -> None:
    publish_batch_of(engine, SECOND)
    for _ in range(2):
        notify({SECOND: True}, MISSING, d30=False)
    assert get_alerts(web) == [("failure", "30", "open")]
    assert read_metric("run", "spamscore_run_failed") == 0
    assert read_metric("run", 'spamscore_alerts_open{kind="failure"}') == 1
    publish_batch_of(engine, FIRST)
    notify({SECOND: True}, [], d30=True)
    assert get_alerts(web)[1:] == [("failure", "30", "recovered")]


def test_the_nights_of_a_range_are_notified_together(web: Web, engine: Engine) -> None:
    publish_batch_of(engine, FIRST)
    notify({FIRST: True, SECOND: False}, MISSING)
    assert get_alerts(web) == [("failure", "31", "open")]
    assert read_metric("run", "spamscore_run_failed") == 1


def test_drift_sends_one_alert_and_a_batch_without_drift_closes_it(web: Web, engine: Engine) -> None:
    publish_batch_of(engine, FIRST, crossed=True)
    for _ in range(3):
        notify({FIRST: True}, [])
    assert get_alerts(web) == [("drift", "30", "open")]
    assert web.messages[0]["said"] == "the scores moved"
    assert read_metric("batch", "spamscore_drift_crossed") == 1
    publish_batch_of(engine, SECOND)
    notify({SECOND: True}, [])
    assert get_alerts(web)[1:] == [("drift", "30", "recovered")]


def test_accepting_drift_closes_its_alert(web: Web, engine: Engine) -> None:
    batch_id = publish_batch_of(engine, SECOND, crossed=True)
    notify({SECOND: True}, [])
    accept_drift(engine, batch_id, "ann")
    notify({SECOND: True}, [])
    assert get_alerts(web) == [("drift", "31", "open"), ("drift", "31", "recovered")]


def test_publishing_a_date_closes_its_deadline_alert(web: Web, engine: Engine) -> None:
    raise_alert(DEADLINE, SECOND, "too late")
    notify({FIRST: True}, [])
    publish_batch_of(engine, SECOND)
    notify({SECOND: True}, [])
    assert get_alerts(web) == [("deadline", "31", "open"), ("deadline", "31", "recovered")]


def test_without_a_database_the_failure_is_reported_and_the_metrics_of_the_batch_do_not_change(
    web: Web, engine: Engine, set_settings: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    publish_batch_of(engine, FIRST)
    notify({FIRST: True}, [])
    before = (Path("metrics") / "spamscore_batch.prom").read_bytes()
    set_settings("database", url="postgresql://nobody:hunter2@127.0.0.1:1/none")
    notify({SECOND: False}, [Failure(None, "cannot be reached")])
    assert get_alerts(web) == [("failure", "31", "open")]
    assert (Path("metrics") / "spamscore_batch.prom").read_bytes() == before
    assert read_metric("run", "spamscore_run_failed") == 1
    assert "hunter2" not in caplog.text
    assert read_alerts().dates("failure") == ["2026-01-31"]


SUMMARIES = [
    ([], "the run did not finish, and no stage reported a failure"),
    ([Failure(None, "a"), Failure(20, "b")], "a; b"),
    ([Failure(None, letter) for letter in "abcde"], "a; b; c; and 2 more"),
]


@pytest.mark.parametrize(("failures", "summary"), SUMMARIES, ids=["none", "two", "five"])
def test_an_alert_names_the_first_three_failures(failures: list[Failure], summary: str) -> None:
    assert summarize_failures(failures).startswith(summary)
