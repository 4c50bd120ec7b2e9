"""Builds the requests of TensorFlow Serving's protocol, and reads its answers, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.client.protocol import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    types_pb2,
)
from pipeline.client.server import (
    CLASSIFY_SIGNATURE,
    FEATURE,
    INPUT,
    OUTPUT,
    PREDICT_SIGNATURE,
    Metadata,
    ModelServer,
    Scores,
    Signature,
    VersionStatus,
    answer_error,
    check_scores,
    spam_scores,
)


def predict_request(server: ModelServer, texts: Iterable[bytes]) -> Any:
    """Builds the PredictRequest for messages in UTF-8."""
    request = predict_pb2.PredictRequest(model_spec=_model_spec(server, signature_name=PREDICT_SIGNATURE))
    tensor = request.inputs[INPUT]
    tensor.dtype = types_pb2.DT_STRING
    tensor.string_val.extend(texts)
    tensor.tensor_shape.dim.add(size=len(tensor.string_val))
    return request


def read_predict_response(server: ModelServer, response: Any, count: int) -> Scores:
    """Reads the PredictResponse for `count` messages.

    Raises:
        ServerError: the answer is not one probability a message.
    """
    if OUTPUT not in response.outputs:
        received = f"outputs {', '.join(sorted(response.outputs)) or 'none'}"
        raise answer_error(server, f"the output {OUTPUT}", received)
    tensor = response.outputs[OUTPUT]
    if tensor.dtype != types_pb2.DT_FLOAT:
        raise answer_error(server, f"{OUTPUT} of DT_FLOAT", types_pb2.DataType.Name(tensor.dtype))
    values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val, "f4")
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    # A tensor whose last values are equal may hold the first of these alone.
    if shape == [count] and 0 < len(values) < count:
        values = np.pad(values, (0, count - len(values)), "edge")
    return check_scores(server, values.astype(np.float32), count, response.model_spec.version.value)


def classify_request(server: ModelServer, texts: Iterable[bytes]) -> Any:
    """Builds the ClassificationRequest for messages in UTF-8: one `tf.Example` each."""
    request = classification_pb2.ClassificationRequest(
        model_spec=_model_spec(server, signature_name=CLASSIFY_SIGNATURE)
    )
    examples = request.input.example_list.examples
    for text in texts:
        examples.add().features.feature[FEATURE].bytes_list.value.append(text)
    return request


def read_classify_response(server: ModelServer, response: Any, count: int) -> Scores:
    """Reads the probabilities of the class spam from the ClassificationResponse for `count` messages.

    Raises:
        ServerError: the answer is not one probability of spam a message.
    """
    results = ({one.label: one.score for one in result.classes} for result in response.result.classifications)
    return check_scores(server, spam_scores(server, results), count, response.model_spec.version.value)


def status_request(server: ModelServer) -> Any:
    """Builds the GetModelStatusRequest for all versions. The server would not look at a label."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = server.model
    return request


def read_status_response(response: Any) -> list[VersionStatus]:
    """Reads the GetModelStatusResponse, versions ascending."""
    states = get_model_status_pb2.ModelVersionStatus.State
    return sorted(
        (
            VersionStatus(one.version, states.Name(one.state), one.status.error_message)
            for one in response.model_version_status
        ),
        key=lambda status: status.version,
    )


def metadata_request(server: ModelServer) -> Any:
    """Builds the GetModelMetadataRequest for the signatures."""
    return get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=_model_spec(server), metadata_field=["signature_def"]
    )


def read_metadata_response(server: ModelServer, response: Any) -> Metadata:
    """Reads the GetModelMetadataResponse.

    Raises:
        ServerError: the answer has no signatures, or no version.
    """
    signatures = get_model_metadata_pb2.SignatureDefMap()
    if not response.metadata["signature_def"].Unpack(signatures) or not response.model_spec.version.value:
        raise answer_error(server, "signatures and a version", "others")
    return Metadata(
        response.model_spec.version.value,
        {
            name: Signature(tuple(sorted(signature.inputs)), tuple(sorted(signature.outputs)))
            for name, signature in signatures.signature_def.items()
        },
    )


def _model_spec(server: ModelServer, **fields: Any) -> dict[str, Any]:
    """Returns the fields of a ModelSpec: name, version or label, and others."""
    if server.version:
        fields["version"] = {"value": server.version}
    elif server.label:
        fields["version_label"] = server.label
    return {"name": server.model, **fields}
