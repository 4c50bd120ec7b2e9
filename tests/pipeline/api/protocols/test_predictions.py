"""Tests of POST /v1/predictions of a running front end: scores, explanations, errors, and what the log contains."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import requests
from chain import DATE, query
from front_end import FrontEnd
from spamscore_command import run_process

from pipeline.answers.summary import read_texts

PATH = "/v1/predictions"
SECRET = "xyzzy-secret-4711"


def test_every_score_equals_the_row_that_the_batch_stored(front: FrontEnd) -> None:
    rows = query(front.folder, "select message_id, spam_probability, flagged from spam_scores")
    ((threshold,),) = query(front.folder, "select threshold from score_batches")
    ((snapshot,),) = query(front.folder, "select snapshot from score_batches")
    folder = front.folder / "artifacts" / "snapshots" / DATE / str(snapshot)
    texts = read_texts(folder, [str(row[0]) for row in rows])
    answer = front.predict(*(texts[str(row[0])] for row in rows))
    received = [(one["probability"], one["flagged"]) for one in answer["predictions"]]
    assert received == [(row[1], bool(row[2])) for row in rows]
    assert (answer["threshold"], answer["model_version"]) == (threshold, 1)


MESSAGES = [
    "WIN a FREE prize now",
    "see you at lunch",
    "",
    " \n",
    "\u200b",
    "\x00",
    "ça va? 你好 🎉",
    "W I N",
    "x" * 5000,
]


def test_one_message_and_many_have_the_scores_of_spamscore_text(front: FrontEnd) -> None:
    lines = "\n".join(message.replace("\n", " ") for message in MESSAGES)
    printed = run_process("text", "--json", cwd=front.folder, input=lines).stdout.splitlines()
    expected = [(line["spam_probability"], line["flagged"]) for line in map(json.loads, printed)]
    together = front.predict(*MESSAGES)["predictions"]
    alone = [front.predict(message)["predictions"][0] for message in MESSAGES]
    assert [(one["probability"], one["flagged"]) for one in together] == expected
    assert alone == together


@pytest.mark.parametrize(
    ("parameters", "version"), [("", 1), ("?version=1", 1), ("?version=2", 2), ("?label=stable", 1)]
)
def test_a_request_can_name_a_version_or_a_label(front: FrontEnd, parameters: str, version: int) -> None:
    answer = front.predict("WIN a prize", query=parameters)
    command = ("text", "--json", "--model-version", str(version), "WIN a prize")
    expected = json.loads(run_process(*command, cwd=front.folder).stdout)
    assert answer["model_version"] == version
    assert answer["predictions"][0]["probability"] == expected["spam_probability"]


def test_an_explanation_is_the_one_of_spamscore_explain(front: FrontEnd) -> None:
    message = "Congratulations! You have WON a prize, call now. See you at lunch."
    (prediction, empty) = front.predict(message, " ", query="?explain=true")["predictions"]
    expected = json.loads(run_process("explain", "--json", message, cwd=front.folder).stdout)
    assert prediction["probability"] == expected["spam_probability"]
    assert (prediction["words"], prediction["decisive"]) == (expected["words"], expected["decisive"])
    assert empty == {"probability": None, "flagged": None, "words": [], "decisive": []}


def test_no_message_has_no_prediction(front: FrontEnd) -> None:
    answer = front.predict()
    assert (answer["predictions"], answer["model_version"]) == ([], 1)


def body(content: object) -> bytes:
    return json.dumps(content).encode()


ERRORS: list[tuple[str, bytes, int, str]] = [
    ("", b"", 422, "body: expected JSON"),
    ("", b"{", 422, "body: expected JSON"),
    ("", b'{"messages": ["\xff"]}', 422, "body: expected JSON"),
    ("", b'{"messages": ["\\ud800"]}', 422, "body: expected JSON"),
    ("", body([SECRET]), 422, "expected an object"),
    ("", body({}), 422, '"messages"'),
    ("", body({"messages": [SECRET], SECRET: 1}), 422, '"messages"'),
    ("", body({"messages": SECRET}), 422, "messages: expected a list of texts, received a text"),
    ("", body({"messages": [SECRET, 3]}), 422, "messages, index 1: expected a text, received a number"),
    ("", body({"messages": [SECRET, None]}), 422, "messages, index 1: expected a text, received null"),
    ("", body({"messages": [SECRET] * 1001}), 422, "1,001 messages, expected at most 1,000, the limit of [api]"),
    ("", b" " * 5_000_000, 413, "4,194,304 bytes, the limit of [api] max_body_bytes"),
    ("?explain=true", body({"messages": [SECRET] * 11}), 422, "11 messages, expected at most 10"),
    ("?explain=maybe", body({"messages": []}), 422, "query: explain"),
    ("?version=0", body({"messages": []}), 422, "query: version"),
    (f"?version={SECRET}", body({"messages": []}), 422, "query: version"),
    ("?label=newest", body({"messages": []}), 422, "query: label"),
    ("?version=1&label=stable", body({"messages": []}), 404, "give one of the two"),
    (f"?{SECRET}=1", body({"messages": []}), 422, "query"),
    ("?" + "a=1&" * 30, body({"messages": []}), 422, "at most 20 parameters"),
    ("?version=7", body({"messages": [SECRET]}), 404, "version 7"),
    ("?version=3", body({"messages": [SECRET]}), 404, "version 3"),  # listed in models.config, but not exported yet
    ("?label=canary", body({"messages": [SECRET]}), 404, "label canary"),
]


@pytest.mark.parametrize(("parameters", "content", "status", "text"), ERRORS, ids=[row[3] for row in ERRORS])
def test_an_error_names_what_is_wrong_and_the_limit(
    front: FrontEnd, parameters: str, content: bytes, status: int, text: str
) -> None:
    answer = front.post(PATH + parameters, content)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert text in answer.json()["error"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_another_method_is_refused(front: FrontEnd, method: str) -> None:
    answer = front.send(method, PATH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_a_million_wrong_values_are_refused_without_a_list_of_them(front: FrontEnd) -> None:
    content = b'{"messages": [' + b"1," * 1_000_000 + b"1]}"
    answer = front.post(PATH, content)
    assert answer.status_code == 422
    assert len(answer.content) < 200


def test_the_log_contains_nothing_of_a_message(front: FrontEnd) -> None:
    front.predict(SECRET, query="?explain=true")
    front.post(PATH, body({"messages": [SECRET, 3], SECRET: 4}))
    front.post(PATH, SECRET.encode())
    front.get(f"/{SECRET}?{SECRET}")
    front.post("/v1/models/spam_ham:predict", body({"signature_name": SECRET, "instances": [{"b64": SECRET}]}))
    assert SECRET not in front.log
    assert SECRET not in front.get("/metrics").text


def test_bodies_in_pieces_and_keep_alive_are_answered(front: FrontEnd) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"messages": ['
        yield b'"hello"'
        yield b"]}"

    with requests.Session() as session:
        session.trust_env = False
        answers = [session.post(front.url + PATH, data=pieces(), timeout=60) for _ in range(3)]
    assert [answer.json() for answer in answers] == [front.predict("hello")] * 3
