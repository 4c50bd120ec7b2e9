"""The gRPC client: its answers, its errors, retries, deadlines, TLS, threads and asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eventually import eventually
from hypothesis import given
from hypothesis import strategies as st
from servers import free_port
from serving import Certificates, ScriptedServer, answer_quarter, create_certificates, scripted_server

from models.errors import ServerError, SettingsError
from models.text.cleaning import encode_utf8
from pipeline.client.grpc_client import AsyncGrpcClient, GrpcClient
from pipeline.client.messages import classify_request, predict_request
from pipeline.client.protocol import grpc
from pipeline.client.server import ModelServer, VersionStatus, configured_server, encode

SERVER = ModelServer("", "spam_ham", timeout=30)
Running = tuple[ScriptedServer, ModelServer]


@pytest.fixture(scope="module")
def _running() -> Iterator[Running]:
    with scripted_server() as (scripted, address):
        yield scripted, dataclasses.replace(SERVER, address=address)


@pytest.fixture
def running(_running: Running) -> Running:
    """A server of this module, which answers normally until a test says otherwise."""
    _running[0].answer = answer_quarter
    _running[0].calls.clear()
    return _running


def get_error(server: ModelServer, call: Callable[[GrpcClient], object] = lambda client: client.predict(["a"])) -> Any:
    with GrpcClient(server) as client, pytest.raises(ServerError) as raised:
        call(client)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{server}: ")
    return raised.value


def test_each_call_returns_what_the_server_answers(running: Running) -> None:
    scripted, server = running
    with GrpcClient(server) as client:
        for scores in (client.predict(["a", "b"]), client.classify(["a", "b"])):
            assert (scores.probabilities.dtype, scores.probabilities.tolist(), scores.version) == (
                np.float32, [0.25, 0.25], 7,
            )  # fmt: skip
        assert client.status() == [VersionStatus(7, "AVAILABLE"), VersionStatus(9, "LOADING")]
        metadata = client.metadata()
    assert (metadata.version, metadata.signatures["predict_spam"].inputs) == (7, ("texts",))
    assert [name for name, _ in scripted.calls] == ["Predict", "Classify", "GetModelStatus", "GetModelMetadata"]


@pytest.mark.parametrize(
    ("version", "label", "expected"),
    [(None, "stable", ("version_label", "stable")), (3, "stable", ("version", 3)), (None, None, (None, None))],
)
def test_a_request_names_the_version_or_else_the_label(version: int | None, label: str | None, expected: Any) -> None:
    server = dataclasses.replace(SERVER, version=version, label=label)
    for request in (predict_request(server, [b"a"]), classify_request(server, [b"a"])):
        choice = request.model_spec.WhichOneof("version_choice")
        value = getattr(request.model_spec, choice) if choice else None
        assert (choice, getattr(value, "value", value)) == expected


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=50), max_size=5))
def test_requests_hold_each_message_as_the_batch_encodes_it(texts: list[str]) -> None:
    assert encode(texts) == encode_utf8(texts)
    predict, classify = predict_request(SERVER, encode(texts)), classify_request(SERVER, encode(texts))
    assert list(predict.inputs["texts"].string_val) == encode_utf8(texts)
    assert predict.inputs["texts"].tensor_shape.dim[0].size == len(texts)
    examples = classify.input.example_list.examples
    assert [list(one.features.feature["text"].bytes_list.value) for one in examples] == [
        [text] for text in encode_utf8(texts)
    ]


def fail(code: str, details: str) -> Callable[[str, Any, Any], Any]:
    return lambda _name, _request, context: context.abort(grpc.StatusCode[code], details)


@pytest.mark.parametrize(
    ("code", "details", "kind", "words", "temporary"),
    [
        (
            "NOT_FOUND",
            "Servable not found for request: Latest(spam_ham)",
            "not served",
            "--model or [artifacts]",
            False,
        ),
        ("NOT_FOUND", "Servable not found for request: Specific(spam_ham, 9)", "not served", "this version", False),
        ("INVALID_ARGUMENT", "Unrecognized servable version label: stable", "not served", "no such label", False),
        ("FAILED_PRECONDITION", 'Serving signature key "predict_spam" not found.', "signature", "signature", False),
        ("INVALID_ARGUMENT", "input tensor alias not found in signature: texts", "signature", "exported", False),
        ("INVALID_ARGUMENT", "Task size 3 is larger than maximum input batch size 2", "too large", "fewer", False),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (5 vs. 4)", "too large", "fewer", False),
        ("RESOURCE_EXHAUSTED", "The batch scheduling queue is full", "overloaded", "Try again later", True),
        ("UNAVAILABLE", "Model labels does not init yet.stable", "unreachable", "Model labels does not init", True),
        ("DEADLINE_EXCEEDED", "", "deadline", "no answer within 30 s", True),
        ("UNAUTHENTICATED", "", "not allowed", "SPAMSCORE_SERVING_TOKEN", False),
        ("PERMISSION_DENIED", "only for admins", "not allowed", "only for admins", False),
        ("UNIMPLEMENTED", "", "form", "gRPC port", False),
        ("INTERNAL", "two\nlines", "failed", "INTERNAL: two lines.", True),
        ("INVALID_ARGUMENT", 'JSON Value: "a secret message" is bad', "failed", "no text", True),
        ("ABORTED", "x" * 5000, "failed", "x" * 300 + ".", True),
    ],
)
def test_an_error_of_the_server_says_what_is_wrong_and_the_way_out(
    running: Running, code: str, details: str, kind: str, words: str, temporary: bool
) -> None:
    scripted, server = running
    scripted.answer = fail(code, details)
    error = get_error(dataclasses.replace(server, retries=0))
    assert (error.kind, error.temporary) == (kind, temporary)
    assert words in str(error)
    assert "secret message" not in str(error)


def change(edit: Callable[[Any], object]) -> Callable[[str, Any, Any], Any]:
    """Answers normally, but for a change of the response."""

    def answer(name: str, request: Any, context: Any) -> Any:
        response = answer_quarter(name, request, context)
        edit(response)
        return response

    return answer


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda response: response.outputs.clear(), "expected the output scores, received outputs none"),
        (lambda response: setattr(response.outputs["scores"], "dtype", 2), "DT_FLOAT, received DT_DOUBLE"),
        (lambda response: response.outputs["scores"].float_val.append(0.5), "each of 1 messages, received shape [2]"),
        (lambda response: response.outputs["scores"].ClearField("float_val"), "received shape [0]"),
        (lambda response: response.outputs["scores"].float_val.__setitem__(0, float("nan")), "NaN"),
        (lambda response: response.outputs["scores"].float_val.__setitem__(0, 1.5), "from 0 to 1"),
        (lambda response: response.model_spec.Clear(), "expected the version that answered, received none"),
    ],
)
def test_an_answer_of_another_form_is_refused(running: Running, edit: Callable[[Any], object], words: str) -> None:
    scripted, server = running
    scripted.answer = change(edit)
    error = get_error(server)
    assert error.kind == "form"
    assert words in str(error)


def test_classes_other_than_ham_and_spam_are_refused(running: Running) -> None:
    scripted, server = running
    scripted.answer = change(lambda response: setattr(response.result.classifications[0].classes[1], "label", "x"))
    assert "the classes ham and spam" in str(get_error(server, lambda client: client.classify(["a"])))


def pack(response: Any) -> None:
    """Sends the tensor as bytes, as the real server does with another option."""
    scores = response.outputs["scores"]
    scores.tensor_content = np.array(scores.float_val, "<f4").tobytes()
    scores.ClearField("float_val")


@pytest.mark.parametrize("edit", [pack, lambda response: response.outputs["scores"].float_val.__delitem__(slice(1, 3))])
def test_every_encoding_of_a_tensor_is_read(running: Running, edit: Callable[[Any], None]) -> None:
    scripted, server = running
    scripted.answer = change(edit)
    with GrpcClient(server) as client:
        assert client.predict(["a", "b", "c"]).probabilities.tolist() == [0.25] * 3


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_call_that_the_server_did_not_take_is_tried_again(running: Running, code: str) -> None:
    scripted, server = running

    def answer(name: str, request: Any, context: Any) -> Any:
        return (fail(code, "busy") if len(scripted.calls) < 3 else answer_quarter)(name, request, context)

    scripted.answer = answer
    with GrpcClient(dataclasses.replace(server, retries=2)) as client:
        assert client.predict(["a"]).version == 7
    assert len(scripted.calls) == 3


@pytest.mark.parametrize(
    ("code", "retries", "expected"),
    [("UNAVAILABLE", 2, 3), ("UNAVAILABLE", 0, 1), ("INTERNAL", 2, 1), ("NOT_FOUND", 2, 1), ("INVALID_ARGUMENT", 2, 1)],
)
def test_a_failing_call_is_tried_as_often_as_it_is_safe(
    running: Running, code: str, retries: int, expected: int
) -> None:
    scripted, server = running
    scripted.answer = fail(code, "no")
    get_error(dataclasses.replace(server, retries=retries))
    assert len(scripted.calls) == expected


@contextlib.contextmanager
def silent_port() -> Iterator[str]:
    """A port that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_no_attempt_is_made_after_the_deadline(running: Running) -> None:
    scripted, server = running
    released = threading.Event()

    def answer(name: str, request: Any, context: Any) -> Any:
        released.wait()
        return answer_quarter(name, request, context)

    scripted.answer = answer
    try:
        error = get_error(dataclasses.replace(server, timeout=0.2, retries=4))
        assert error.kind == "deadline"
        assert "no answer within 0.2 s" in str(error)
        assert len(scripted.calls) == 1
        error = get_error(server, lambda client: client.predict(["a"], timeout=0.3))
        assert "no answer within 0.3 s" in str(error)
    finally:
        released.set()


