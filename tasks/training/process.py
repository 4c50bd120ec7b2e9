"""A process that trains networks for TrainModel.

It trains the networks that its parent names, and sends log lines, progress and results back. It obeys the parent alone:
SIGTERM and SIGINT, which a terminal or a service manager sends to all processes of a run, are left to the parent. If
the parent is killed, the process ends at once, because the next run may start in the same folder.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, cast

from models.errors import SpamscoreError
from models.settings import DeviceSettings
from models.training.job import Progress, TrainingSummary
from tasks.scheduler.failures import find_expected_error
from tasks.settings.operation import ConsoleSettings
from tasks.training.membership import Membership
from tasks.training.plan import TrainingPlan, describe_network

if TYPE_CHECKING:
    from models.training.replicas import Replicas

SECONDS_TO_SAVE = 60.0
_SECONDS_BETWEEN_REPORTS = 0.1
_SAVE, _END = "save", "end"
_SIGNALS = (signal.SIGTERM, signal.SIGINT)  # they are left to the parent


@dataclass(frozen=True)
class Started:
    """The process is ready to train on these devices."""

    devices: list[str]


@dataclass(frozen=True)
class Stepped:
    """A training step was done. `progress.save` is not usable in the parent."""

    number: int
    progress: Progress


@dataclass(frozen=True)
class Saved:
    """The answer to a request for a checkpoint; `checkpoint` is None if no network was being trained any more."""

    checkpoint: str | None


@dataclass(frozen=True)
class Finished:
    """A network is trained; `summary` is that of the final network, None for a fold."""

    number: int
    summary: TrainingSummary | None


@dataclass(frozen=True)
class Failed:
    """The process failed: with an expected error, or another one, whose traceback is given."""

    error: SpamscoreError | None
    traceback: str


Report = Started | Stepped | Saved | Finished | Failed


class ProcessDiedError(Exception):
    """A training process ended without a report. `exit_code` is negative for a signal."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code

    def describe(self, network: str = "") -> str:
        """Describes the death in one line without the way out; `network` is the network that was being trained."""
        code = self.exit_code or 0
        signal_or_code = f"signal {-code}" if code < 0 else f"exit code {code}"
        return (
            f"the training process{network and f' of the {network}'} ended with {signal_or_code}, perhaps because "
            "memory ran out: see the system's log"
        )


class TrainingProcess:
    """A training process, as its parent sees it.

    Attributes:
        connection: readable when there is a report.
        number: number of the network that is being trained; None between two.
    """

    def __init__(
        self, plan: TrainingPlan, devices: DeviceSettings, console: ConsoleSettings, cluster: Membership | None = None
    ) -> None:
        context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
        self.connection, connection = context.Pipe()
        self.number: int | None = None
        self._process = context.Process(target=_run, args=(connection, plan, devices, console, cluster))
        # The process inherits the mask, and ignores the signals before it removes it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        connection.close()

    def train(self, number: int) -> None:
        """Lets the process train a network next."""
        self.number = number
        self._send(number)

    def save(self) -> None:
        """Lets the process write a checkpoint after its step, which it answers with `Saved`."""
        self._send(_SAVE)

    def request_end(self) -> None:
        """Lets the process write a checkpoint after its step, if it trains, and end."""
        self._send(_END)

    def kill(self) -> None:
        """Kills the process."""
        self._process.kill()

    def join(self, seconds: float = SECONDS_TO_SAVE) -> None:
        """Waits for the end of the process, and kills it when the time is over."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ProcessDiedError):
            while (left := deadline - time.monotonic()) > 0 and self.connection.poll(left):
                self.receive()  # shows the log lines of the last step
        self._process.join(max(0.0, deadline - time.monotonic()))
        self._process.kill()
        self._process.join()

    def receive(self) -> Report | None:
        """Returns the next report. A log line is logged, and gives None.

        Raises:
            ProcessDiedError: the process ended without a report.
        """
        try:
            report: Any = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise ProcessDiedError(self._process.exitcode) from None
        if isinstance(report, logging.LogRecord):
            logger = logging.getLogger(report.name)
            if logger.isEnabledFor(report.levelno):
                logger.handle(report)
            return None
        if isinstance(report, Finished):
            self.number = None
        return cast("Report", report)

    def _send(self, message: int | str) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `receive` finds that the process ended
            self.connection.send(message)


def raise_failure(failed: Failed) -> None:
    """Raises the error of a training process.

    Raises:
        SpamscoreError: the process failed with this error.
        RuntimeError: it failed with another one; its text has the traceback.
    """
    raise failed.error or RuntimeError(f"a training process failed:\n{failed.traceback}")


class _EndRequest(BaseException):
    """The parent wants the process to end. Not an Exception, so that nothing on the way handles it."""


def _run(
    connection: Connection, plan: TrainingPlan, devices: DeviceSettings, console: ConsoleSettings,
    cluster: Membership | None,
) -> None:  # fmt: skip
    """Runs the process."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, requests), daemon=True).start()
    reports = _Reports(connection)
    logger = logging.getLogger("spamscore")
    logger.setLevel(console.log_level)
    logger.addHandler(reports)
    logger.propagate = False
    try:
        replicas = _start(plan, devices, console, cluster)
        reports.send(Started(list(replicas.strategy.extended.worker_devices)))
        while (number := requests.get()) != _END:
            if number == _SAVE:  # it came after the last step
                reports.send(Saved(None))
                continue
            reports.network = number, len(plan.folds)
            on_progress = _Progress(number, requests, reports.send)
            reports.send(Finished(number, plan.train(number, on_progress, replicas)))
    except _EndRequest:
        pass
    except BaseException as error:
        expected = find_expected_error(error)
        reports.send(Failed(expected if isinstance(expected, SpamscoreError) else None, traceback.format_exc()))


