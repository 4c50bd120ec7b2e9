"""The REST API of TensorFlow Serving: status, metadata, predict and classify.

Paths, forms and errors are those of tensorflow_serving/model_servers/http_rest_api_handler.cc and util/json_tensor.cc.
One thing differs: without a version or label, the version in service answers, and not the newest one.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from pydantic_core import to_json

from pipeline.api.backends.backend import Wanted
from pipeline.api.limits import BAD_REQUEST, NOT_FOUND, UNPROCESSABLE, RequestError
from pipeline.api.protocols.json_bodies import JSON_TYPES, parse_json
from pipeline.api.protocols.signatures import (
    CLASSES,
    FEATURE,
    INPUTS,
    OUTPUTS,
    PREDICT,
    Signatures,
    SpamScores,
    Value,
    read_signature_map,
)

if TYPE_CHECKING:
    from pipeline.api.model_service import ModelService

PREFIX = "/v1/models"
VERSION_DIGITS = 18
_VERSION = rf"(?:/versions/(?P<version>\d{{1,{VERSION_DIGITS}}})|/labels/(?P<label>[^/:]+))?"
_CALL_SUFFIX = re.compile("(?i):(?:classify|regress|predict)$")
_CALL = re.compile(rf"(?i){PREFIX}/(?P<name>[^/:]+){_VERSION}:(?P<call>classify|regress|predict)")
_QUESTION = re.compile(rf"(?i){PREFIX}/(?P<name>[^/:]+){_VERSION}(?:/(?P<call>metadata))?")


class _Address(NamedTuple):
    """What a path names: model, version, and call: status, metadata, predict, classify or regress."""

    name: str
    wanted: Wanted
    call: str


class TensorFlowRest:
    """Answers the requests of TensorFlow Serving's REST API."""

    name = "tensorflow_rest"

    def __init__(self, service: ModelService) -> None:
        self._signatures = Signatures(service)

    def methods(self, path: str) -> tuple[str, ...]:
        """Returns the methods of a path."""
        return ("POST",) if _CALL_SUFFIX.search(path) else ("GET",)

    def call(self, path: str) -> str:
        """Returns the name of the call, for the metrics."""
        address = _parse_path(path)
        return address.call if address else "unknown"

    def status(self, error: RequestError) -> int:
        """Returns the status code of an error; TensorFlow Serving has 400 for every request that it does not accept."""
        return BAD_REQUEST if error.status == UNPROCESSABLE else error.status

    async def answer(self, path: str, _query: bytes, body: bytes) -> bytes:
        """Answers a request in JSON.

        Raises:
            RequestError: the request is not what is expected, or cannot be answered now.
        """
        address = _parse_path(path)
        if address is None:
            raise RequestError(NOT_FOUND, "Malformed request: there is no such path")
        self._signatures.require_model(address.name, address.wanted)
        if address.call == "status":
            return await self._status(address.wanted)
        if address.call == "metadata":
            return await self._metadata(address.wanted)
        request = parse_json(body, BAD_REQUEST)
        if type(request) is not dict:
            raise RequestError(BAD_REQUEST, f"body: expected an object, received {JSON_TYPES[type(request)]}")
        signature = request.get("signature_name", "")
        if type(signature) is not str:
            raise RequestError(BAD_REQUEST, "'signature_name' key must be a string value.")
        if address.call == "predict":
            return await self._predict(address.wanted, self._signatures.require_signature(signature), request)
        self._signatures.require_signature(signature, address.call)
        scores = await self._signatures.score(address.wanted, _read_examples(request))
        return to_json({"results": [list(zip(CLASSES, row, strict=True)) for row in scores.both()]})

    async def _status(self, wanted: Wanted) -> bytes:
        states = await self._signatures.service.backend.versions()
        if wanted != Wanted():
            version = await self._signatures.resolve(wanted)
            states = [state for state in states if state.version == version]
        return to_json(
            {
                "model_version_status": [
                    {
                        "version": str(state.version),
                        "state": "END" if state.error else "AVAILABLE",
                        "status": {"error_code": "UNKNOWN" if state.error else "OK", "error_message": state.error},
                    }
                    for state in states
                ]
            }
        )

    async def _metadata(self, wanted: Wanted) -> bytes:
        from google.protobuf.json_format import MessageToDict

        from pipeline.client.protocol import get_model_metadata_pb2

        version = await self._signatures.resolve(wanted)
        signatures = get_model_metadata_pb2.SignatureDefMap.FromString(read_signature_map(version))
        specification = {"name": self._signatures.model_name, "signature_name": "", "version": str(version)}
        content = MessageToDict(signatures, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        return to_json({"model_spec": specification, "metadata": {"signature_def": content}})

    async def _predict(self, wanted: Wanted, signature: str, request: dict[str, Any]) -> bytes:
        in_rows = "instances" in request
        if in_rows == ("inputs" in request):
            raise RequestError(BAD_REQUEST, "body: expected one of the keys 'instances' and 'inputs'")
        read = _read_instances if in_rows else _read_inputs
        values = read(request["instances" if in_rows else "inputs"], INPUTS[signature])
        scores = await self._signatures.run(wanted, signature, values)
        if signature == PREDICT:
            return to_json({"predictions" if in_rows else "outputs": scores.probabilities})
        columns = _classification_columns(scores)
        if in_rows:
            rows = zip(*(columns[name] for name in OUTPUTS[signature]), strict=True)
            return to_json({"predictions": [dict(zip(OUTPUTS[signature], row, strict=True)) for row in rows]})
        return to_json({"outputs": columns})


def _classification_columns(scores: SpamScores) -> dict[str, Sequence[Any]]:
    return {"classes": [CLASSES] * len(scores.probabilities), "scores": scores.both()}


def _parse_path(path: str) -> _Address | None:
    match = _CALL.fullmatch(path) or _QUESTION.fullmatch(path)
    if match is None:
        return None
    version, label = match["version"], match["label"]
    wanted = Wanted(int(version) if version else None, unquote(label) if label else None)
    return _Address(unquote(match["name"]), wanted, (match["call"] or "status").lower())


def _read_instances(instances: Any, name: str) -> list[Value]:
    """Reads the row form: a list of values, or of objects with the value under the name of the input."""
    if type(instances) is not list or not instances:
        raise RequestError(BAD_REQUEST, "instances: expected a list that is not empty")
    return [
        _read_value(item[name] if type(item) is dict and item.keys() == {name} else item, f"instances, index {index}")
        for index, item in enumerate(instances)
    ]


def _read_inputs(inputs: Any, name: str) -> list[Value]:
    """Reads the column form: a list of values, or an object with the list under the name of the input."""
    column = inputs[name] if type(inputs) is dict and inputs.keys() == {name} else inputs
    if type(column) is not list:
        raise RequestError(BAD_REQUEST, f"inputs: expected a list of texts, or an object with the list as {name}")
    return [_read_value(item, f"inputs, index {index}") for index, item in enumerate(column)]


def _read_examples(request: dict[str, Any]) -> list[Value]:
    """Reads the examples of a classify request. A feature of the context belongs to every example."""
    examples, context = request.get("examples"), request.get("context", {})
    if type(examples) is not list or not examples:
        raise RequestError(BAD_REQUEST, "examples: expected a list that is not empty")
    texts = []
    for index, example in enumerate(examples):
        sources = [source for source in (example, context) if type(source) is dict and FEATURE in source]
        if not sources:
            raise RequestError(BAD_REQUEST, f"examples, index {index}: expected an object with the feature {FEATURE}")
        value = sources[0][FEATURE]
        texts.append(_read_value(value[0] if type(value) is list and len(value) == 1 else value, f"examples, {index}"))
    return texts


def _read_value(value: Any, place: str) -> Value:
    """Reads a text, or bytes as {"b64": "…"}."""
    if type(value) is str:
        return value
    if type(value) is dict and value.keys() == {"b64"} and type(value["b64"]) is str:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(BAD_REQUEST, f"{place}: Unable to base64 decode") from None
    raise RequestError(BAD_REQUEST, f"{place}: expected a text, received {JSON_TYPES[type(value)]}")
