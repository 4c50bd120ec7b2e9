"""The REST client: paths, answers, errors, retries, deadlines and TLS."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import free_port
from serving import Certificates, create_certificates

from models.errors import ServerError
from pipeline.client.rest_client import RestClient
from pipeline.client.server import ModelServer, VersionStatus

METADATA = {
    "model_spec": {"name": "spam_ham", "signature_name": "", "version": "7"},
    "metadata": {
        "signature_def": {
            "signature_def": {"predict_spam": {"inputs": {"texts": {}}, "outputs": {"scores": {}}, "method_name": "p"}}
        }
    },
}
Answer = tuple[int, Any]


class Scripted:
    """What the server answers and which requests arrived: method, path, headers and JSON."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str, Any], Answer] = answer_quarter
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []


def answer_quarter(method: str, path: str, body: Any) -> Answer:
    if path.endswith("/metadata"):
        return 200, METADATA
    if method == "GET":
        states = [("9", "LOADING"), ("7", "AVAILABLE")]
        return 200, {
            "model_version_status": [
                {"version": version, "state": state, "status": {"error_code": "OK", "error_message": ""}}
                for version, state in states
            ]
        }
    if path.endswith(":predict"):
        return 200, {"predictions": [0.25] * len(body["instances"])}
    return 200, {"results": [[["ham", 0.75], ["spam", 0.25]] for _ in body["examples"]]}


@contextlib.contextmanager
def scripted_server(context: ssl.SSLContext | None = None) -> Iterator[tuple[Scripted, str]]:
    scripted = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            size = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            scripted.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            status, content = scripted.answer(self.command, self.path, body)
            encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield scripted, f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def _running() -> Iterator[tuple[Scripted, str]]:
    with scripted_server() as running:
        yield running


@pytest.fixture
def running(_running: tuple[Scripted, str]) -> tuple[Scripted, ModelServer]:
    _running[0].answer = answer_quarter
    _running[0].requests.clear()
    return _running[0], ModelServer(_running[1], "spam_ham", timeout=30)


def get_error(server: ModelServer, call: Callable[[RestClient], object] = lambda client: client.predict(["a"])) -> Any:
    with contextlib.closing(RestClient(server)) as client, pytest.raises(ServerError) as raised:
        call(client)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{client.server}: ")
    return raised.value


def test_each_call_returns_what_the_server_answers(running: tuple[Scripted, ModelServer]) -> None:
    scripted, server = running
    texts = ["é", "half a pair: \ud800", "\x00\u2028"]
    with RestClient(server) as client:
        for scores in (client.predict(texts), client.classify(texts)):
            assert (scores.probabilities.dtype, scores.probabilities.tolist(), scores.version) == (
                np.float32, [0.25] * 3, 7,
            )  # fmt: skip
        assert client.status() == [VersionStatus(7, "AVAILABLE"), VersionStatus(9, "LOADING")]
        assert client.metadata().signatures["predict_spam"].outputs == ("scores",)
    bodies = [body for method, _, _, body in scripted.requests if method == "POST"]
    sent = ["é", "half a pair: \ufffd", "\x00\u2028"]
    assert bodies == [
        {"signature_name": "predict_spam", "instances": sent},
        {"signature_name": "serving_default", "examples": [{"text": text} for text in sent]},
    ]


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({"version": 3}, ["/v1/models/spam_ham/versions/3:predict"]),
        ({}, ["/v1/models/spam_ham/labels/stable/metadata", "/v1/models/spam_ham/versions/7:predict"]),
        ({"label": None}, ["/v1/models/spam_ham/metadata", "/v1/models/spam_ham/versions/7:predict"]),
        (
            {"label": "a/b:c"},
            ["/v1/models/spam_ham/labels/a%2Fb%3Ac/metadata", "/v1/models/spam_ham/versions/7:predict"],
        ),
    ],
)
def test_a_call_by_label_asks_for_its_version_first(
    running: tuple[Scripted, ModelServer], changes: dict[str, Any], paths: list[str]
) -> None:
    scripted, server = running
    with RestClient(dataclasses.replace(server, **changes)) as client:
        assert client.predict(["a"]).version == (changes.get("version") or 7)
    assert [path for _, path, _, _ in scripted.requests] == paths


def test_a_url_may_have_a_path_of_a_proxy(running: tuple[Scripted, ModelServer]) -> None:
    scripted, server = running
    with RestClient(dataclasses.replace(server, address=f"http://{server.address}/serving/", version=3)) as client:
        client.predict(["a"])
    assert scripted.requests[0][1] == "/serving/v1/models/spam_ham/versions/3:predict"


