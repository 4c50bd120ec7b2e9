"""A process that behaves as TensorFlow Serving does: for tests, because no binary of the real server can be had.

It implements PredictionService and ModelService over gRPC, and the REST API, over the Session loader that the real
server uses (`models.network.export.ServedModel`). The flags, the status codes and the texts are those of the real
server. Its rules are too, as its sources have them (model_servers/server_core.cc, http_rest_api_util.cc,
sources/storage_path/file_system_storage_path_source.cc):

- `ReloadConfig` looks at the labels first. A label that exists moves only to a version that is available; otherwise
  nothing of the file takes effect, and the next poll tries again. A new label may point to a version that is not
  available, with --allow_version_labels_for_unavailable_models.
- The policy `specific` loads the listed versions that exist, and warns about the others. New folders are found by
  the next poll of the file system. A new version is loaded before an old one is unloaded.
- A request without version and label gets the largest version. GetModelStatus does not look at labels.

Unlike the real server it listens on 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
import threading
import urllib.parse
from collections.abc import Callable
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from models.errors import ArtifactError
from models.network.export import ServedModel

State = get_model_status_pb2.ModelVersionStatus.State
_DEFAULT_SIGNATURE = "serving_default"
_CLASSIFY_METHOD = "tensorflow/serving/classify"
_HTTP_STATUS = {
    "OK": 200, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503,
    "INTERNAL": 500, "UNIMPLEMENTED": 501,
}  # fmt: skip


class StatusError(Exception):
    """A status of the real server: the name of its code and its text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Core:
    """The loaded versions and the labels, as `ServerCore` keeps them."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.config = ModelServerConfig()  # the one in effect
        self.labels: dict[str, dict[str, int]] | None = None
        self.loaded: dict[str, dict[int, ServedModel]] = collections.defaultdict(dict)
        self.states: dict[str, dict[int, tuple[int, str]]] = collections.defaultdict(dict)
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        self.requests: collections.Counter[str] = collections.Counter()

    def start(self) -> None:
        self.reload(read_config(self.flags.model_config_file))
        self.poll_file_system()
        for poll, seconds in (
            (self.poll_config, self.flags.model_config_file_poll_wait_seconds),
            (self.poll_file_system, self.flags.file_system_poll_wait_seconds),
        ):
            if seconds > 0:
                threading.Thread(target=self._repeat, args=(poll, seconds), daemon=True).start()

    def _repeat(self, poll: Callable[[], None], seconds: float) -> None:
        while not self.stopping.wait(seconds):
            poll()

    def poll_config(self) -> None:
        try:
            config = read_config(self.flags.model_config_file)
        except (OSError, text_format.ParseError) as error:
            log(f"Failed to read ModelServerConfig file: {error}")
            return
        try:
            self.reload(config)
        except StatusError as error:
            log(f"PollFilesystemAndReloadConfig failed to ReloadConfig: {error.text}")

    def reload(self, config: Any) -> None:
        with self.lock:
            self.labels = self._check_labels(config)
            self.config = config
            for model in config.model_config_list.config:
                log(f" (Re-)adding model: {model.name}")

    def _check_labels(self, config: Any) -> dict[str, dict[str, int]]:
        labels: dict[str, dict[str, int]] = {}
        for model in config.model_config_list.config:
            before = (self.labels or {}).get(model.name, {})
            for label, version in model.version_labels.items():
                may_wait = self.flags.allow_version_labels_for_unavailable_models
                may_wait = may_wait and before.get(label, version) == version
                if not may_wait and version not in self.loaded[model.name]:
                    raise StatusError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label to version {version} of model {model.name}, which is not currently "
                        "available for inference",
                    )
                labels.setdefault(model.name, {})[label] = version
        return labels

    def poll_file_system(self) -> None:
        with self.lock:
            models = list(self.config.model_config_list.config)
        for model in models:
            base = Path(model.base_path)
            wanted = []
            for version in model.model_version_policy.specific.versions:
                if (base / str(version)).is_dir():
                    wanted.append(version)
                else:
                    log(
                        f"Version {version} of servable {model.name}, which was requested to be served as a 'specific' "
                        "version in the servable's version policy, was not found in the file system"
                    )
            for version in wanted:
                if self.states[model.name].get(version, (State.END, ""))[0] == State.END:
                    self._load(model.name, version, base / str(version))
            for version in set(self.loaded[model.name]) - set(wanted):
                with self.lock:
                    del self.loaded[model.name][version]  # its session ends with the last request that uses it
                    self.states[model.name][version] = (State.END, "")
                log(f"Successfully unloaded servable version {{name: {model.name} version: {version}}}")

    def _load(self, name: str, version: int, folder: Path) -> None:
        if self.states[name].get(version, (0, ""))[1]:
            return  # it failed before, and is tried again only when the server starts
        with self.lock:
            self.states[name][version] = (State.LOADING, "")
        try:
            model = ServedModel(folder)
            warm_up(model, folder)
        except (ArtifactError, tf.errors.OpError) as error:
            with self.lock:
                self.states[name][version] = (State.END, str(error))
            log(f"Loading servable: {{name: {name} version: {version}}} failed: {error}")
            return
        with self.lock:
            self.loaded[name][version] = model
            self.states[name][version] = (State.AVAILABLE, "")
        log(f"Successfully loaded servable version {{name: {name} version: {version}}}")

    def find(self, spec: Any) -> tuple[int, ServedModel]:
        """Returns the version that a ModelSpec stands for."""
        if not spec.name:
            raise StatusError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        with self.lock:
            loaded = self.loaded.get(spec.name, {})
            if choice is None:
                if not loaded:
                    raise StatusError("NOT_FOUND", f"Servable not found for request: Latest({spec.name})")
                return max(loaded.items())
            version = spec.version.value if choice == "version" else self._version_of(spec.name, spec.version_label)
            if version not in loaded:
                raise StatusError("NOT_FOUND", f"Servable not found for request: Specific({spec.name}, {version})")
            return version, loaded[version]

    def _version_of(self, name: str, label: str) -> int:
        if self.labels is None:
            raise StatusError("UNAVAILABLE", f"Model labels does not init yet.{label}")
        if label not in self.labels.get(name, {}):
            raise StatusError("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        return self.labels[name][label]

    def predict(self, request: Any) -> Any:
        version, model = self.find(request.model_spec)
        name = request.model_spec.signature_name or _DEFAULT_SIGNATURE
        if name not in model.signatures:
            raise StatusError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        expected, sent = set(model.signatures[name].inputs), set(request.inputs)
        if len(sent) != len(expected):
            raise StatusError("INVALID_ARGUMENT", f"input size does not match signature: {len(sent)}!={len(expected)}")
        if sent != expected:
            raise StatusError(
                "INVALID_ARGUMENT",
                f"input tensor alias not found in signature: {sent.pop()}. Inputs expected to be in the set "
                f"{{{','.join(expected)}}}.",
            )
        (tensor,) = request.inputs.values()
        outputs = self._run(model, name, list(tf.make_ndarray(tensor).ravel()))
        response = predict_pb2.PredictResponse()
        for output, values in outputs.items():
            dtype = tf.as_dtype(values.dtype) if values.dtype != object else tf.string
            proto = response.outputs[output]
            proto.dtype = dtype.as_datatype_enum
            for size in values.shape:
                proto.tensor_shape.dim.add(size=size)
            (proto.string_val if dtype == tf.string else proto.float_val).extend(values.ravel().tolist())
        self._describe(response.model_spec, request.model_spec.name, version, name)
        return response

    def classify(self, request: Any) -> Any:
        version, model = self.find(request.model_spec)
        name = request.model_spec.signature_name or _DEFAULT_SIGNATURE
        if name not in model.signatures:
            raise StatusError("INVALID_ARGUMENT", f"No signature was found with the name: {name}")
        if (method := model.signatures[name].method_name) != _CLASSIFY_METHOD:
            raise StatusError(
                "INVALID_ARGUMENT",
                f"Expected classification signature method_name to be {_CLASSIFY_METHOD}. Was: {method}",
            )
        examples = [one.SerializeToString() for one in request.input.example_list.examples]
        if not examples:
            raise StatusError("INVALID_ARGUMENT", "Input is empty.")
        outputs = self._run(model, name, examples)
        response = classification_pb2.ClassificationResponse()
        for labels, scores in zip(outputs["classes"], outputs["scores"], strict=True):
            classes = response.result.classifications.add().classes
            for label, score in zip(labels, scores, strict=True):
                classes.add(label=label, score=score)
        self._describe(response.model_spec, request.model_spec.name, version, name)
        return response

    def _run(self, model: ServedModel, signature: str, values: list[bytes]) -> dict[str, Any]:
        limit = self.flags.max_batch_size
        if limit and len(values) > limit:
            text = f"Task size {len(values)} is larger than maximum input batch size {limit}"
            raise StatusError("INVALID_ARGUMENT", text)
        try:
            return model.run(signature, values)
        except tf.errors.InvalidArgumentError as error:
            raise StatusError("INVALID_ARGUMENT", str(error)) from None

    @staticmethod
    def _describe(spec: Any, name: str, version: int, signature: str = "") -> None:
        spec.name, spec.signature_name, spec.version.value = name, signature, version

    def metadata(self, request: Any) -> Any:
        if not request.metadata_field:
            raise StatusError("INVALID_ARGUMENT", "GetModelMetadataRequest must specify at least one metadata_field")
        version, model = self.find(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        self._describe(response.model_spec, request.model_spec.name, version)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in model.signatures.items():
            signatures.signature_def[name].CopyFrom(definition)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request: Any) -> Any:
        spec = request.model_spec
        with self.lock:
            states = dict(self.states.get(spec.name, {}))
        if spec.HasField("version"):
            if spec.version.value not in states:
                text = f"Could not find version {spec.version.value} of model {spec.name}"
                raise StatusError("NOT_FOUND", text)
            states = {spec.version.value: states[spec.version.value]}
        if not states:
            raise StatusError("NOT_FOUND", f"Could not find any versions of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, (state, error) in states.items():
            one = response.model_version_status.add(version=version, state=state)
            one.status.error_code, one.status.error_message = (13 if error else 0), error
        return response


def read_config(path: Path) -> Any:
    return text_format.Parse(path.read_text("utf-8"), ModelServerConfig())


def warm_up(model: ServedModel, folder: Path) -> None:
    """Runs the requests that ExportModel wrote, as the real server does before a version takes requests."""
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))] if path.exists() else []
    for record in records:
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        (tensor,) = request.inputs.values()
        model.run(request.model_spec.signature_name, list(tf.make_ndarray(tensor).ravel()))
    log(f"Finished reading warmup data for model at {folder}. Number of warmup records read: {len(records)}.")


class GrpcServices(prediction_service_pb2_grpc.PredictionServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
    """The two services."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def _answer(self, answer: Callable[[Any], Any], request: Any, context: Any) -> Any:
        try:
            response = answer(request)
        except StatusError as error:
            self.core.requests[error.code] += 1
            context.abort(grpc.StatusCode[error.code], error.text)
        self.core.requests["OK"] += 1
        return response

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer(self.core.predict, request, context)

    def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer(self.core.classify, request, context)

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer(self.core.metadata, request, context)

    def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._answer(self.core.status, request, context)


