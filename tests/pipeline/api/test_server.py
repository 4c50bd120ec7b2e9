"""Tests how the front end starts, is protected by TLS, and ends: signals, draining, exit codes."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from chain import environment, write_settings
from eventually import eventually
from front_end import FrontEnd, front_end
from servers import free_port
from serving import Certificates, create_certificates
from spamscore_command import run_process

from pipeline.client.grpc_client import GrpcClient
from pipeline.client.server import ModelServer

BODY = json.dumps({"messages": ["hello"]}).encode()
REQUEST = b"POST /v1/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(BODY)


def test_sigterm_loses_no_request_that_was_sent(versions: Path) -> None:
    port = free_port()
    with front_end(versions, "--grpc-port", str(port)) as front:
        stopping = threading.Event()

        def ask(_: int) -> list[tuple[int, str]]:
            answers = []
            with requests.Session() as session:
                session.trust_env = False
                while not stopping.is_set():
                    answer = session.post(f"{front.url}/v1/predictions", data=BODY, timeout=60)
                    answers.append((answer.status_code, answer.headers.get("connection", "")))
                    if answers[-1][1] == "close":
                        return answers
            return answers

        def ask_grpc() -> int:
            answered = 0
            with GrpcClient(ModelServer(f"127.0.0.1:{port}", "spam_ham", retries=0)) as client:
                while not stopping.is_set():
                    client.predict(["hello"])
                    answered += 1
            return answered

        with ThreadPoolExecutor(9) as pool:
            clients = [pool.submit(ask, number) for number in range(8)]
            grpc_client = pool.submit(ask_grpc)
            eventually(lambda: front.metric("spamscore_api_batch_messages_count"), lambda count: count > 100)
            front.process.terminate()
            answers = [client.result(timeout=60) for client in clients]
            assert front.process.wait(timeout=60) == 0, front.log
            stopping.set()
            assert grpc_client.exception(timeout=60) is not None
        assert all(answer[-1] == (200, "close") for answer in answers)
        assert {status for answer in answers for status, _ in answer} == {200}
        assert "Traceback" not in front.log


def test_a_request_that_is_being_sent_is_answered_while_the_server_drains(versions: Path) -> None:
    with front_end(versions) as front:
        with socket.create_connection(("127.0.0.1", front.port), timeout=60) as slow:
            slow.sendall(REQUEST)
            idle = socket.create_connection(("127.0.0.1", front.port), timeout=60)
            front.predict("hello")
            front.process.terminate()
            assert idle.recv(100) == b""
            idle.close()
            assert front.process.poll() is None
            slow.sendall(BODY)
            assert slow.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert front.process.wait(timeout=60) == 0


@pytest.fixture
def draining(versions: Path) -> Iterator[tuple[FrontEnd, socket.socket]]:
    """A front end that got SIGTERM while one of its clients has sent half a request."""
    write_settings(versions, {"api": {"drain_seconds": "2"}})
    with (
        front_end(versions) as front,
        socket.create_connection(("127.0.0.1", front.port), timeout=60) as slow,
    ):
        slow.sendall(REQUEST)
        front.predict("hello")
        front.process.terminate()
        yield front, slow


def test_what_is_not_answered_in_time_is_counted_and_the_exit_code_says_so(
    draining: tuple[FrontEnd, socket.socket],
) -> None:
    front, slow = draining
    assert slow.recv(1000).startswith(b"HTTP/1.1 503")
    assert front.process.wait(timeout=60) == 1
    assert "1 requests were not answered within [api] drain_seconds" in front.log
    assert "Traceback" not in front.log


def test_a_second_signal_ends_it_at_once(versions: Path) -> None:
    write_settings(versions, {"api": {"drain_seconds": "3000"}})
    with front_end(versions) as front, socket.create_connection(("127.0.0.1", front.port), timeout=60) as slow:
        slow.sendall(REQUEST)
        front.predict("hello")
        front.process.terminate()
        with socket.socket() as probe:
            eventually(lambda: probe.connect_ex(("127.0.0.1", front.port)))
        front.process.send_signal(signal.SIGTERM)
        assert front.process.wait(timeout=60) == 1


def test_interrupt_drains_too(versions: Path) -> None:
    write_settings(versions, {})
    with front_end(versions, ready=False) as front:
        front.process.send_signal(signal.SIGINT)
        assert front.process.wait(timeout=60) == 0


REFUSED = [
    ({"host": "0.0.0.0"}, {}, "[api] host = 0.0.0.0: other machines could send requests"),
    ({"host": "192.0.2.1", "allow_anyone": "true"}, {}, "cannot listen there"),
    ({"host": "no.such.host.invalid", "allow_anyone": "true"}, {}, "cannot listen there"),
    ({"tls_certificate": "c.pem"}, {}, "[api] tls_key is empty"),
    ({"tls_key": "k.pem"}, {}, "[api] tls_certificate is empty"),
    ({"tls_client_ca": "ca.pem"}, {}, "[api] tls_certificate is empty"),
    ({"tls_certificate": "luigi.cfg", "tls_key": "luigi.cfg"}, {}, "[api] tls_certificate, tls_key, tls_client_ca"),
    ({"tls_certificate": "none.pem", "tls_key": "none.pem"}, {}, "No such file or directory"),
    ({}, {"SPAMSCORE_API_TOKEN": "two words"}, "[api] token = …: expected printable ASCII without spaces"),
    ({"backend": "neither"}, {}, "[api] backend = 'neither': expected one of local, server"),
]


@pytest.mark.parametrize(("settings", "variables", "text"), REFUSED, ids=[row[2][:50] for row in REFUSED])
def test_settings_that_cannot_be_used_end_with_one_line(
    tmp_path: Path, settings: dict[str, str], variables: dict[str, str], text: str
) -> None:
    write_settings(tmp_path, {"api": settings})
    done = run_process("api", "--port", "0", cwd=tmp_path, env=environment(**variables))
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
    assert "two words" not in done.stderr


def test_a_port_that_is_used_is_named(versions: Path) -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = str(used.getsockname()[1])
        for option in ("--port", "--grpc-port"):
            done = run_process("api", "--port", "0", option, port, cwd=versions)
            assert (done.returncode, f"= {port}: cannot listen there" in done.stderr) == (2, True), done.stderr


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("certificates"))


def test_mutual_tls_lets_only_clients_with_a_certificate_in(versions: Path, certificates: Certificates) -> None:
    files = {
        "tls_certificate": certificates.server, "tls_key": certificates.server_key,
        "tls_client_ca": certificates.authority,
    }  # fmt: skip
    write_settings(versions, {"api": {key: str(path) for key, path in files.items()}})
    port = free_port()
    options: dict[str, Any] = {
        "verify": str(certificates.authority), "cert": (str(certificates.client), str(certificates.client_key)),
    }  # fmt: skip
    with front_end(versions, "--grpc-port", str(port), "--host", "0.0.0.0", scheme="https") as front:
        front.wait_until_ready(**options)
        answer = front.post("/v1/predictions", BODY, **options)
        assert answer.json()["model_version"] == 1
        with pytest.raises((requests.exceptions.SSLError, requests.ConnectionError)):
            front.post("/v1/predictions", BODY, verify=str(certificates.authority))
        with pytest.raises(requests.exceptions.SSLError):
            front.post("/v1/predictions", BODY, verify=str(certificates.other_authority))
        server = ModelServer(
            f"127.0.0.1:{port}", "spam_ham", ca_file=str(certificates.authority), timeout=5,
            certificate_file=str(certificates.client), key_file=str(certificates.client_key),
        )  # fmt: skip
        with GrpcClient(server) as client:
            assert client.predict(["hello"]).version == 1
        channel = grpc.secure_channel(
            f"127.0.0.1:{port}", grpc.ssl_channel_credentials(certificates.authority.read_bytes())
        )
        with channel, pytest.raises(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(timeout=3)
        assert front.stop() == 0
