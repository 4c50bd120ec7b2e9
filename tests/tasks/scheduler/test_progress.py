"""The progress of a task in a terminal, in the log, and on Luigi's page."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import luigi
import pytest

from tasks.scheduler import progress
from tasks.scheduler.progress import format_time_left, report_progress


class ReportedTask(luigi.Task):
    """A task in a Luigi worker; records what it sends to the scheduler."""

    test = luigi.Parameter()  # Luigi returns the same object for the same parameters

    def __init__(self, test: str) -> None:
        super().__init__(test)
        self.sent: list[object] = []
        self.scheduler_messages: queue.Queue[object] = queue.Queue()
        self.set_status_message = self.sent.append
        self.set_progress_percentage = self.sent.append
        self.set_tracking_url = self.sent.append


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
    """Isolates each test from the settings of others."""


def test_the_conclusion_is_sent_even_right_after_an_update() -> None:
    task = ReportedTask("a")
    with report_progress(task, "scoring") as report:
        report.link("http://reports.internal/a")
        for done in (1, 2, 3):
            report.update(done, 4, f"{done} of 4")
        report.conclude("refused: too few")
    assert task.sent[0] == "http://reports.internal/a"
    assert task.sent[-2:] == ["refused: too few", 100.0]
    assert len(task.sent) <= 5


def test_no_thread_is_left_when_the_task_ends() -> None:
    before = threading.active_count()
    with report_progress(ReportedTask("b"), "scoring") as report:
        report.update(1, 4, "1 of 4")
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_outside_a_worker_no_thread_is_started() -> None:
    before = threading.active_count()
    with report_progress(luigi.Task(), "scoring") as report:
        report.update(1, 4, "1 of 4")
        report.conclude("done")
        assert threading.active_count() == before


def test_a_slow_scheduler_does_not_block_the_work() -> None:
    answers = threading.Event()
    task = ReportedTask("c")
    task.set_status_message = lambda status: (answers.wait(), task.sent.append(status))
    with report_progress(task, "scoring") as report:
        for done in range(1000):
            report.update(done, 1000, f"{done} of 1000")
        answers.set()
        report.conclude("done")
    assert task.sent[-2:] == ["done", 100.0]


def test_a_scheduler_that_does_not_answer_does_not_end_the_work(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_status: str) -> None:
        raise ConnectionError("refused")

    task = ReportedTask("d")
    task.set_status_message = refuse
    with caplog.at_level(logging.INFO, "spamscore"), report_progress(task, "scoring") as report:
        report.update(1, 4, "1 of 4")
        report.conclude("done")
    assert task.sent == []
    assert caplog.text == ""  # the worker's process logs that it is gone


def test_without_a_terminal_progress_is_logged_at_intervals(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 3600.0)
    with caplog.at_level(logging.INFO, "spamscore"), report_progress(ReportedTask("e"), "scoring") as report:
        report.update(1, 4, "1 of 4")
        assert caplog.messages == []
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
        report.update(2, 4, "2 of 4")
    assert caplog.messages == ["scoring: 50 %, 2 of 4"]


def test_count_rows_yields_the_rows_and_reports_their_number() -> None:
    task = ReportedTask("f")
    with report_progress(task, "extraction") as report:
        assert list(report.count_rows(range(2500), expected=2000)) == list(range(2500))
    assert task.sent[-2:] == ["2,500 messages read", 100.0]


@pytest.mark.parametrize(
    ("seconds", "formatted"), [(0.2, "0 s left"), (89, "89 s left"), (120, "2 min left"), (5 * 3600, "5.0 h left")]
)
def test_time_left_is_formatted_with_one_unit(seconds: float, formatted: str) -> None:
    assert format_time_left(seconds) == formatted
