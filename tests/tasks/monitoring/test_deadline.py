"""Whether the scores of a date will be ready in time, and that it is said early, once."""

from __future__ import annotations

import datetime
import time

import pytest

from tasks.monitoring.deadline import DeadlineMonitor, find_due_time, monitor_deadline

DATE = datetime.date(2026, 1, 30)


def local(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).astimezone()


DUE = [
    ("that night", "06:00", "2026-01-31 02:00", "2026-01-31 06:00"),
    ("already late", "06:00", "2026-01-31 23:59", "2026-01-31 06:00"),
    ("on the same day", "06:00", "2026-01-30 23:00", "2026-01-31 06:00"),
    ("a day later it is a backfill", "06:00", "2026-02-01 06:00", None),
    ("no deadline", "", "2026-01-31 02:00", None),
]


@pytest.mark.parametrize(("_what", "deadline", "now", "due"), DUE, ids=[row[0] for row in DUE])
def test_scores_are_due_on_the_day_after_their_date(_what: str, deadline: str, now: str, due: str | None) -> None:
    found = find_due_time(DATE, deadline, local(now))
    assert (found and found.isoformat(" ", "minutes")) == (due and local(due).isoformat(" ", "minutes"))


class Run:
    """A run of a thousand messages that is watched, with a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, due_in: float) -> None:
        self.clock, self.statuses, self.told = 1000.0, list[str](), list[str]()
        monkeypatch.setattr(time, "monotonic", lambda: self.clock)
        due = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=due_in)
        self.watch = DeadlineMonitor(lambda *told: self.statuses.append(told[2]), due, self.told.append)

    def score(self, *chunks: tuple[float, float]) -> None:
        """Each chunk: seconds that it takes, messages that are done after it."""
        for seconds, done in chunks:
            self.clock += seconds
            self.watch(done, 1000, f"{done:g}")


SLOW_START, STEADY = (500.0, 100.0), (10.0, 200.0)


def test_a_run_in_time_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, due_in=3600)
    run.score(SLOW_START, STEADY, (10, 300), (10, 1000))
    assert (run.statuses, run.told) == (["100", "200", "300", "1000"], [])


def test_a_run_that_will_be_late_says_so_from_its_second_chunk_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, due_in=600)
    run.score((5, 100), (100, 200), (100, 300))  # a second each: 800 left after the second chunk
    assert run.statuses[0] == "100"
    assert all(", late: due " in status for status in run.statuses[1:])
    (said,) = run.told
    assert said.startswith("too late: 200 of 1,000 messages are scored, and the rest will be at about ")


def test_what_an_earlier_run_scored_does_not_count_for_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, due_in=300)
    run.score((5, 900), (50, 910))  # 90 left, five seconds each
    assert len(run.told) == 1


def test_a_run_that_begins_after_its_deadline_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, due_in=-60)
    run.score((5, 1000))
    assert len(run.told) == 1


def test_a_backfill_is_watched_as_without_a_deadline() -> None:
    def watch(done: float, total: float, status: str) -> None: ...

    assert monitor_deadline(watch, datetime.date(2020, 1, 1), "06:00", print) is watch