def test_connections_that_fail_say_why() -> None:
    for address, kind, words in (
        (f"127.0.0.1:{free_port()}", "unreachable", "connection refused: no server listens there"),
        ("nowhere.invalid:8500", "unreachable", "the host is not found"),
        ("unix:/nowhere/socket", "unreachable", "connection refused"),
    ):
        error = get_error(dataclasses.replace(SERVER, address=address, retries=1))
        assert (error.kind, words in str(error)) == (kind, True), str(error)
    with silent_port() as address:
        assert get_error(dataclasses.replace(SERVER, address=address, timeout=0.3)).kind == "deadline"


def answers(client: GrpcClient) -> bool:
    try:
        return client.predict(["a"]).version == 7
    except ServerError:
        return False


def test_a_client_finds_a_server_that_was_restarted() -> None:
    port = free_port()
    with GrpcClient(dataclasses.replace(SERVER, address=f"127.0.0.1:{port}")) as client:
        for _ in range(2):
            with scripted_server(port):
                eventually(lambda: answers(client))
            with pytest.raises(ServerError) as raised:
                client.predict(["a"])
            assert raised.value.kind == "unreachable"


def test_calls_are_shared_by_the_servers_behind_one_name() -> None:
    with scripted_server() as (first, one), scripted_server() as (second, two):
        server = dataclasses.replace(SERVER, address=f"ipv4:{one},{two}")
        with GrpcClient(server) as client:
            eventually(lambda: client.predict(["a"]) and first.calls and second.calls)
            before = len(first.calls), len(second.calls)
            for _ in range(20):
                client.predict(["a"])
            assert (len(first.calls) - before[0], len(second.calls) - before[1]) == (10, 10)


