"""Trains the networks of a model in several processes at once, which use more cores than one training can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path

from models.errors import WorkerError
from models.settings import DeviceSettings
from models.training.job import TrainingSummary
from tasks.settings.operation import ConsoleSettings
from tasks.training.plan import TrainingPlan, describe_network
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
from tasks.training.reporter import TrainingReporter

_BYTES_PER_PROCESS = 2**30
_SECONDS_BETWEEN_UPDATES = 0.5


def count_processes(plan: TrainingPlan, devices: DeviceSettings, cores: int) -> int:
    """Returns how many networks to train at once: [training] processes, or as many as cores and memory allow.

    Trainings on several devices run one after the other.
    """
    if plan.settings.processes:
        limit = plan.settings.processes
    elif devices.logical_cpus > 1 or "," in devices.devices:
        limit = 1
    else:
        limit = max(1, min(cores, available_memory() // _BYTES_PER_PROCESS))
    return min(limit, len(plan.list_unfinished()))


def available_memory(root: Path = Path("/")) -> int:
    """Returns the memory in bytes that new processes may use: of the machine or, if it is less, of the container."""
    available = _read_figures(root / "proc/meminfo")["MemAvailable:"] * 1024
    group = root / "sys/fs/cgroup"
    limit = group / "memory.max"
    if limit.is_file() and (maximum := limit.read_text("ascii").strip()) != "max":
        # The kernel counts cached files as used memory; it drops the inactive ones when a process needs more.
        used = int((group / "memory.current").read_text("ascii"))
        available = min(available, int(maximum) - used + _read_figures(group / "memory.stat")["inactive_file"])
    return max(0, available)


def _read_figures(path: Path) -> dict[str, int]:
    """Reads lines that begin with a name and a number."""
    return {words[0]: int(words[1]) for words in map(str.split, path.read_text("ascii").splitlines())}


def train_side_by_side(
    plan: TrainingPlan, processes: int, cores: int, devices: DeviceSettings, console: ConsoleSettings,
    reporter: TrainingReporter,
) -> TrainingSummary:  # fmt: skip
    """Trains the networks that are not finished, each in one of several processes with its share of the cores.

    If SIGTERM or an error ends the training, each process writes a checkpoint first.

    Raises:
        WorkerError: a process was killed.
        SpamscoreError: a training failed.
    """
    devices = replace(devices, threads=max(1, cores // processes))
    started = [TrainingProcess(plan, devices, console) for _ in range(processes)]
    trainings = _Trainings(plan, started, reporter)
    try:
        return trainings.run()
    except BaseException:
        for process in started:
            if process.number is None:
                process.kill()  # it may be importing TensorFlow, which takes seconds
        raise
    finally:
        for process in started:
            process.request_end()
        for process in started:
            process.join()


class _Trainings:
    """Gives the networks to the processes, the final one first because it takes longest, and collects the results."""

    def __init__(self, plan: TrainingPlan, processes: Sequence[TrainingProcess], reporter: TrainingReporter) -> None:
        self._folds, self._waiting = len(plan.folds), sorted(plan.list_unfinished())
        self._processes, self._reporter = list(processes), reporter
        self._summary: TrainingSummary | None = None
        reporter.save = self._save

    def run(self) -> TrainingSummary:
        """Returns the summary of the final network, when all networks are trained."""
        while self._waiting or any(process.number is not None for process in self._processes):
            self._reporter.update()
            self._receive()
        assert self._summary is not None, "the final network is one of the unfinished"  # noqa: S101
        return self._summary

    def _receive(self) -> list[Report]:
        """Handles the reports of all processes, and returns them."""
        reports = []
        by_connection = {process.connection: process for process in self._processes}
        for ready in connection.wait(list(by_connection), _SECONDS_BETWEEN_UPDATES):
            process = by_connection[ready]  # type: ignore[index]
            if not process.connection.poll():
                continue  # a message that was handled meanwhile has received the report
            number = process.number
            try:
                report = process.receive()
            except ProcessDiedError as died:
                raise _describe_death(died, number, self._folds) from None
            if report is not None:
                self._handle(process, report)
                reports.append(report)
        return reports

    def _handle(self, process: TrainingProcess, report: Report) -> None:
        if isinstance(report, Failed):
            raise_failure(report)
        elif isinstance(report, Stepped):
            self._reporter.step(report.number, report.progress)
        elif isinstance(report, Finished):
            self._reporter.finish(report.number)
            self._summary = self._summary or report.summary
        if isinstance(report, Started) and not _is_one_cpu(report.devices) and process is not self._processes[0]:
            # Trainings on a GPU or on several devices run one after the other.
            process.request_end()
            self._processes = [other for other in self._processes if other is not process]
        elif isinstance(report, Started | Finished) and self._waiting:
            process.train(self._waiting.pop(0))

    def _save(self) -> str:
        """Writes a checkpoint of each running training, and returns their names."""
        running = [process for process in self._processes if process.number is not None]
        for process in running:
            process.save()
        answers: list[Saved] = []
        while len(answers) < len(running):
            answers += [report for report in self._receive() if isinstance(report, Saved)]
        names = [answer.checkpoint for answer in answers if answer.checkpoint]
        return ", ".join(names) or "nothing, because the trainings have ended"


def _is_one_cpu(devices: list[str]) -> bool:
    return len(devices) == 1 and "CPU" in devices[0]


def _describe_death(died: ProcessDiedError, number: int | None, folds: int) -> WorkerError:
    return WorkerError(
        f"{died.describe('' if number is None else describe_network(number, folds))}. Run the same command again, it "
        "continues from the latest checkpoints; [training] processes = 1 needs less memory."
    )