class RestHandler(BaseHTTPRequestHandler):
    """The REST API, and the page for Prometheus."""

    core: Core
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    _CALL = re.compile(
        r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)", re.IGNORECASE
    )
    _STATUS = re.compile(
        r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata))?", re.IGNORECASE
    )

    def do_GET(self) -> None:
        if self.path == "/monitoring/prometheus/metrics":
            lines = (
                f':tensorflow:serving:request_count{{status="{code}"}} {count}\n'
                for code, count in self.core.requests.items()
            )
            self._send("OK", "# TYPE :tensorflow:serving:request_count counter\n" + "".join(lines))
            return
        self._answer(self._STATUS.fullmatch(self.path), self._get)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self._CALL.fullmatch(self.path), lambda spec, verb: self._post(spec, verb, body))

    def _answer(self, match: re.Match[str] | None, answer: Callable[[Any, str], Any]) -> None:
        try:
            if match is None:
                raise StatusError("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")
            name, version, label, verb = match.groups()
            spec = model_pb2.ModelSpec(name=urllib.parse.unquote(name or ""))
            if version:
                spec.version.value = int(version)
            if label:
                spec.version_label = urllib.parse.unquote(label)
            self._send("OK", json.dumps(answer(spec, verb), indent=1))
            self.core.requests["OK"] += 1
        except StatusError as error:
            self.core.requests[error.code] += 1
            self._send(error.code, json.dumps({"error": error.text}))

    def _get(self, spec: Any, verb: str | None) -> Any:
        if verb != "metadata":
            response = self.core.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
            return json_format.MessageToDict(
                response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
        response = self.core.metadata(request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        return {
            "model_spec": json_format.MessageToDict(response.model_spec, **options),
            "metadata": {"signature_def": json_format.MessageToDict(signatures, **options)},
        }

    def _post(self, spec: Any, verb: str, body: bytes) -> Any:
        try:
            content = json.loads(body)
        except ValueError:
            raise StatusError("INVALID_ARGUMENT", "JSON Parse error: Invalid value. at offset: 0") from None
        spec.signature_name = content.get("signature_name", "")
        if verb == "classify":
            request = classification_pb2.ClassificationRequest(model_spec=spec)
            for example in content["examples"]:
                features = request.input.example_list.examples.add().features.feature
                for key, value in example.items():
                    features[key].bytes_list.value.append(value.encode())
            result = self.core.classify(request).result
            return {"results": [[[one.label, one.score] for one in found.classes] for found in result.classifications]}
        _, model = self.core.find(spec)
        name = spec.signature_name or _DEFAULT_SIGNATURE
        if name not in model.signatures:
            raise StatusError("INVALID_ARGUMENT", f'Serving signature name: "{name}" not found in signature def')
        request = predict_pb2.PredictRequest(model_spec=spec)
        (alias,) = model.signatures[name].inputs
        request.inputs[alias].CopyFrom(tf.make_tensor_proto([text.encode() for text in content["instances"]]))
        (output,) = self.core.predict(request).outputs.values()
        # The shortest decimal that stands for the same float32, as the real server writes it.
        return {"predictions": [float(str(np.float32(value))) for value in output.float_val]}

    def _send(self, code: str, content: str) -> None:
        encoded = content.encode()
        self.send_response(_HTTP_STATUS[code])
        self.send_header("Content-Type", "application/json" if content.startswith("{") else "text/plain")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


def read_credentials(path: Path) -> Any:
    """Reads an SSLConfig (tensorflow_serving/config/ssl_config.proto), which the Python distribution does not have."""
    file = descriptor_pb2.FileDescriptorProto(name="ssl_config.proto", package="driver", syntax="proto3")
    message = file.message_type.add(name="SSLConfig")
    field = descriptor_pb2.FieldDescriptorProto
    for number, name in enumerate(("server_key", "server_cert", "custom_ca", "client_verify"), 1):
        kind = field.TYPE_BOOL if name == "client_verify" else field.TYPE_STRING
        message.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("driver.SSLConfig"))()
    text_format.Parse(path.read_text("utf-8"), config)
    return grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )


def read_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    truth = {"nargs": "?", "const": True, "default": False, "type": lambda text: text == "true"}
    parser.add_argument("--port", type=int, default=8500)
    parser.add_argument("--rest_api_port", type=int, default=0)
    parser.add_argument("--rest_api_timeout_in_ms", type=int, default=30_000)
    parser.add_argument("--model_config_file", type=Path, required=True)
    parser.add_argument("--model_config_file_poll_wait_seconds", type=float, default=0)
    parser.add_argument("--file_system_poll_wait_seconds", type=float, default=1)
    parser.add_argument("--allow_version_labels_for_unavailable_models", **truth)
    parser.add_argument("--enable_batching", **truth)
    parser.add_argument("--batching_parameters_file", type=Path)
    parser.add_argument("--monitoring_config_file", type=Path)
    parser.add_argument("--ssl_config_file", type=Path)
    flags = parser.parse_args()
    flags.max_batch_size = 0
    if flags.enable_batching:
        limit = re.search(r"max_batch_size\s*\{\s*value:\s*(\d+)", flags.batching_parameters_file.read_text("utf-8"))
        flags.max_batch_size = int(limit[1]) if limit else 0
    return flags


def main() -> None:
    flags = read_flags()
    core = Core(flags)
    core.start()
    server = grpc.server(
        futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
    )
    services = GrpcServices(core)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(services, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(services, server)
    address = f"127.0.0.1:{flags.port}"
    if flags.ssl_config_file:
        server.add_secure_port(address, read_credentials(flags.ssl_config_file))
    else:
        server.add_insecure_port(address)
    server.start()
    log(f"Running gRPC ModelServer at {address} ...")
    if flags.rest_api_port:
        handler = type("Handler", (RestHandler,), {"core": core})
        rest = ThreadingHTTPServer(("127.0.0.1", flags.rest_api_port), handler)
        threading.Thread(target=rest.serve_forever, daemon=True).start()
        log(f"Exporting HTTP/REST API at:localhost:{flags.rest_api_port} ...")
    server.wait_for_termination()


if __name__ == "__main__":
    main()