def test_several_threads_use_one_client(running: Running) -> None:
    with GrpcClient(running[1]) as client, ThreadPoolExecutor(16) as threads:
        counts = list(threads.map(lambda count: len(client.predict(["a"] * count).probabilities), range(1, 100)))
    assert counts == list(range(1, 100))


def test_the_client_for_asyncio_gives_the_same_answers_and_errors(running: Running) -> None:
    scripted, server = running

    async def ask() -> None:
        async with AsyncGrpcClient(server) as client:
            answers = await asyncio.gather(*(client.predict(["a"] * count) for count in range(1, 50)))
            assert [len(scores.probabilities) for scores in answers] == list(range(1, 50))
            assert (await client.status())[0] == VersionStatus(7, "AVAILABLE")
            assert (await client.metadata()).version == 7
            scripted.answer = fail("NOT_FOUND", "Servable not found for request: Specific(spam_ham, 9)")
            with pytest.raises(ServerError, match="has not loaded this version") as raised:
                await client.predict(["a"])
            assert raised.value.kind == "not served"

    asyncio.run(ask())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return create_certificates(tmp_path_factory.mktemp("certificates"))


def client_files(certificates: Certificates) -> dict[str, str]:
    return {
        "ca_file": str(certificates.authority), "certificate_file": str(certificates.client),
        "key_file": str(certificates.client_key),
    }  # fmt: skip


