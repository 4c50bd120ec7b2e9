"""Trains the networks of a model with workers on several machines: each step is divided among all of them.

Every machine runs TrainModel with the same settings. The first worker, the chief, writes checkpoints, history and
manifest. The others follow it, and end when and how it ends. TensorFlow runs in a process of its own on each machine,
which can be ended also while TensorFlow waits for a machine that does not answer.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from typing import Any

from models import errors
from models.errors import WorkerError
from models.settings import DeviceSettings
from models.training.job import TrainingSummary
from tasks.scheduler.failures import describe_error, record_failure
from tasks.scheduler.termination import EXIT_CODE, Terminated
from tasks.settings.operation import ConsoleSettings
from tasks.training.control_channel import Connection, Message, accept_chief, connect_to_workers
from tasks.training.membership import Membership
from tasks.training.plan import TrainingPlan
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

_PACKAGES = ("spamscore", "tensorflow", "keras", "numpy")
_SECONDS_BETWEEN_UPDATES = 0.5
# A failed step may be noticed before the connection of the worker that was the cause.
_SECONDS_TO_EXPLAIN = 5.0
_SECONDS_TO_END = 10.0


def describe_model(fingerprint_parts: dict[str, Any]) -> Message:
    """Returns what must be equal in all workers: settings, inputs, and versions of programs."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "model": json.loads(json.dumps(fingerprint_parts)),
        "versions": {**versions, "python": platform.python_version()},
    }


class Chief:
    """The first worker of a training: it tells the others what to train and how the training ended."""

    def __init__(self, members: Membership, model: Message, timeout: float) -> None:
        self._members, self._model, self._timeout = members, model, timeout
        self._connections: dict[int, Connection] = {}

    def train(
        self, plan: TrainingPlan, devices: DeviceSettings, console: ConsoleSettings, reporter: TrainingReporter,
        on_wait: Callable[[str], None],
    ) -> TrainingSummary:  # fmt: skip
        """Trains the networks that are not finished, with the other workers.

        Raises:
            WorkerError: a worker does not come, does not fit, or is lost.
            SpamscoreError: a training failed.
        """
        numbers = plan.list_unfinished()
        self._connections = connect_to_workers(self._members, {"networks": numbers}, self._timeout, on_wait)
        port = _find_free_port()
        ports = [port, *(self._check(worker, peer, on_wait) for worker, peer in sorted(self._connections.items()))]
        addresses = [f"{_host(address)}:{port}" for address, port in zip(self._members.addresses, ports, strict=True)]
        for peer in self._connections.values():
            peer.send({"start": addresses})
        training = _Training(self._members, self._connections, reporter, self._timeout)
        return training.run(plan, devices, console, addresses, numbers)

    def end(self, error: BaseException | None) -> None:
        """Tells the other workers that the training has ended, and with which error."""
        for peer in self._connections.values():
            peer.send(_end_message(error))
            peer.close()

    def _check(self, worker: int, peer: Connection, on_wait: Callable[[str], None]) -> int:
        """Compares a worker's model with this one's, and returns the port of its TensorFlow server."""
        name = self._members.describe(worker)
        answer = _wait_for_message("port", self._members, worker, peer, self._timeout, on_wait)
        if difference := _find_difference(self._model, {key: answer.get(key) for key in self._model}):
            path, ours, theirs = difference
            raise WorkerError(
                f"{name} does not train the same model: {path} is {ours} in worker 0 and {theirs} there. Use the same "
                "settings, corpus and versions on all machines."
            )
        return int(answer["port"])


def follow_chief(
    members: Membership, model: Message, plan: Callable[[Path], TrainingPlan], timeout: float, devices: DeviceSettings,
    console: ConsoleSettings, reporter: TrainingReporter, on_wait: Callable[[str], None],
) -> None:  # fmt: skip
    """Trains with the chief until it has ended.

    Args:
        members: the workers.
        model: as for `Chief`.
        plan: returns the plan for a folder, in which nothing stays.
        timeout: seconds to wait for the other workers at the start.
        devices: the [devices] section.
        console: the [console] section.
        reporter: reports the progress.
        on_wait: called while waiting, with a status.

    Raises:
        WorkerError: the chief does not come or is lost.
        SpamscoreError: the training failed here or in the chief, with this error.
        Terminated: the chief was ended by SIGTERM.
    """
    chief, hello = accept_chief(members, timeout, on_wait)
    connections = {0: chief}
    try:
        chief.send({**model, "port": _find_free_port()})
        # It comes when the chief has heard from all workers.
        start = _wait_for_message("start", members, 0, chief, timeout, on_wait)
        training = _Training(members, connections, reporter, timeout)
        with tempfile.TemporaryDirectory(prefix="spamscore-worker-") as folder:
            quiet = plan(Path(folder))
            # The checkpoints of the chief count.
            quiet = replace(quiet, settings=replace(quiet.settings, checkpoint_steps=2**31, keep_checkpoints=1))
            training.run(quiet, devices, console, start["start"], hello["networks"])
        while True:
            training.receive()
            on_wait(f"waiting until {members.describe(0)} has written the result")
    except _ChiefFinished:
        return
    except BaseException as error:
        chief.send(_end_message(error))
        raise
    finally:
        chief.close()


class _ChiefFinished(Exception):  # noqa: N818 - it is not an error
    """The chief has written the result."""


