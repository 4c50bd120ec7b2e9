"""What a task tells Luigi's scheduler of itself."""

from __future__ import annotations

import luigi
import pytest

from tasks.progress import ProgressReport


class Told(luigi.Task):
    """A task in a worker, as Luigi makes it; remembers what the scheduler was told."""

    test = luigi.Parameter()  # Luigi hands out one object for the same parameters

    def __init__(self, test: str) -> None:
        super().__init__(test)
        self.said: list[tuple[str, object]] = []
        self.set_status_message = lambda status: self.said.append(("status", status))
        self.set_progress_percentage = lambda percentage: self.said.append(("percentage", percentage))


def test_of_many_updates_at_once_the_first_is_told_and_the_conclusion_always() -> None:
    task = Told("a")
    report = ProgressReport(task)
    for done in (1, 2, 3):
        report.update(done, 4, f"{done} of 4")
    report.conclude("refused: too few")
    assert task.said == [
        ("status", "1 of 4"), ("percentage", 25.0), ("status", "refused: too few"), ("percentage", 100.0),
    ]  # fmt: skip


def test_outside_a_worker_nobody_is_told() -> None:
    ProgressReport(luigi.Task()).conclude("done")


def test_a_scheduler_that_does_not_answer_is_told_no_more_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def gone(_status: str) -> None:
        raise ConnectionError("refused")

    task = Told("b")
    task.set_status_message = gone
    report = ProgressReport(task)
    report.update(1, 4, "1 of 4")
    report.conclude("done")
    assert caplog.text.count("no longer takes the progress") == 1
    assert task.said == []
