"""Connections between the machines of a training: who takes part, and how it ended.

The chief connects to the address of each other worker. A message is a JSON object on one line. The connections stay
open while the machines train: one that breaks shows that its worker was killed or its network failed. What the networks
exchange in a step goes over connections of TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from models.errors import SettingsError, WorkerError
from tasks.training.membership import Membership

Message = dict[str, Any]
_SECONDS_BETWEEN_ATTEMPTS = 0.2
_MAX_BYTES = 2**20
# A machine that was switched off, or whose network failed, is noticed after 10 + 3 * 5 seconds.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class Connection:
    """A connection to a worker."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket, self._received = connected, b""
        connected.settimeout(None)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)
        for option, value in _KEEPALIVE:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)

    def fileno(self) -> int:
        """Returns the file descriptor, to wait for."""
        return self._socket.fileno()

    def send(self, message: Message) -> None:
        """Sends a message. A broken connection is found by `receive`."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, seconds: float) -> Message | None:
        """Returns the next message, or None if none comes in this time.

        Raises:
            EOFError: the connection is closed or broken, or sends something else.
        """
        deadline = time.monotonic() + seconds
        while b"\n" not in self._received:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                content = self._socket.recv(2**16)
            except TimeoutError:
                return None
            except OSError as error:
                raise EOFError(str(error)) from None
            if not content or len(self._received) > _MAX_BYTES:
                raise EOFError("the connection was closed")
            self._received += content
        line, _, self._received = self._received.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise EOFError("no message of this program") from None
        if not isinstance(message, dict):
            raise EOFError("no message of this program")
        return message

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


def connect_to_workers(
    members: Membership, hello: Message, timeout: float, on_wait: Callable[[str], None]
) -> dict[int, Connection]:
    """Connects the chief to all other workers and greets them.

    Args:
        members: the workers.
        hello: the message to send; `worker` is added.
        timeout: seconds to wait for all of them.
        on_wait: called while waiting, with a status.

    Returns:
        The connections by number of the worker.

    Raises:
        WorkerError: a worker does not come in time, or something else answers at its address.
    """
    deadline = time.monotonic() + timeout
    connections: dict[int, Connection] = {}
    reasons: dict[int, str] = {}
    missing = list(range(1, len(members.addresses)))
    while missing:
        for worker in list(missing):
            try:
                connected = socket.create_connection(split_address(members.addresses[worker]), timeout=1.0)
            except OSError as error:
                reasons[worker] = error.strerror or str(error)
                continue
            connections[worker] = Connection(connected)
            connections[worker].send({**hello, "worker": worker})
            missing.remove(worker)
        if missing and time.monotonic() > deadline:
            names = "; ".join(f"{members.describe(worker)}: {reasons[worker]}" for worker in missing)
            for connection in connections.values():
                connection.send({"end": "WorkerError", "message": f"waited {timeout:g} s for {names}"})
            raise WorkerError(
                f"no connection within [training] worker_timeout = {timeout:g} s to {names}. Start TrainModel there "
                "with the same settings and its own [training] worker, and check the addresses in [training] workers."
            )
        if missing:
            on_wait(f"waiting for {', '.join(map(members.describe, missing))}")
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
    return connections


def accept_chief(members: Membership, timeout: float, on_wait: Callable[[str], None]) -> tuple[Connection, Message]:
    """Waits for the connection of the chief, and returns it with the chief's first message.

    Raises:
        SettingsError: this machine cannot listen at its address.
        WorkerError: the chief does not come in time.
    """
    deadline = time.monotonic() + timeout
    with _listen(members) as server:
        server.settimeout(_SECONDS_BETWEEN_ATTEMPTS)
        while time.monotonic() < deadline:
            on_wait(f"waiting for {members.describe(0)}")
            try:
                connected, _ = server.accept()
            except TimeoutError:
                continue
            connection = Connection(connected)
            with contextlib.suppress(EOFError):
                message = connection.receive(1.0)
                if message is not None and message.get("worker") == members.worker:
                    return connection, message
            connection.close()  # a port scanner, a health check, or the chief of another training
    raise WorkerError(
        f"{members.describe(0)} did not connect to {members.describe(members.worker)} within [training] "
        f"worker_timeout = {timeout:g} s. Start TrainModel there with the same settings and [training] worker = 0, "
        "and check the addresses in [training] workers."
    )


def _listen(members: Membership) -> socket.socket:
    """Opens the port of this worker's address, on all interfaces: in a container, the host may be another's name."""
    _, port = split_address(members.addresses[members.worker])
    try:
        return socket.create_server(("", port), reuse_port=False)
    except OSError as error:
        raise SettingsError(
            f"[training] workers: {members.describe(members.worker)}: this machine cannot listen on port {port}: "
            f"{error.strerror}. End the program that uses it, or choose another port, on all workers."
        ) from None


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of ``host:port`` or ``[IPv6 address]:port``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