@pytest.mark.parametrize(
    ("status", "content", "kind", "words"),
    [
        (404, {"error": "Servable not found for request: Specific(spam_ham, 9)"}, "not served", "this version"),
        (404, {"error": "Could not find any versions of model x"}, "not served", "the model"),
        (404, b"<html>nginx</html>", "form", "Check that the address is a model server's REST port"),
        (400, {"error": "Unrecognized servable version label: stable"}, "not served", "no such label"),
        (400, {"error": 'Serving signature name: "predict_spam" not found'}, "signature", "exported"),
        (400, {"error": "Malformed request: POST /v1"}, "failed", "Malformed request"),
        (401, b"", "not allowed", "SPAMSCORE_SERVING_TOKEN"),
        (403, b"", "not allowed", "Ask its operator"),
        (413, b"", "too large", "fewer messages"),
        (429, {"error": "queue is full"}, "overloaded", "queue is full"),
        (503, b"", "unreachable", "not available"),
        (504, b"", "deadline", "no answer within"),
        (500, {"error": "it broke"}, "failed", "HTTP status 500: it broke"),
        (302, b"", "failed", "HTTP status 302"),
        (200, b"<html>hello</html>", "form", "expected JSON, received application/json"),
        (200, {"other": 1}, "form", "expected JSON with"),
        (200, [1], "form", "expected JSON with"),
        (200, {"predictions": [0.5, 0.5]}, "form", "each of 1 messages, received shape [2]"),
        (200, {"predictions": [{"scores": 1}]}, "form", "expected JSON with"),
        (200, {"predictions": [float("nan")]}, "form", "NaN"),
    ],
)
def test_an_error_or_another_answer_is_one_line(
    running: tuple[Scripted, ModelServer], status: int, content: Any, kind: str, words: str
) -> None:
    scripted, server = running
    scripted.answer = lambda *_: (status, content)
    error = get_error(dataclasses.replace(server, retries=0, version=3))
    assert (error.kind, words in str(error)) == (kind, True), str(error)


@pytest.mark.parametrize(
    ("status", "retries", "expected"), [(429, 2, 3), (503, 2, 3), (502, 2, 3), (503, 0, 1), (500, 2, 1), (404, 2, 1)]
)
def test_a_call_is_tried_again_only_if_the_server_is_overloaded_or_away(
    running: tuple[Scripted, ModelServer], status: int, retries: int, expected: int
) -> None:
    scripted, server = running
    scripted.answer = lambda *_: (status, {"error": "no"})
    get_error(dataclasses.replace(server, retries=retries, version=3))
    assert len(scripted.requests) == expected


def test_a_retried_call_can_succeed(running: tuple[Scripted, ModelServer]) -> None:
    scripted, server = running
    scripted.answer = lambda *call: (503, b"") if len(scripted.requests) < 3 else answer_quarter(*call)
    with RestClient(dataclasses.replace(server, version=3)) as client:
        assert client.predict(["a"]).probabilities.tolist() == [0.25]


def test_no_attempt_is_made_after_the_deadline(running: tuple[Scripted, ModelServer]) -> None:
    scripted, server = running
    released = threading.Event()

    def answer(*call: Any) -> Answer:
        released.wait()
        return answer_quarter(*call)

    scripted.answer = answer
    try:
        error = get_error(dataclasses.replace(server, timeout=0.3, retries=4))
        assert (error.kind, len(scripted.requests)) == ("deadline", 1)
        error = get_error(server, lambda client: client.predict(["a"], timeout=0.2))
        assert "no answer within 0.2 s" in str(error)
    finally:
        released.set()


@pytest.mark.parametrize("total", [2**20, 2**27])
def test_an_endless_answer_ends_at_the_deadline_or_the_limit(total: int) -> None:
    """The server sends a byte at a time, or more than the client takes."""
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(2**16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
            while not ended.wait(0.02 if total == 2**20 else 0):
                connection.sendall(b"0" if total == 2**20 else b"0" * 2**20)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        timeout = 0.5 if total == 2**20 else 60
        server = ModelServer(
            f"127.0.0.1:{listener.getsockname()[1]}", "spam_ham", version=3, timeout=timeout, retries=0
        )
        error = get_error(server)
        ended.set()
        thread.join()
    assert error.kind == ("deadline" if total == 2**20 else "form")


@pytest.mark.parametrize(
    ("address", "words"),
    [("127.0.0.1:{port}", "connection refused"), ("nowhere.invalid:80", "the host is not found")],
)
def test_connections_that_fail_say_why(address: str, words: str) -> None:
    error = get_error(ModelServer(address.format(port=free_port()), "spam_ham", retries=1, timeout=30))
    assert (error.kind, words in str(error)) == ("unreachable", True), str(error)
    assert "[serving] rest_server" in str(error)


def test_several_threads_use_one_client(running: tuple[Scripted, ModelServer]) -> None:
    with RestClient(dataclasses.replace(running[1], version=3)) as client, ThreadPoolExecutor(8) as threads:
        counts = list(threads.map(lambda count: len(client.predict(["a"] * count).probabilities), range(1, 50)))
    assert counts == list(range(1, 50))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_and_mutual_tls_with_a_token(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server, certificates.server_key)
    context.load_verify_locations(certificates.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    with scripted_server(context) as (scripted, address):
        server = ModelServer(
            f"https://{address}", "spam_ham", version=3, token="a-token", retries=0,
            ca_file=str(certificates.authority), certificate_file=str(certificates.client),
            key_file=str(certificates.client_key),
        )  # fmt: skip
        with RestClient(server) as client:
            assert client.predict(["a"]).version == 3
        assert scripted.requests[0][2]["authorization"] == "Bearer a-token"
        error = get_error(dataclasses.replace(server, ca_file=str(certificates.other_authority)))
        assert (error.kind, "certificate" in str(error)) == ("TLS", True)
        assert get_error(dataclasses.replace(server, certificate_file="", key_file="")).kind in ("TLS", "unreachable")
        assert len(scripted.requests) == 1


def test_a_netrc_does_not_replace_the_token(
    running: tuple[Scripted, ModelServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ann password other-secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    scripted, server = running
    with RestClient(dataclasses.replace(server, token="a-token")) as client:
        client.predict(["a"])
    assert {headers["authorization"] for _, _, headers, _ in scripted.requests} == {"Bearer a-token"}
