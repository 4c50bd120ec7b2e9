"""The gRPC services of TensorFlow Serving: PredictionService and ModelService, with grpc.health and reflection.

Import this module before a thread imports TensorFlow (`pipeline.client.protocol`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pipeline.api.authentication import Authentication
from pipeline.api.backends.backend import Wanted
from pipeline.api.limits import (
    BAD_REQUEST,
    INTERNAL,
    NOT_FOUND,
    TOO_LARGE,
    TOO_MANY,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNPROCESSABLE,
    RequestError,
    describe_failure,
    timeout_error,
)
from pipeline.api.protocols.signatures import (
    CLASSES,
    CLASSIFY,
    INPUTS,
    OUTPUTS,
    PREDICT,
    Signatures,
    SpamScores,
    read_feature,
    read_signature_map,
)
from pipeline.client.protocol import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    grpc,
    grpc_aio,
    model_service_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
    types_pb2,
)

if TYPE_CHECKING:
    from pipeline.api.metrics import Metrics
    from pipeline.api.model_service import ModelService
    from tasks.settings.serving import ApiSettings

log = logging.getLogger("spamscore")

_SERVICES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in ((prediction_service_pb2, "PredictionService"), (model_service_pb2, "ModelService"))
)
_CODES = {
    BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    UNPROCESSABLE: grpc.StatusCode.INVALID_ARGUMENT,
    UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TOO_MANY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    INTERNAL: grpc.StatusCode.INTERNAL,
    UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
_UNKNOWN = 2  # tensorflow.error.UNKNOWN


class GrpcServer:
    """The gRPC port of the front end, in the event loop of the process."""

    def __init__(self, service: ModelService, settings: ApiSettings, metrics: Metrics) -> None:
        """Prepares the server."""
        self._service, self._settings, self._metrics = service, settings, metrics
        self._server: Any = None
        self._health = health.aio.HealthServicer()

    async def start(self) -> None:
        """Listens on [api] host and grpc_port.

        Raises:
            SettingsError: the port is in use.
        """
        settings, service, metrics = self._settings, self._service, self._metrics
        self._server = grpc_aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                # Without this, a second server could take the port, and each would get a part of the requests.
                ("grpc.so_reuseport", 0),
            ]
        )
        calls = _Calls(settings, metrics)
        signatures = Signatures(service)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            _PredictionService(signatures, calls), self._server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(signatures, calls), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.grpc_port}"
        if credentials := _credentials(settings):
            self._server.add_secure_port(address, credentials)
        else:
            self._server.add_insecure_port(address)
        await self._server.start()

    async def set_ready(self, ready: bool) -> None:
        """Sets the status that grpc.health reports."""
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *_SERVICES):
            await self._health.set(name, status)

    async def stop(self, seconds: float) -> None:
        """Takes no new calls, and answers those in progress for some seconds."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(seconds)


def _credentials(settings: ApiSettings) -> Any:
    if not settings.tls_certificate:
        return None
    files = (settings.tls_key, settings.tls_certificate, settings.tls_client_ca)
    key, certificate, authorities = (_read(path) if path else None for path in files)
    return grpc.ssl_server_credentials([(key, certificate)], authorities, require_client_auth=authorities is not None)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class _Calls:
    """What every call has in common: authentication, the limit of time, errors, metrics."""

    def __init__(self, settings: ApiSettings, metrics: Metrics) -> None:
        self._authentication, self._seconds, self._metrics = Authentication(settings), settings.timeout, metrics

    async def answer(self, name: str, context: Any, request: Any, compute: Callable[[Any], Awaitable[Any]]) -> Any:
        """Returns the answer of a call, or ends it with an error."""
        start, code = time.perf_counter(), grpc.StatusCode.CANCELLED
        try:
            self._authentication.check_token(_authorization(context.invocation_metadata()))
            async with asyncio.timeout(self._seconds):
                answer = await compute(request)
            code = grpc.StatusCode.OK
            return answer
        except RequestError as error:
            code = _CODES[error.status]
            await context.abort(code, str(error))
        except TimeoutError:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            await context.abort(code, str(timeout_error("there is no answer", self._seconds)))
        except Exception as error:
            log.error("a %s call failed: %s", name, describe_failure(error))
            code = grpc.StatusCode.INTERNAL
            await context.abort(code, "the call failed; the log of the front end has the error")
        finally:
            self._metrics.count_request("tensorflow_grpc", name, code.name, time.perf_counter() - start)