def _start(
    plan: TrainingPlan, devices: DeviceSettings, console: ConsoleSettings, cluster: Membership | None
) -> Replicas:
    from models.network.devices import select_devices, start_tensorflow

    if cluster is None:
        start_tensorflow(devices, console.tensorflow_log)
        from models.training.replicas import Replicas, create_strategy

        return Replicas(create_strategy(select_devices(devices)), plan.settings.shards)
    strategies: list[Any] = []

    def connect() -> None:
        from models.network.devices import hide_unselected_gpus
        from models.training.replicas import create_cluster_strategy

        hide_unselected_gpus(devices)
        strategies.append(create_cluster_strategy(cluster.addresses, cluster.worker))

    start_tensorflow(devices, console.tensorflow_log, connect)
    from models.training.replicas import Replicas

    return Replicas(strategies[0], plan.settings.shards, cluster.worker, len(cluster.addresses))


def _listen(connection: Connection, requests: queue.SimpleQueue[Any]) -> None:
    """Receives the requests of the parent, and ends the process when the parent has ended."""
    while True:
        try:
            requests.put(connection.recv())
        except (EOFError, ConnectionResetError):
            os._exit(1)


class _Reports(logging.Handler):
    """Sends reports and log records to the parent."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self.network: tuple[int, int] | None = None  # number of the network, and number of folds

    def send(self, report: Report | logging.LogRecord) -> None:
        """Sends a report."""
        try:
            with self.lock or contextlib.nullcontext():
                self._connection.send(report)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(1)  # the parent has ended

    def emit(self, record: logging.LogRecord) -> None:
        """Sends a log record, with the name of the network."""
        name = f"{describe_network(*self.network)}: " if self.network else ""
        record.msg, record.args = f"{name}{record.getMessage()}", None
        record.exc_info, record.exc_text = None, None  # a traceback cannot be sent
        self.send(record)


class _Progress:
    """The callback of a training: reports steps, and carries out the requests of the parent."""

    def __init__(self, number: int, requests: queue.SimpleQueue[Any], send: Callable[[Report], None]) -> None:
        self._number, self._requests, self._send = number, requests, send
        self._reported_at = 0.0

    def __call__(self, progress: Progress) -> None:
        while not self._requests.empty():
            if self._requests.get() == _END:
                raise _EndRequest
            self._send(Saved(progress.save()))
        now = time.monotonic()
        if now - self._reported_at >= _SECONDS_BETWEEN_REPORTS:
            self._reported_at = now
            self._send(Stepped(self._number, replace(progress, save=str)))
