"""Tests of the gRPC services of TensorFlow Serving, with the stubs of tensorflow-serving-api."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import tensorflow as tf
from front_end import FrontEnd
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from models.network.export import ServedModel
from pipeline.client.grpc_client import GrpcClient
from pipeline.client.server import ModelServer

TEXTS = ["WIN a FREE prize now", "see you at lunch", "", "ça va? 你好"]
SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
Status = grpc.StatusCode
INVALID = Status.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def channel(front: FrontEnd) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{front.grpc_port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def predictions(channel: grpc.Channel) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(channel: grpc.Channel) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)


@pytest.fixture(scope="module")
def scores(front: FrontEnd) -> list[float]:
    """The scores of the exported SavedModel."""
    with ServedModel(front.folder / "artifacts" / "exports" / "spam_ham" / "1") as model:
        return [float(score) for score in model.predict_spam(TEXTS)]


def specify(
    request: Any, signature: str = "", version: int | None = None, label: str = "", name: str = "spam_ham"
) -> Any:
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    return request


def predict_request(texts: list[str] = TEXTS, **specification: Any) -> Any:
    request = specify(predict_pb2.PredictRequest(), **{"signature": "predict_spam", **specification})
    request.inputs["texts"].CopyFrom(tf.make_tensor_proto(texts, tf.string, shape=[len(texts)]))
    return request


def example(text: str) -> Any:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
    return tf.train.Example(features=tf.train.Features(feature={"text": feature}))


def classify_request(texts: list[str] = TEXTS, **specification: Any) -> Any:
    request = specify(classification_pb2.ClassificationRequest(), **specification)
    request.input.example_list.examples.extend(example(text) for text in texts)
    return request


def test_predict_returns_the_scores_of_the_saved_model(predictions: Any, scores: list[float]) -> None:
    response = predictions.Predict(predict_request())
    assert tf.make_ndarray(response.outputs["scores"]).tolist() == pytest.approx(scores, abs=1e-6)
    specification = response.model_spec
    assert (specification.name, specification.version.value, specification.signature_name) == (
        "spam_ham", 1, "predict_spam",
    )  # fmt: skip


def test_predict_runs_the_default_signature_on_examples(predictions: Any, scores: list[float]) -> None:
    request = specify(predict_pb2.PredictRequest())
    values = [example(text).SerializeToString() for text in TEXTS]
    request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(values, tf.string))
    outputs = predictions.Predict(request).outputs
    assert tf.make_ndarray(outputs["classes"]).tolist() == [[b"ham", b"spam"]] * len(TEXTS)
    assert tf.make_ndarray(outputs["scores"])[:, 1].tolist() == pytest.approx(scores, abs=1e-6)
    request.output_filter.append("scores")
    assert set(predictions.Predict(request).outputs) == {"scores"}


def test_a_tensor_may_repeat_its_last_value(predictions: Any) -> None:
    request = predict_request(["WIN a prize"])
    request.inputs["texts"].tensor_shape.dim[0].size = 3
    expected = predictions.Predict(predict_request(["WIN a prize"] * 3))
    assert predictions.Predict(request) == expected


def test_classify_returns_the_classes_and_their_scores(predictions: Any, scores: list[float]) -> None:
    with_context = specify(classification_pb2.ClassificationRequest())
    with_context.input.example_list_with_context.examples.extend(example(text) for text in TEXTS)
    for request in (classify_request(), with_context):
        response = predictions.Classify(request)
        rows = [{one.label: one.score for one in row.classes} for row in response.result.classifications]
        assert [row["spam"] for row in rows] == pytest.approx(scores, abs=1e-6)
        assert [row["ham"] + row["spam"] for row in rows] == pytest.approx([1] * len(TEXTS))
        assert response.model_spec.version.value == 1


@pytest.mark.parametrize(("specification", "version"), [({"version": 2}, 2), ({"label": "stable"}, 1)])
def test_a_request_can_name_a_version_or_a_label(
    front: FrontEnd, predictions: Any, specification: dict[str, Any], version: int
) -> None:
    response = predictions.Predict(predict_request(**specification))
    expected = front.predict(TEXTS[0], query=f"?version={version}")["predictions"][0]["probability"]
    assert response.model_spec.version.value == version
    assert response.outputs["scores"].float_val[0] == pytest.approx(expected, abs=1e-7)


def test_status_and_metadata_are_those_of_the_exports(front: FrontEnd, predictions: Any, models: Any) -> None:
    status = models.GetModelStatus(specify(get_model_status_pb2.GetModelStatusRequest()))
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(one.version, one.state) for one in status.model_version_status] == [(1, available), (2, available)]
    request = specify(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]), version=2)
    response = predictions.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    with ServedModel(front.folder / "artifacts" / "exports" / "spam_ham" / "2") as model:
        assert dict(signatures.signature_def) == dict(model.signatures)
    assert response.model_spec.version.value == 2


def without_texts() -> Any:
    return specify(predict_pb2.PredictRequest(), "predict_spam")


def with_filter(name: str) -> Any:
    request = predict_request()
    request.output_filter.append(name)
    return request


def with_numbers() -> Any:
    request = predict_request()
    request.inputs["texts"].CopyFrom(tf.make_tensor_proto([1.0]))
    return request


def with_shape(*sizes: int) -> Any:
    request = predict_request()
    del request.inputs["texts"].tensor_shape.dim[:]
    for size in sizes:
        request.inputs["texts"].tensor_shape.dim.add(size=size)
    return request


ERRORS: list[tuple[str, Any, grpc.StatusCode, str]] = [
    ("Predict", predict_pb2.PredictRequest(), INVALID, "Missing ModelSpec"),
    ("Predict", predict_request(name="x"), Status.NOT_FOUND, "Servable not found for request: Latest(x)"),
    ("Predict", predict_request(version=9), Status.NOT_FOUND, "Specific(spam_ham, 9)"),
    ("Predict", predict_request(label="newest"), INVALID, "Unrecognized servable version label: newest"),
    ("Predict", predict_request(signature="x"), INVALID, 'Serving signature name: "x" not found'),
    ("Predict", without_texts(), INVALID, "input tensor alias not found in signature"),
    ("Predict", with_filter("x"), INVALID, "output tensor alias not found in signature: x"),
    ("Predict", with_numbers(), INVALID, "expected a tensor of DT_STRING"),
    ("Predict", with_shape(), INVALID, "with one dimension"),
    ("Predict", with_shape(2, 2), INVALID, "with one dimension"),
    ("Predict", with_shape(10**12), INVALID, "the shape of the tensor"),
    ("Predict", with_shape(3), INVALID, "expected 3 strings"),
    ("Predict", predict_request(["x"] * 1001), INVALID, "[api] max_messages"),
    ("Classify", classify_request([]), INVALID, "Input is empty"),
    ("Classify", classify_request(signature="predict_spam"), INVALID, "Expected classification signature"),
    ("GetModelMetadata", specify(get_model_metadata_pb2.GetModelMetadataRequest()), INVALID, "metadata_field"),
    ("Regress", specify(regression_pb2.RegressionRequest()), Status.UNIMPLEMENTED, ""),
]  # fmt: skip


@pytest.mark.parametrize(("call", "request_", "code", "text"), ERRORS, ids=lambda value: str(value)[:40].strip())
def test_an_error_has_the_code_of_the_protocol(
    predictions: Any, call: str, request_: Any, code: grpc.StatusCode, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        getattr(predictions, call)(request_)
    assert failure.value.code() == code
    assert text in failure.value.details()


def test_a_request_over_the_limit_of_a_body_is_refused(predictions: Any) -> None:
    with pytest.raises(grpc.RpcError) as failure:
        predictions.Predict(predict_request(["x" * 5_000_000]))
    assert failure.value.code() == Status.RESOURCE_EXHAUSTED


def test_the_health_service_reports_that_messages_can_be_scored(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", *SERVICES):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as failure:
        health.Check(health_pb2.HealthCheckRequest(service="other"))
    assert failure.value.code() == Status.NOT_FOUND


def test_reflection_describes_the_services(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(SERVICES) <= set(database.get_services())
    file = database.FindFileContainingSymbol(SERVICES[0])
    assert "Predict" in [method.name for service in file.service for method in service.method]


def test_the_client_of_spamscore_works_unchanged(front: FrontEnd, scores: list[float]) -> None:
    with GrpcClient(ModelServer(f"127.0.0.1:{front.grpc_port}", "spam_ham")) as client:
        for answer in (client.predict(TEXTS), client.classify(TEXTS)):
            assert (answer.version, answer.probabilities.tolist()) == (1, pytest.approx(scores, abs=1e-6))
        assert [status.version for status in client.status()] == [1, 2]
        assert client.metadata().version == 1