def test_tls_and_mutual_tls_with_a_token(certificates: Certificates) -> None:
    for mutual in (False, True):
        with scripted_server(credentials=certificates.server_credentials(mutual)) as (scripted, address):
            server = ModelServer(address, "spam_ham", token="a-token", **client_files(certificates))
            with GrpcClient(server) as client:
                assert client.predict(["a"]).version == 7
            assert scripted.calls[0][1]["authorization"] == "Bearer a-token"


@pytest.mark.parametrize(
    ("mutual", "change", "kind"),
    [
        (False, {"ca_file": "other"}, "TLS"),
        (False, {"ca_file": "", "certificate_file": "", "key_file": "", "tls": True}, "TLS"),
        (False, {"ca_file": "", "certificate_file": "", "key_file": ""}, "unreachable"),
        (True, {"certificate_file": "", "key_file": ""}, "unreachable"),
    ],
    ids=["another authority", "unknown authority", "no TLS", "no client certificate"],
)
def test_tls_that_does_not_fit_is_named(
    certificates: Certificates, mutual: bool, change: dict[str, Any], kind: str
) -> None:
    if change.get("ca_file") == "other":
        change = {**change, "ca_file": str(certificates.other_authority)}
    with scripted_server(credentials=certificates.server_credentials(mutual)) as (_, address):
        files = {**client_files(certificates), **change}
        error = get_error(ModelServer(address, "spam_ham", retries=0, timeout=20, **files))
    assert error.kind == kind
    assert "TLS" in str(error)


def test_a_client_with_tls_at_a_server_without_it_names_tls(running: Running) -> None:
    error = get_error(dataclasses.replace(running[1], tls=True, retries=0))
    assert (error.kind, "Check that the server speaks TLS on this port" in str(error)) == ("TLS", True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ca_file": "missing.pem"}, "[serving] ca_file = missing.pem: No such file"),
        ({"ca_file": "broken.pem"}, "[serving] ca_file = broken.pem: no valid PEM file"),
        ({"certificate_file": "client.pem"}, "[serving] key_file is empty"),
        ({"key_file": "client.key"}, "[serving] certificate_file is empty"),
        (
            {"certificate_file": "client.pem", "key_file": "server.key"},
            "certificate_file, key_file = client.pem, server",
        ),
        (
            {"server": "models:1", "token": "a-token"},
            "[serving] token: expected TLS, because models:1 is another machine",
        ),
        ({"server": "models"}, "[serving] server = models: expected an address such as 127.0.0.1:8500"),
        ({"server": "user:secret@models:1"}, "[serving] server = "),
    ],
)
def test_bad_settings_of_the_connection_are_refused(
    certificates: Certificates, set_settings: Callable[..., None], changes: dict[str, Any], words: str
) -> None:
    for path in certificates.authority.parent.iterdir():
        Path(path.name).write_bytes(path.read_bytes())
    Path("broken.pem").write_text("no certificate")
    with pytest.raises(SettingsError) as raised:
        configured_server(**changes)
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "a-token" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "is_sent"),
    [
        ("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("unix:/run/s", True),
        ("10.0.0.1:1", False), ("localhost.evil.example:1", False), ("[2001:db8::1]:1", False),
    ],
)  # fmt: skip
def test_a_token_leaves_the_machine_only_over_tls(
    set_settings: Callable[..., None], address: str, is_sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPAMSCORE_SERVING_TOKEN", "a-token")
    with contextlib.nullcontext() if is_sent else pytest.raises(SettingsError, match="expected TLS"):
        assert "a-token" not in repr(configured_server(server=address))
    assert configured_server(server=address, tls=True).token == "a-token"
