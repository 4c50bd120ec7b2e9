"""Tests of connections that send nothing, too much, or leave: raw sockets to a running front end."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from chain import merge_settings, write_settings
from eventually import eventually
from front_end import FrontEnd, front_end

SETTINGS = {"api": {"header_timeout": "1", "idle_timeout": "2", "timeout": "5", "max_body_bytes": "100000"}}
HEAD = b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\n"
BODY = json.dumps({"messages": ["hello"]}).encode()
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


@pytest.fixture(scope="module")
def impatient(versions: Path) -> Iterator[FrontEnd]:
    """A front end with short limits."""
    write_settings(versions, merge_settings(SETTINGS))
    with front_end(versions) as running:
        yield running


@contextlib.contextmanager
def connect(front: FrontEnd) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", front.port), timeout=60) as connection:
        yield connection


def read_to_end(connection: socket.socket) -> bytes:
    """Reads until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


def read_status(connection: socket.socket) -> int:
    """Reads one answer, and returns its status code."""
    answer = connection.makefile("rb")
    status = int(answer.readline().split()[1])
    length = 0
    while (line := answer.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    answer.read(length)
    return status


def test_connections_that_send_nothing_block_nobody_and_are_closed(impatient: FrontEnd) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(impatient)) for _ in range(100)]
        assert impatient.predict("hello")["model_version"] == 1
        assert [read_to_end(connection) for connection in silent] == [b""] * 100
        assert impatient.predict("hello")["model_version"] == 1


@pytest.mark.parametrize("start", [b"\r\n", b"G", b"GET / HTTP/1.1\r\n", HEAD + b"X: 1\r\n"], ids=repr)
def test_a_head_that_is_never_complete_ends_with_its_connection(impatient: FrontEnd, start: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(start)
        assert read_to_end(connection) == b""


def test_a_head_byte_by_byte_does_not_extend_the_time(impatient: FrontEnd) -> None:
    with connect(impatient) as connection:
        connection.settimeout(0.05)
        connection.sendall(b"GET /")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1000:
                connection.sendall(b"A")
                sent += 1
                with contextlib.suppress(TimeoutError):
                    assert connection.recv(100) == b""
                    break
    assert sent < 1000


def test_an_idle_connection_is_kept_and_then_closed(impatient: FrontEnd) -> None:
    with connect(impatient) as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
            assert read_status(connection) == 200
        connection.sendall(b"\r\n")
        assert read_to_end(connection) == b""


def test_requests_in_one_packet_are_answered_in_their_order(impatient: FrontEnd) -> None:
    with connect(impatient) as connection:
        connection.sendall(REQUEST * 3 + b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answers = read_to_end(connection)
    assert [answers.count(text) for text in (b"HTTP/1.1 200", b"model_version", b'"alive":true')] == [4, 3, 1]
    assert answers.endswith(b'{"alive":true}')


def test_a_head_request_has_the_head_alone(impatient: FrontEnd) -> None:
    head = b"HEAD /docs/swagger-ui.css HTTP/1.1\r\nHost: localhost\r\n"
    with connect(impatient) as connection:
        connection.sendall((head + b"\r\n") * 2 + head + b"Connection: close\r\n\r\n")
        answers = read_to_end(connection)
    assert (answers.count(b"HTTP/1.1 200 OK\r\n"), answers.count(b"\r\n\r\n")) == (3, 3)
    assert answers.endswith(b"\r\n\r\n")


def test_a_head_that_is_too_large_is_refused(impatient: FrontEnd) -> None:
    with connect(impatient) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(HEAD)
        for _ in range(1000):
            connection.sendall(b"X: " + b"x" * 10_000 + b"\r\n")
        assert read_to_end(connection).startswith(b"HTTP/1.1 431")


GIGABYTE = 2**30


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_gigabyte_of_body_is_refused_and_not_kept_in_memory(impatient: FrontEnd, chunked: bool) -> None:
    server = psutil.Process(impatient.process.pid)
    before = server.memory_info().rss
    block, sent = b" " * 2**20, 0
    with connect(impatient) as connection:
        form = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % GIGABYTE
        connection.sendall(HEAD + form + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(GIGABYTE // len(block)):
                connection.sendall(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
                sent += len(block)
                assert server.memory_info().rss - before < 2**26
        # A client that sends for a second after the answer is cut off.
        assert sent < GIGABYTE or b"HTTP/1.1 413" in read_to_end(connection)
    assert impatient.predict("hello")["model_version"] == 1


def test_a_client_sees_why_its_body_is_refused(impatient: FrontEnd) -> None:
    body = b" " * 3_000_000
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        assert read_status(connection) == 413
        connection.sendall(REQUEST)
        assert read_status(connection) == 200


def test_a_client_that_asks_first_does_not_send_a_body_that_is_too_large(impatient: FrontEnd) -> None:
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 5000000\r\n\r\n")
        assert read_status(connection) == 413
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert read_status(connection) == 200


def test_a_body_that_does_not_arrive_in_time_ends_with_the_limit_named(impatient: FrontEnd) -> None:
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"within 5 seconds, the limit of [api] timeout" in answer


def test_clients_that_leave_leave_nothing_behind(impatient: FrontEnd) -> None:
    many = json.dumps({"messages": [f"hello {number}" for number in range(900)]}).encode()
    asked = {
        "before the body": HEAD + b"Content-Length: 100\r\n\r\n{",
        "before the answer": HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(many), many),
        "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00",
        "before the explanation": (HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)).replace(
            b"predictions", b"predictions?explain=true"
        ),
    }
    for request in list(asked.values()) * 5:
        with connect(impatient) as connection:
            connection.sendall(request)
    eventually(lambda: impatient.metric("spamscore_api_waiting_messages"), lambda waiting: waiting == 0)
    eventually(lambda: len(psutil.Process(impatient.process.pid).net_connections("tcp")), lambda count: count <= 2)
    assert impatient.predict("hello")["model_version"] == 1
    assert "Traceback" not in impatient.log
    assert "ERROR" not in impatient.log