class _Training:
    """The training of this machine's process, and the connections to the other machines meanwhile."""

    def __init__(
        self, members: Membership, connections: dict[int, Connection], reporter: TrainingReporter, timeout: float
    ) -> None:
        self._members, self._connections, self._reporter, self._timeout = members, connections, reporter, timeout
        self._process: TrainingProcess | None = None
        self._finished: Finished | None = None  # the report of the network that was trained last

    def run(
        self, plan: TrainingPlan, devices: DeviceSettings, console: ConsoleSettings, addresses: Sequence[str],
        numbers: Sequence[int],
    ) -> TrainingSummary:  # fmt: skip
        """Trains networks one after the other, and returns the summary of the last one."""
        cluster = replace(self._members, addresses=tuple(addresses))
        process = self._process = TrainingProcess(plan, devices, console, cluster)
        self._reporter.save = lambda: self._save(process)
        try:
            self._wait_for_start(addresses)
            summary = None
            for number in numbers:
                self._finished = None
                process.train(number)
                while self._finished is None:
                    if isinstance(report := self.receive(), Stepped):
                        self._reporter.step(number, report.progress)
                    else:
                        self._reporter.update()
                self._reporter.finish(number)
                summary = self._finished.summary
            assert summary is not None, "the final network is the last one"  # noqa: S101
            return summary
        finally:
            self._process = None
            process.request_end()
            process.join(_SECONDS_TO_END)

    def receive(self) -> Report | None:
        """Handles what the other machines send, and returns the next report of the process; None if there is none yet.

        Raises:
            WorkerError: another machine is lost.
            SpamscoreError: the training failed here or there.
        """
        process = self._process
        ready = connection.wait(
            [*(peer.fileno() for peer in self._connections.values()), *([process.connection] if process else [])],
            _SECONDS_BETWEEN_UPDATES,
        )
        for worker, peer in self._connections.items():
            if peer.fileno() in ready:
                _read_message(self._members, worker, peer, _SECONDS_BETWEEN_UPDATES)
        if process is None or process.connection not in ready:
            return None
        try:
            report = process.receive()
        except ProcessDiedError as died:
            advice = "Run the same command on all machines; the training continues from the latest checkpoint."
            report = Failed(WorkerError(f"{died.describe()}. {advice}"), "")
        if isinstance(report, Failed):
            self._raise_failure(report)
        if isinstance(report, Finished):
            self._finished = report
        return report

    def _raise_failure(self, failed: Failed) -> None:
        """Raises the error of the process, or that of the machine that was its cause."""
        self._process = None
        deadline = time.monotonic() + (_SECONDS_TO_EXPLAIN if failed.error is None else 0.0)
        while time.monotonic() < deadline:
            self.receive()
        raise_failure(failed)

    def _wait_for_start(self, addresses: Sequence[str]) -> None:
        """Waits until TensorFlow has connected all workers; it would wait for ever."""
        deadline = time.monotonic() + self._timeout
        while not isinstance(self.receive(), Started):
            self._reporter.update()
            if time.monotonic() > deadline:
                others = [a for number, a in enumerate(addresses) if number != self._members.worker]
                raise WorkerError(
                    f"TensorFlow of {self._members.describe(self._members.worker)} has no connection to "
                    f"{', '.join(others)} within [training] worker_timeout = {self._timeout:g} s. Allow connections "
                    "between the machines on all ports, and check the host names in [training] workers."
                )

    def _save(self, process: TrainingProcess) -> str:
        process.save()
        while not isinstance(report := self.receive(), Saved):
            pass
        return report.checkpoint or "nothing, because the training has ended"


def _read_message(members: Membership, worker: int, peer: Connection, seconds: float) -> Message | None:
    """Returns the next message of a machine; None if there is none in this time.

    Raises:
        WorkerError: the machine is lost, or it failed.
        SpamscoreError: the chief failed with this error.
        Terminated: the chief was ended by SIGTERM.
        _ChiefFinished: the chief has written the result.
    """
    name = members.describe(worker)
    try:
        message = peer.receive(seconds)
    except EOFError:
        raise WorkerError(
            f"{name} was lost: its process was killed, or the network failed. Run the same command on all machines; "
            "the training continues from the latest checkpoint."
        ) from None
    if message is None or "end" not in message:
        return message
    if message["end"] is None:
        raise _ChiefFinished
    text = f"{name}: {message.get('message')}"
    if message["end"] == Terminated.__name__:
        record_failure(text, EXIT_CODE)
        raise Terminated
    error_class = getattr(errors, str(message["end"]), WorkerError) if worker == 0 else WorkerError
    raise error_class(text)


def _wait_for_message(
    key: str, members: Membership, worker: int, peer: Connection, timeout: float, on_wait: Callable[[str], None]
) -> Message:
    """Waits for the message of a machine that has this key.

    Raises:
        WorkerError: it does not come in time, or the machine is lost or failed.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        on_wait(f"waiting for an answer of {members.describe(worker)}")
        message = _read_message(members, worker, peer, _SECONDS_BETWEEN_UPDATES)
        if message and key in message:
            return message
    raise WorkerError(
        f"{members.describe(worker)} did not answer within [training] worker_timeout = {timeout:g} s: see its output. "
        "Start TrainModel again on all machines."
    )


def _end_message(error: BaseException | None) -> Message:
    if error is None:
        return {"end": None}
    return {"end": type(error).__name__, "message": describe_error(error)}


def _find_difference(ours: Any, theirs: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Returns the path, and both values, of the first difference of two JSON values; None if they are equal."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            if found := _find_difference(ours.get(key), theirs.get(key), f"{path}.{key}".lstrip(".")):
                return found
        return None
    return None if ours == theirs else (path, ours, theirs)


def _find_free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def _host(address: str) -> str:
    """Returns the host of an address as it is written, with the brackets of an IPv6 address."""
    return address.rpartition(":")[0]
