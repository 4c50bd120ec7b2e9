"""The deadline: due times, and one early warning if the scores will be late."""

from __future__ import annotations

import datetime
import time
import zoneinfo

import pytest

from tasks.monitoring.deadline import DeadlineMonitor, find_due_time, monitor_deadline

DATE = datetime.date(2026, 1, 30)


def local(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).astimezone()


DUE = [
    ("that night", "06:00", "2026-01-31 02:00", "2026-01-31 06:00"),
    ("already late", "06:00", "2026-01-31 23:59", "2026-01-31 06:00"),
    ("on the same day", "06:00", "2026-01-30 23:00", "2026-01-31 06:00"),
    ("a backfill a day later", "06:00", "2026-02-01 06:00", None),
    ("no deadline", "", "2026-01-31 02:00", None),
]


@pytest.mark.parametrize(("_what", "deadline", "now", "due"), DUE, ids=[row[0] for row in DUE])
def test_scores_are_due_on_the_day_after_their_date(_what: str, deadline: str, now: str, due: str | None) -> None:
    found = find_due_time(DATE, deadline, local(now))
    assert (found and found.isoformat(" ", "minutes")) == (due and local(due).isoformat(" ", "minutes"))


@pytest.mark.parametrize(
    ("zone", "due"), [("Asia/Tokyo", "2026-01-30 21:00+00:00"), ("America/New_York", "2026-01-31 11:00+00:00")]
)
def test_the_deadline_is_in_the_time_zone_of_the_messages(zone: str, due: str) -> None:
    now = datetime.datetime.fromisoformat("2026-01-30 20:00+00:00")
    found = find_due_time(DATE, "06:00", now, zoneinfo.ZoneInfo(zone))
    assert found is not None
    assert (found, f"{found:%H:%M}") == (datetime.datetime.fromisoformat(due), "06:00")


class Run:
    """A run of a thousand messages with its own clock, monitored for its deadline."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, due_in: float) -> None:
        self.clock, self.statuses, self.warnings = 1000.0, list[str](), list[str]()
        monkeypatch.setattr(time, "monotonic", lambda: self.clock)
        due = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=due_in)
        self.monitor = DeadlineMonitor(lambda *values: self.statuses.append(values[2]), due, self.warnings.append)

    def score(self, *chunks: tuple[float, float]) -> None:
        """Scores chunks: each is the seconds that it takes and the messages done after it."""
        for seconds, done in chunks:
            self.clock += seconds
            self.monitor(done, 1000, f"{done:g}")


START, SLOW_START, STEADY = (0.0, 0.0), (500.0, 100.0), (10.0, 200.0)


def test_a_run_in_time_keeps_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, due_in=3600)
    run.score(START, START, SLOW_START, STEADY, (10, 300), (10, 1000))
    assert (run.statuses, run.warnings) == (["0", "0", "100", "200", "300", "1000"], [])


def test_a_run_that_will_be_late_warns_once_from_its_second_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, due_in=600)
    run.score(START, (5, 100), (100, 200), (100, 300))  # 800 are left after the second chunk, one second each
    assert run.statuses[:2] == ["0", "100"]
    assert all(", late: due " in status for status in run.statuses[2:])
    (warning,) = run.warnings
    assert warning.startswith("too late: 200 of 1,000 messages are scored, and the others will be scored at about ")


def test_messages_of_an_earlier_run_do_not_count_for_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, due_in=300)
    run.score((0, 890), (5, 900), (50, 910))  # 90 are left, five seconds each
    assert len(run.warnings) == 1


def test_a_run_that_starts_after_its_deadline_warns_after_its_first_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, due_in=-60)
    run.score(START, (5, 1000))
    assert run.statuses[0] == "0"
    assert len(run.warnings) == 1


def test_a_backfill_keeps_its_callback() -> None:
    def on_progress(done: float, total: float, status: str) -> None: ...

    assert monitor_deadline(on_progress, datetime.date(2020, 1, 1), "06:00", print) is on_progress