def _authorization(metadata: Sequence[tuple[str, str]]) -> bytes:
    return next((value.encode() for name, value in metadata if name == "authorization"), b"")


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify and GetModelMetadata."""

    def __init__(self, signatures: Signatures, calls: _Calls) -> None:
        self._signatures, self._calls = signatures, calls

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name is the protocol's
        """Runs a signature."""
        return await self._calls.answer("predict", context, request, self._predict)

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Classifies examples."""
        return await self._calls.answer("classify", context, request, self._classify)

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Returns the signatures."""
        return await self._calls.answer("metadata", context, request, self._metadata)

    async def _predict(self, request: Any) -> Any:
        wanted = _read_specification(self._signatures, request)
        signature = self._signatures.require_signature(request.model_spec.signature_name)
        values = _read_tensor(request.inputs, INPUTS[signature])
        names = request.output_filter or OUTPUTS[signature]
        if unknown := set(names) - set(OUTPUTS[signature]):
            raise RequestError(BAD_REQUEST, f"output tensor alias not found in signature: {', '.join(sorted(unknown))}")
        scores = await self._signatures.run(wanted, signature, values)
        response = predict_pb2.PredictResponse()
        self._fill_specification(response, scores.version, signature)
        for name in names:
            _fill_output(response.outputs[name], signature, name, scores)
        return response

    async def _classify(self, request: Any) -> Any:
        wanted = _read_specification(self._signatures, request)
        signature = self._signatures.require_signature(request.model_spec.signature_name, "classify")
        scores = await self._signatures.score(wanted, list(_read_input(request.input)))
        response = classification_pb2.ClassificationResponse()
        self._fill_specification(response, scores.version, signature)
        for row in scores.both():
            classification = response.result.classifications.add()
            for label, score in zip(CLASSES, row, strict=True):
                classification.classes.add(label=label, score=score)
        return response

    async def _metadata(self, request: Any) -> Any:
        if list(request.metadata_field) != ["signature_def"]:
            raise RequestError(BAD_REQUEST, "GetModelMetadata: expected metadata_field to be signature_def")
        version = await self._signatures.resolve(_read_specification(self._signatures, request))
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._fill_specification(response, version, "")
        signatures = get_model_metadata_pb2.SignatureDefMap.FromString(read_signature_map(version))
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _fill_specification(self, response: Any, version: int, signature: str) -> None:
        response.model_spec.name = self._signatures.model_name
        response.model_spec.version.value = version
        response.model_spec.signature_name = signature


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus."""

    def __init__(self, signatures: Signatures, calls: _Calls) -> None:
        self._signatures, self._calls = signatures, calls

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Returns the versions that can be asked for."""
        return await self._calls.answer("status", context, request, self._status)

    async def _status(self, request: Any) -> Any:
        wanted = _read_specification(self._signatures, request)
        states = await self._signatures.service.backend.versions()
        if wanted != Wanted():
            version = await self._signatures.resolve(wanted)
            states = [state for state in states if state.version == version]
        response = get_model_status_pb2.GetModelStatusResponse()
        kinds = get_model_status_pb2.ModelVersionStatus
        for state in states:
            one = response.model_version_status.add(
                version=state.version, state=kinds.END if state.error else kinds.AVAILABLE
            )
            one.status.error_code = _UNKNOWN if state.error else 0
            one.status.error_message = state.error
        return response


def _read_specification(signatures: Signatures, request: Any) -> Wanted:
    """Returns the version that a request names, and checks the name of the model."""
    if not request.HasField("model_spec"):
        raise RequestError(BAD_REQUEST, "Missing ModelSpec")
    specification = request.model_spec
    version = specification.version.value if specification.HasField("version") else None
    wanted = Wanted(version, specification.version_label or None)
    signatures.require_model(specification.name, wanted)
    return wanted


def _read_tensor(inputs: Any, name: str) -> Sequence[bytes]:
    """Returns the strings of the only input of a signature."""
    if set(inputs) != {name}:
        received = ", ".join(sorted(inputs)) or "none"
        raise RequestError(BAD_REQUEST, f"input tensor alias not found in signature: expected {name}, got {received}")
    tensor = inputs[name]
    if tensor.dtype != types_pb2.DT_STRING or len(tensor.tensor_shape.dim) != 1:
        raise RequestError(BAD_REQUEST, f"{name}: expected a tensor of DT_STRING with one dimension")
    values, size = list(tensor.string_val), tensor.tensor_shape.dim[0].size
    # A tensor whose last values are equal may contain only the first of them.
    if 0 < len(values) < size <= _MAX_REPEATED:
        values += [values[-1]] * (size - len(values))
    if len(values) != size:
        raise RequestError(BAD_REQUEST, f"{name}: expected {size} strings, the shape of the tensor, got {len(values)}")
    return values


_MAX_REPEATED = 100_000


def _fill_output(tensor: Any, signature: str, name: str, scores: SpamScores) -> None:
    tensor.tensor_shape.dim.add(size=len(scores.probabilities))
    if signature == CLASSIFY:
        tensor.tensor_shape.dim.add(size=len(CLASSES))
    if name == "classes":
        tensor.dtype = types_pb2.DT_STRING
        tensor.string_val.extend([label.encode() for label in CLASSES] * len(scores.probabilities))
        return
    tensor.dtype = types_pb2.DT_FLOAT
    if signature == PREDICT:
        tensor.float_val.extend(scores.probabilities)
    else:
        tensor.float_val.extend([score for row in scores.both() for score in row])


def _read_input(given: Any) -> Iterator[bytes]:
    """Yields the text of each example of a classify request."""
    kind = given.WhichOneof("kind")
    if kind is None or not getattr(given, kind).examples:
        raise RequestError(BAD_REQUEST, "Input is empty")
    context = given.example_list_with_context.context if kind == "example_list_with_context" else None
    for example in getattr(given, kind).examples:
        yield read_feature(example, context)
