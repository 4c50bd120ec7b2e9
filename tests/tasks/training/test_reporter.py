"""The status line, the share done and the messages of the trainings of a model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.settings import TrainingSettings
from models.training.epoch_limit import EpochLimit
from models.training.job import Progress
from tasks.scheduler.scheduler_messages import SchedulerMessage
from tasks.training.reporter import TrainingReporter, compute_share_done

SETTINGS = TrainingSettings(epochs=10, held_out_folds=3)


class Report:
    """Records what the reporter shows, and the messages that it accepts."""

    def __init__(self) -> None:
        self.shown: list[tuple[float, str]] = []
        self.messages: dict[str, SchedulerMessage] = {}

    def update(self, done: float, total: float, status: str) -> None:
        self.shown.append((done / total, status))

    def accept_messages(self, *supported: SchedulerMessage) -> None:
        self.messages = {message.word: message for message in supported}

    def send(self, word: str) -> str:
        action = self.messages[word].action
        assert action is not None
        return action()


def progress(epoch: int, step: int = 5, *, loss: float = 0.5, name: str = "ckpt-1") -> Progress:
    return Progress(epoch, SETTINGS.epochs, step, 10, loss, lambda: name)


def make_reporter(folder: Path, finished: int = 0) -> tuple[TrainingReporter, Report]:
    report = Report()
    return TrainingReporter(report, SETTINGS, EpochLimit(folder), finished), report  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ({0: progress(4)}, "epoch 4/10, loss 0.500"),
        ({2: progress(4)}, "held-out fold 2/3, epoch 4/10, loss 0.500"),
        (
            {1: progress(4, loss=0.061), 0: progress(2)},
            "final network, epoch 2/10, loss 0.500; held-out fold 1/3, epoch 4/10, loss 0.061",
        ),
    ],
    ids=["the final network alone", "a fold alone", "two side by side"],
)
def test_the_status_names_the_networks_that_are_trained(
    tmp_path: Path, running: dict[int, Progress], expected: str
) -> None:
    reporter, report = make_reporter(tmp_path)
    for number, step in running.items():
        reporter.step(number, step)
    assert re.fullmatch(rf"{re.escape(expected)}(, .+ left)?", report.shown[-1][1])


def test_the_time_left_is_shown_from_the_second_step_on(tmp_path: Path) -> None:
    reporter, report = make_reporter(tmp_path)
    reporter.step(0, progress(1, 1))
    reporter.step(0, progress(1, 2))
    assert [status.endswith(" left") for _, status in report.shown] == [False, True]


@pytest.mark.parametrize(
    ("running", "finished", "is_final_finished", "expected"),
    [
        ({}, 0, False, 0.0),
        ({}, 3, False, 2 / 3),
        ({}, 3, True, 1.0),
        ({0: progress(10, 10)}, 3, False, 1.0),
        ({0: progress(5, 10)}, 0, False, 1 / 6),
        ({1: progress(5, 10)}, 0, False, 1 / 9),
        ({0: progress(5, 10), 1: progress(5, 10)}, 1, False, 1 / 6 + 1 / 9 + 2 / 9),
        ({2: progress(5, 10)}, 1, True, 1 / 3 + 1 / 9 + 2 / 9),
    ],
)
def test_the_share_done_counts_the_steps_of_all_networks(
    running: dict[int, Progress], finished: int, is_final_finished: bool, expected: float
) -> None:
    assert compute_share_done(running, finished, 3, is_final_finished) == pytest.approx(expected)


def test_without_folds_the_share_done_is_that_of_the_final_network() -> None:
    assert compute_share_done({0: progress(5, 10)}, 0, 0) == pytest.approx(0.5)


@pytest.mark.parametrize("order", [(1, 2, 3, 0), (0, 1, 2, 3), (1, 0, 2, 3)])
def test_the_share_done_never_falls_and_ends_at_1_in_any_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    reporter, report = make_reporter(tmp_path)
    for number in order:
        for epoch in (1, 6, 10):
            reporter.step(number, progress(epoch, 10))
        reporter.finish(number)
        reporter.update()
    shares = [share for share, _ in report.shown]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_folds_that_an_earlier_run_finished_count_from_the_start(tmp_path: Path) -> None:
    reporter, report = make_reporter(tmp_path, finished=3)
    reporter.update()
    assert report.shown == [(pytest.approx(2 / 3), "starting")]


def test_stop_limits_all_networks_to_the_epoch_of_the_one_that_is_furthest(tmp_path: Path) -> None:
    reporter, report = make_reporter(tmp_path)
    assert report.send("stop") == "no training has begun yet; send stop again later"
    reporter.step(0, progress(2))
    reporter.step(1, progress(3))
    answer = "stopping after epoch 3 of 10; all networks that are not finished are limited to that epoch. "
    assert report.send("stop") == f"{answer}The best epoch is kept."
    assert EpochLimit(tmp_path).epoch == 3


def test_stop_in_the_final_network_alone_does_not_mention_others(tmp_path: Path) -> None:
    reporter, report = make_reporter(tmp_path)
    reporter.step(0, progress(4))
    assert report.send("stop") == "stopping after epoch 4 of 10. The best epoch is kept."


def test_checkpoint_writes_one_for_each_running_network(tmp_path: Path) -> None:
    reporter, report = make_reporter(tmp_path)
    assert report.send("checkpoint") == "no training has begun yet"
    reporter.step(0, progress(2, name="ckpt-7"))
    reporter.step(1, progress(3, name="ckpt-12"))
    assert report.send("checkpoint") == "written: ckpt-7, ckpt-12"


def test_a_worker_that_follows_another_accepts_no_messages() -> None:
    report = Report()
    TrainingReporter(report, SETTINGS, None)  # type: ignore[arg-type]
    assert report.messages == {}
