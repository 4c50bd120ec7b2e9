"""Tests of the REST API of TensorFlow Serving, which the front end answers as the real server does."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import tensorflow as tf
from front_end import FrontEnd
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from models.network.export import ServedModel
from pipeline.client.rest_client import RestClient
from pipeline.client.server import ModelServer

MODEL = "/v1/models/spam_ham"
TEXTS = ["WIN a FREE prize now", "see you at lunch", "", "ça va? 你好"]


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


def example(text: str) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
    return bytes(tf.train.Example(features=tf.train.Features(feature={"text": feature})).SerializeToString())


@pytest.fixture(scope="module")
def scores(front: FrontEnd) -> list[float]:
    """The scores of the exported SavedModel."""
    with ServedModel(front.folder / "artifacts" / "exports" / "spam_ham" / "1") as model:
        return [float(score) for score in model.predict_spam(TEXTS)]


@pytest.fixture(scope="module")
def both(scores: list[float]) -> list[list[float]]:
    return [[1 - score, score] for score in scores]


def ask(front: FrontEnd, path: str, content: object) -> Any:
    answer = front.post(MODEL + path, content)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), answer.text
    return answer.json()


PREDICT_FORMS = [
    {"instances": TEXTS},
    {"instances": [{"texts": text} for text in TEXTS]},
    {"instances": [b64(text.encode()) for text in TEXTS]},
    {"instances": [{"texts": b64(text.encode())} for text in TEXTS]},
    {"inputs": TEXTS},
    {"inputs": {"texts": TEXTS}},
    {"inputs": {"texts": [b64(text.encode()) for text in TEXTS]}},
]


@pytest.mark.parametrize("form", PREDICT_FORMS, ids=lambda form: json.dumps(form)[:40])
def test_predict_accepts_each_form_of_a_request(front: FrontEnd, scores: list[float], form: dict[str, Any]) -> None:
    answer = ask(front, ":predict", {"signature_name": "predict_spam", **form})
    assert answer == {"predictions" if "instances" in form else "outputs": pytest.approx(scores, abs=1e-6)}


def test_predict_runs_the_default_signature_on_serialized_examples(front: FrontEnd, both: list[list[float]]) -> None:
    values = [b64(example(text)) for text in TEXTS]
    rows = ask(front, ":predict", {"instances": values})["predictions"]
    columns = ask(front, ":predict", {"inputs": {"inputs": values}})["outputs"]
    assert [row["classes"] for row in rows] == columns["classes"] == [["ham", "spam"]] * len(TEXTS)
    assert [row["scores"] for row in rows] == columns["scores"]
    assert columns["scores"] == [pytest.approx(row, abs=1e-6) for row in both]


CLASSIFY_FORMS = [
    {"examples": [{"text": text} for text in TEXTS]},
    {"examples": [{"text": [text]} for text in TEXTS]},
    {"examples": [{"text": b64(text.encode())} for text in TEXTS], "signature_name": "serving_default"},
]


@pytest.mark.parametrize("form", CLASSIFY_FORMS, ids=lambda form: json.dumps(form)[:40])
def test_classify_returns_the_classes_and_their_scores(
    front: FrontEnd, both: list[list[float]], form: dict[str, Any]
) -> None:
    results = ask(front, ":classify", form)["results"]
    assert [[label for label, _ in row] for row in results] == [["ham", "spam"]] * len(TEXTS)
    assert [[score for _, score in row] for row in results] == [pytest.approx(row, abs=1e-6) for row in both]


def test_a_feature_of_the_context_belongs_to_every_example(front: FrontEnd) -> None:
    expected = ask(front, ":classify", {"examples": [{"text": TEXTS[0]}] * 2})
    assert ask(front, ":classify", {"context": {"text": TEXTS[0]}, "examples": [{}, {}]}) == expected


@pytest.mark.parametrize(("address", "version"), [("", 1), ("/versions/2", 2), ("/labels/stable", 1)])
def test_a_path_can_name_a_version_or_a_label(front: FrontEnd, address: str, version: int) -> None:
    answer = ask(front, f"{address}:predict", {"signature_name": "predict_spam", "instances": TEXTS[:1]})
    expected = front.predict(TEXTS[0], query=f"?version={version}")["predictions"][0]["probability"]
    assert answer == {"predictions": [expected]}


def test_status_lists_the_versions_that_answer(front: FrontEnd) -> None:
    for address, versions in (("", [1, 2]), ("/versions/2", [2]), ("/labels/stable", [1])):
        content = front.get(MODEL + address).json()
        status = json_format.ParseDict(content, get_model_status_pb2.GetModelStatusResponse())
        states = [(one.version, one.state, one.status.error_code) for one in status.model_version_status]
        assert states == [(version, get_model_status_pb2.ModelVersionStatus.AVAILABLE, 0) for version in versions]


def test_metadata_has_the_signatures_of_the_saved_model(front: FrontEnd) -> None:
    content = front.get(f"{MODEL}/versions/2/metadata").json()
    signatures = json_format.ParseDict(
        content["metadata"]["signature_def"], get_model_metadata_pb2.SignatureDefMap()
    ).signature_def
    with ServedModel(front.folder / "artifacts" / "exports" / "spam_ham" / "2") as model:
        assert dict(signatures) == dict(model.signatures)
    assert content["model_spec"] == {"name": "spam_ham", "signature_name": "", "version": "2"}


ERRORS: list[tuple[str, str, object, int, str]] = [
    ("GET", "/v1/models/other", None, 404, "Servable not found for request: Latest(other)"),
    ("GET", "/v1/models/other/versions/3", None, 404, "Servable not found for request: Specific(other, 3)"),
    ("GET", f"{MODEL}/versions/9", None, 404, "Servable not found for request: Specific(spam_ham, 9)"),
    ("GET", f"{MODEL}/labels/newest", None, 400, "Unrecognized servable version label: newest"),
    ("GET", f"{MODEL}/labels/newest/metadata", None, 400, "Unrecognized servable version label: newest"),
    ("GET", f"{MODEL}/versions/x", None, 404, "Malformed request"),
    ("GET", "/v1/models", None, 404, "Malformed request"),
    ("GET", f"{MODEL}:predict", None, 405, "POST"),
    ("POST", MODEL, {}, 405, "GET"),
    ("POST", f"{MODEL}:predict", b"{", 400, "body: expected JSON"),
    ("POST", f"{MODEL}:predict", b'{"instances": ["\xff"]}', 400, "body: expected JSON"),
    ("POST", f"{MODEL}:predict", [], 400, "expected an object"),
    ("POST", f"{MODEL}:predict", {}, 400, "'instances'"),
    ("POST", f"{MODEL}:predict", {"instances": [], "inputs": []}, 400, "'instances'"),
    ("POST", f"{MODEL}:predict", {"instances": []}, 400, "not empty"),
    ("POST", f"{MODEL}:predict", {"instances": "x"}, 400, "not empty"),
    ("POST", f"{MODEL}:predict", {"inputs": "x"}, 400, "expected a list"),
    ("POST", f"{MODEL}:predict", {"instances": [3]}, 400, "instances, index 0: expected a text, received a number"),
    ("POST", f"{MODEL}:predict", {"instances": [{"b64": "%"}]}, 400, "Unable to base64 decode"),
    ("POST", f"{MODEL}:predict", {"instances": ["no example"]}, 400, "Could not parse example"),
    ("POST", f"{MODEL}:predict", {"signature_name": 3}, 400, "'signature_name' key must be a string value."),
    ("POST", f"{MODEL}:predict", {"signature_name": "x"}, 400, 'Serving signature name: "x" not found'),
    ("POST", f"{MODEL}:classify", {}, 400, "examples"),
    ("POST", f"{MODEL}:classify", {"examples": [{}]}, 400, "feature text"),
    ("POST", f"{MODEL}:classify", {"examples": [{"text": 3}]}, 400, "expected a text"),
    (
        "POST", f"{MODEL}:classify", {"signature_name": "predict_spam", "examples": [{"text": "x"}]}, 400,
        "Expected classification signature method_name to be tensorflow/serving/classify",
    ),
    ("POST", f"{MODEL}:regress", {}, 400, "Expected regression signature method_name"),
    ("POST", f"{MODEL}:predict", {"signature_name": "predict_spam", "instances": ["x"] * 1001}, 400, "max_messages"),
    ("POST", f"{MODEL}:predict", b" " * 5_000_000, 413, "max_body_bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "content", "status", "text"), ERRORS, ids=lambda value: str(value)[:50])
def test_an_error_has_the_form_of_the_protocol(
    front: FrontEnd, method: str, path: str, content: object, status: int, text: str
) -> None:
    answer = front.get(path) if method == "GET" else front.post(path, content)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert text in answer.json()["error"]


def test_the_client_of_spamscore_works_unchanged(front: FrontEnd, scores: list[float]) -> None:
    client = RestClient(ModelServer(front.url, "spam_ham"))
    for answer in (client.predict(TEXTS), client.classify(TEXTS)):
        assert (answer.version, answer.probabilities.tolist()) == (1, pytest.approx(scores, abs=1e-6))
    assert [status.version for status in client.status()] == [1, 2]
    assert client.metadata().signatures["predict_spam"].inputs == ("texts",)
    client.close()
