"""Tests of a running front end that follows models.config: changes under load, candidates, and damaged versions."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from eventually import eventually
from front_end import FrontEnd, front_end
from spamscore_command import run_process

from tasks.artifacts.folders import read_manifest, write_manifest

FOLDER = "artifacts/exports/spam_ham/3"
MESSAGES = [f"WIN prize number {number}, call now" for number in range(40)]


@pytest.fixture(scope="module")
def front(versions: Path) -> Iterator[FrontEnd]:
    with front_end(versions) as running:
        yield running


@pytest.fixture
def serve(front: FrontEnd) -> Iterator[Callable[..., None]]:
    """Runs `spamscore serve`; puts version 1 in service again at the end."""

    def run(*arguments: str) -> None:
        done = run_process("serve", *arguments, "--yes", cwd=front.folder)
        assert done.returncode == 0, done.stderr

    yield run
    run("1")
    wait_for_version(front, 1)
    run("--no-canary")


def wait_for_version(front: FrontEnd, version: int) -> None:
    eventually(lambda: front.predict("hello")["model_version"], lambda answering: answering == version)


def exports(front: FrontEnd) -> Path:
    return front.folder / "artifacts" / "exports" / "spam_ham"


@pytest.fixture
def config(front: FrontEnd) -> Iterator[Path]:
    """The file models.config, which gets its content back at the end."""
    path = exports(front) / "models.config"
    before = path.read_text()
    yield path
    path.write_text(before)
    eventually(front.readiness, lambda answer: answer["warning"] is None)


@pytest.fixture
def third_version(front: FrontEnd) -> Iterator[Path]:
    """Version 3, a copy of version 1 that is listed in models.config."""
    folder = Path(shutil.copytree(exports(front) / "1", exports(front) / "3"))
    write_manifest(folder, {**read_manifest(folder), "version": 3})
    yield folder
    shutil.rmtree(folder)


def test_a_change_of_the_version_loses_no_request_and_mixes_no_answer(
    front: FrontEnd, serve: Callable[..., None]
) -> None:
    expected = {
        version: {
            message: one["probability"]
            for message, one in zip(
                MESSAGES, front.predict(*MESSAGES, query=f"?version={version}")["predictions"], strict=True
            )
        }
        for version in (1, 2)
    }
    assert expected[1] != expected[2]
    over = threading.Event()

    def ask(number: int) -> list[Any]:
        answers = []
        with requests.Session() as session:
            session.trust_env = False
            while not over.is_set():
                texts = MESSAGES[number : number + 1 + len(answers) % 3]
                answer = session.post(f"{front.url}/v1/predictions", json={"messages": texts}, timeout=60)
                answers.append((answer.status_code, texts, answer.json()))
        return answers

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(ask, number) for number in range(8)]
        for version in (2, 1, 2, 1):
            serve(str(version))
            wait_for_version(front, version)
        over.set()
        answers = [answer for client in clients for answer in client.result()]
    assert {status for status, _, _ in answers} == {200}
    assert {answer["model_version"] for _, _, answer in answers} == {1, 2}
    for _, texts, answer in answers:
        scores = [one["probability"] for one in answer["predictions"]]
        assert scores == [expected[answer["model_version"]][text] for text in texts]
    # Both versions stay loaded, so that going back takes no time.
    assert front.metric('spamscore_api_version_loads_total{result="loaded"}') == 2
    assert front.metric("spamscore_api_version_in_service") == 1


def test_a_candidate_answers_by_its_label_and_then_takes_over(front: FrontEnd, serve: Callable[..., None]) -> None:
    second = front.predict(*MESSAGES, query="?version=2")
    serve("2", "--canary")
    eventually(
        lambda: front.post("/v1/predictions?label=canary", {"messages": []}).status_code, lambda code: code == 200
    )
    assert front.predict(*MESSAGES, query="?label=canary") == second
    assert front.predict("hello")["model_version"] == 1
    serve("2")
    wait_for_version(front, 2)
    assert front.predict(*MESSAGES, query="?label=stable") == second
    assert front.post("/v1/predictions?label=canary", {"messages": []}).status_code == 404


@pytest.mark.parametrize("damaged", ["manifest.json", "saved_model.pb"])
def test_a_damaged_new_version_is_reported_and_the_one_before_keeps_answering(
    front: FrontEnd, third_version: Path, config: Path, damaged: str
) -> None:
    content = (third_version / damaged).read_bytes()
    (third_version / damaged).write_bytes(content[: len(content) // 2])
    config.write_text(config.read_text().replace('key: "stable"\n      value: 1', 'key: "stable"\n      value: 3'))
    readiness = eventually(front.readiness, lambda answer: answer["warning"])
    assert (readiness["ready"], readiness["problem"]) == (True, None)
    assert FOLDER in readiness["warning"]
    assert front.predict("hello")["model_version"] == 1
    assert front.get("/readyz").status_code == 200
    eventually(lambda: front.metric("spamscore_api_degraded"), lambda value: value == 1)
    states = front.get("/v1/models/spam_ham").json()["model_version_status"]
    assert [(one["version"], one["state"]) for one in states] == [("1", "AVAILABLE"), ("2", "AVAILABLE"), ("3", "END")]
    asked = front.post("/v1/predictions?version=3", {"messages": ["hello"]})
    assert (asked.status_code, FOLDER in asked.json()["error"]) == (503, True)
    assert "version 1 keeps answering" in front.log


def test_a_damaged_models_config_is_reported_and_nothing_changes(front: FrontEnd, config: Path) -> None:
    config.write_text(config.read_text().replace("stable", "staple"))
    warning = eventually(front.readiness, lambda answer: answer["warning"])["warning"]
    assert "models.config: expected the file as spamscore writes it" in warning
    assert front.predict("hello")["model_version"] == 1


def test_a_front_end_starts_before_the_first_export(tmp_path: Path, versions: Path) -> None:
    with front_end(tmp_path, ready=False) as waiting:
        answer = eventually(lambda: waiting.get("/readyz"), lambda answer: "no model version" in answer.text)
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert waiting.get("/livez").status_code == 200
        refused = waiting.post("/v1/predictions", {"messages": ["hello"]})
        assert (refused.status_code, "no model version" in refused.json()["error"]) == (503, True)
        assert waiting.get("/v1/models/spam_ham").status_code == 503
        shutil.copytree(versions / "artifacts", tmp_path / "artifacts")
        waiting.wait_until_ready()
        assert waiting.predict("hello")["model_version"] == 1
