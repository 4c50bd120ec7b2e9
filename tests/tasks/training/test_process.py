"""A process that trains networks for its parent: what it reports, and how it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from eventually import eventually
from scripted_plan import ENDLESS, EXPECTED_ERROR, KILLED, LOGS, SHORT, UNEXPECTED_ERROR, ScriptedPlan

from models.errors import DeviceError, InputError
from models.settings import DeviceSettings
from tasks.settings.operation import ConsoleSettings
from tasks.training.process import (
    Failed,
    Finished,
    ProcessDiedError,
    Report,
    Saved,
    Started,
    Stepped,
    TrainingProcess,
    raise_failure,
)


@contextlib.contextmanager
def started(folder: Path, devices: str = "auto") -> Iterator[TrainingProcess]:
    plan = ScriptedPlan(folder / "checkpoints")
    process = TrainingProcess(plan, DeviceSettings(devices=devices), ConsoleSettings())  # type: ignore[arg-type]
    try:
        yield process
    finally:
        process.kill()
        process._process.join()


def next_report(process: TrainingProcess) -> Report:
    """Returns the next report that is neither a log line nor a step."""
    while (report := process.receive()) is None or isinstance(report, Stepped):
        pass
    return report


def child(process: TrainingProcess) -> psutil.Process:
    return psutil.Process(process._process.pid)


def read_checkpoints(folder: Path) -> list[str]:
    return (folder / "checkpoints").read_text().split()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingProcess]:
    """A process that has started, for tests that leave it as it was."""
    with started(tmp_path_factory.mktemp("process")) as process:
        assert next_report(process) == Started(["/job:localhost/replica:0/task:0/device:CPU:0"])
        yield process


def test_a_process_trains_one_network_after_the_other(process: TrainingProcess) -> None:
    for number in (SHORT, SHORT):
        process.train(number)
        assert process.number == number
        assert next_report(process) == Finished(number, None)
        assert process.number is None


def test_log_lines_name_the_network_and_obey_the_level_of_the_console(
    process: TrainingProcess, caplog: pytest.LogCaptureFixture
) -> None:
    process.train(LOGS)
    with caplog.at_level(logging.DEBUG, "spamscore"):
        next_report(process)
    assert caplog.messages == ["held-out fold 1/6: epoch 1"]


def test_a_request_for_a_checkpoint_is_answered_also_if_nothing_is_trained(process: TrainingProcess) -> None:
    process.save()
    assert next_report(process) == Saved(None)
    process.train(SHORT)
    process.save()
    assert {next_report(process), next_report(process)} == {Finished(SHORT, None), Saved(None)}


def test_signals_to_a_process_are_left_to_its_parent(process: TrainingProcess) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(child(process).pid, number)
    process.train(SHORT)
    assert next_report(process) == Finished(SHORT, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_process_starts_is_left_to_its_parent_too(
    tmp_path: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with started(tmp_path) as process:
        os.kill(child(process).pid, number)
        assert isinstance(next_report(process), Started)
    assert capfd.readouterr().err == ""


def test_checkpoints_are_written_on_request_and_at_the_end_after_a_step(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        next_report(process)
        process.train(ENDLESS)
        while not isinstance(report := process.receive(), Stepped):
            pass
        assert (report.number, report.progress.step) == (ENDLESS, 1)
        process.save()
        answer = next_report(process)
        assert isinstance(answer, Saved)
        assert [answer.checkpoint] == read_checkpoints(tmp_path)
        process.request_end()
        process.join()
        assert len(read_checkpoints(tmp_path)) == 2
        with pytest.raises(ProcessDiedError) as died:
            process.receive()
        assert died.value.exit_code == 0


def test_a_process_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        next_report(process)
        process.train(ENDLESS)
        process.join(0.2)
        assert process._process.exitcode == -signal.SIGKILL


def test_a_process_whose_parent_has_gone_ends_without_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with started(tmp_path) as process:
        next_report(process)
        process.train(ENDLESS)
        process.connection.close()
        assert eventually(lambda: process._process.exitcode, lambda code: code is not None) == 1
    assert capfd.readouterr().err == ""


def test_a_killed_process_is_reported_with_its_signal(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        next_report(process)
        process.train(KILLED)
        with pytest.raises(ProcessDiedError) as died:
            next_report(process)
        assert died.value.exit_code == -signal.SIGKILL


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (EXPECTED_ERROR, InputError, "row 3: expected spam or ham."),
        (UNEXPECTED_ERROR, RuntimeError, "a training process failed:\nTraceback (most recent call last)"),
    ],
)
def test_an_error_reaches_the_parent(tmp_path: Path, number: int, error: type[Exception], text: str) -> None:
    with started(tmp_path) as process:
        next_report(process)
        process.train(number)
        failed = next_report(process)
        assert isinstance(failed, Failed)
        with pytest.raises(error) as raised:
            raise_failure(failed)
        assert str(raised.value).startswith(text)
        assert ("ZeroDivisionError" in str(raised.value)) == (error is RuntimeError)


def test_an_error_at_the_start_reaches_the_parent(tmp_path: Path) -> None:
    with started(tmp_path, devices="gpu:3") as process:
        failed = next_report(process)
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, DeviceError)
