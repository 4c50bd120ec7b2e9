"""How far a task is, as a person in a terminal, one who reads the log, and Luigi's scheduler are told."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import luigi
import pytest

from tasks.scheduler import progress
from tasks.scheduler.progress import left, reporting


class Told(luigi.Task):
    """A task in a worker, as Luigi makes it; remembers what the scheduler was told."""

    test = luigi.Parameter()  # Luigi hands out one object for the same parameters

    def __init__(self, test: str) -> None:
        super().__init__(test)
        self.said: list[object] = []
        self.scheduler_messages: queue.Queue[object] = queue.Queue()
        self.set_status_message = self.said.append
        self.set_progress_percentage = self.said.append
        self.set_tracking_url = self.said.append


class Message:
    def __init__(self, content: str) -> None:
        self.content = content
        self.answer: str | None = None

    def __str__(self) -> str:
        return self.content

    def respond(self, answer: str) -> None:
        self.answer = answer


@pytest.fixture(autouse=True)
def settings(set_settings: Callable[..., None]) -> None:
    """Those of nobody else."""


def test_the_last_words_are_told_whatever_was_told_a_moment_before() -> None:
    task = Told("a")
    with reporting(task, "scoring") as report:
        report.link("http://reports.internal/a")
        for done in (1, 2, 3):
            report.update(done, 4, f"{done} of 4")
        report.conclude("refused: too few")
    assert task.said[0] == "http://reports.internal/a"
    assert task.said[-2:] == ["refused: too few", 100.0]
    assert len(task.said) <= 5


def test_nothing_is_left_running_when_the_task_ends() -> None:
    before = threading.active_count()
    with reporting(Told("b"), "scoring") as report:
        report.update(1, 4, "1 of 4")
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_outside_a_worker_nobody_is_told() -> None:
    before = threading.active_count()
    with reporting(luigi.Task(), "scoring") as report:
        report.update(1, 4, "1 of 4")
        report.conclude("done")
        assert threading.active_count() == before


def test_a_scheduler_that_is_slow_keeps_no_work_waiting() -> None:
    answers = threading.Event()
    task = Told("c")
    task.set_status_message = lambda status: (answers.wait(), task.said.append(status))
    with reporting(task, "scoring") as report:
        for done in range(1000):
            report.update(done, 1000, f"{done} of 1000")
        answers.set()
        report.conclude("done")
    assert task.said[-2:] == ["done", 100.0]


def test_a_scheduler_that_does_not_answer_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def gone(_status: str) -> None:
        raise ConnectionError("refused")

    task = Told("d")
    task.set_status_message = gone
    with caplog.at_level(logging.INFO, "spamscore"), reporting(task, "scoring") as report:
        report.update(1, 4, "1 of 4")
        report.conclude("done")
    assert task.said == []
    assert caplog.text == ""  # that it is gone is said by the process that the worker is in


def test_without_a_terminal_a_line_says_now_and_then_how_far_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 3600.0)
    with caplog.at_level(logging.INFO, "spamscore"), reporting(Told("e"), "scoring") as report:
        report.update(1, 4, "1 of 4")
        assert caplog.messages == []
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
        report.update(2, 4, "2 of 4")
    assert caplog.messages == ["scoring: 50 %, 2 of 4"]


def test_rows_are_counted_on_their_way() -> None:
    task = Told("f")
    with reporting(task, "extraction") as report:
        assert list(report.counted(range(2500), expected=2000)) == list(range(2500))
    assert task.said[-2:] == ["2,500 messages read", 100.0]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s left"), (89, "89 s left"), (120, "2 min left"), (5 * 3600, "5.0 h left")]
)
def test_time_left_is_said_as_a_person_says_it(seconds: float, said: str) -> None:
    assert left(seconds) == said
