"""Tests the front end in front of TensorFlow Serving: equal scores, and a server that is gone, slow, or back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import write_settings
from eventually import eventually
from front_end import FrontEnd, front_end
from servers import free_port
from serving import ScriptedServer, answer_quarter, model_server, scripted_server
from spamscore_command import run_process

MESSAGES = ["WIN a FREE prize now", "see you at lunch", "", "ça va? 你好"]
PATH = "/v1/predictions"


def set_server(folder: Path, address: str, **api: str) -> None:
    write_settings(folder, {"serving": {"server": address, "retries": "0", "timeout": "1"}, "api": api})


def test_scores_and_explanations_equal_those_of_the_local_backend(front: FrontEnd, versions: Path) -> None:
    with model_server(versions / "artifacts" / "exports" / "spam_ham") as serving:
        set_server(versions, serving.grpc, max_messages="2000")
        with front_end(versions, "--backend", "server", "--grpc-port", str(free_port())) as proxy:
            for query in ("", "?version=2", "?label=stable"):
                expected, received = front.predict(*MESSAGES, query=query), proxy.predict(*MESSAGES, query=query)
                assert received["model_version"] == expected["model_version"]
                assert received["threshold"] == expected["threshold"]
                for one, other in zip(received["predictions"], expected["predictions"], strict=True):
                    assert one["probability"] == pytest.approx(other["probability"], abs=2e-6)
                    assert one["flagged"] == other["flagged"]
            check_explanation(front, proxy)
            many = proxy.predict(*(f"hello {number}" for number in range(1500)))
            assert len(many["predictions"]) == 1500
            states = proxy.get("/v1/models/spam_ham").json()["model_version_status"]
            assert [(one["version"], one["state"]) for one in states] == [("1", "AVAILABLE"), ("2", "AVAILABLE")]
            for query, status in (("?version=7", 404), ("?label=canary", 404)):
                assert proxy.post(PATH + query, {"messages": ["hello"]}).status_code == status
            assert run_process("serve", "2", "--yes", cwd=versions).returncode == 0
            eventually(lambda: proxy.predict("hello")["model_version"], lambda version: version == 2)


def check_explanation(front: FrontEnd, proxy: FrontEnd) -> None:
    expected, received = (one.predict(MESSAGES[0], query="?explain=true")["predictions"][0] for one in (front, proxy))
    assert received["decisive"] == expected["decisive"]
    for word, other in zip(received["words"], expected["words"], strict=True):
        assert word["text"] == other["text"]
        assert word["change"] == pytest.approx(other["change"], abs=1e-3)


@pytest.fixture
def scripted(versions: Path) -> Iterator[tuple[ScriptedServer, FrontEnd]]:
    """A front end, and the server behind it, which answers 0.25 by version 7."""
    with scripted_server() as (server, address):
        set_server(versions, address, timeout="1")
        # The threshold of version 7 is not in the artifacts.
        with (versions / "luigi.cfg").open("a") as file:
            file.write("[scoring]\nthreshold = 0.2\n")
        with front_end(versions, "--backend", "server") as front:
            yield server, front


def test_a_slow_server_ends_requests_and_opens_the_circuit_until_it_is_fast_again(
    scripted: tuple[ScriptedServer, FrontEnd],
) -> None:
    server, front = scripted
    answer = front.predict("hello")
    assert (answer["predictions"], answer["model_version"]) == ([{"probability": 0.25, "flagged": True}], 7)
    over = threading.Event()

    def wait(name: str, request: Any, context: Any) -> Any:
        over.wait(60)
        return answer_quarter(name, request, context)

    server.answer = wait
    refused = front.post(PATH, {"messages": ["hello"]})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "limit of [api] timeout" in refused.json()["error"] or "no answer within" in refused.json()["error"]
    eventually(lambda: front.metric("spamscore_api_circuit_open"), lambda value: value == 1)
    readiness = eventually(front.readiness, lambda answer: not answer["ready"])
    assert "does not answer" in readiness["problem"] or "no answer within" in readiness["problem"]
    assert front.metric('spamscore_api_backend_failures_total{reason="deadline"}') >= 1
    over.set()
    server.answer = answer_quarter
    front.wait_until_ready()
    assert front.predict("hello")["model_version"] == 7
    assert front.metric("spamscore_api_circuit_open") == 0
    assert "Traceback" not in front.log


def test_a_server_that_is_gone_is_reported_and_found_again(versions: Path) -> None:
    port = free_port()
    set_server(versions, f"127.0.0.1:{port}")
    with (versions / "luigi.cfg").open("a") as file:
        file.write("[scoring]\nthreshold = 0.2\n")
    with front_end(versions, "--backend", "server", ready=False) as front:
        readiness = eventually(front.readiness, lambda answer: f"127.0.0.1:{port}" in (answer["problem"] or ""))
        assert not readiness["ready"]
        assert front.post(PATH, {"messages": ["hello"]}).status_code == 503
        assert front.get("/livez").status_code == 200
        for _ in range(2):
            with scripted_server(port):
                front.wait_until_ready()
                assert front.predict("hello")["model_version"] == 7
            eventually(front.readiness, lambda answer: not answer["ready"])
        assert front.stop() == 0


def test_an_answer_that_cannot_be_used_is_an_error_of_the_server(scripted: tuple[ScriptedServer, FrontEnd]) -> None:
    server, front = scripted

    def answer_nothing(name: str, request: Any, context: Any) -> Any:
        response = answer_quarter(name, request, context)
        if name == "Predict":
            response.outputs.clear()
        return response

    server.answer = answer_nothing
    answer = front.post(PATH, {"messages": ["hello"]})
    assert (answer.status_code, "expected the output scores" in answer.json()["error"]) == (500, True)
    assert front.readiness()["ready"]
