"""Model servers for tests: the stand-in for TensorFlow Serving (model_server.py), and one that follows a script."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chain import environment
from servers import free_port, wait_for_port

from pipeline.client.protocol import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    grpc,
    predict_pb2,
    types_pb2,
)

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("model_server.py")


def read_flags(exports: str) -> list[str]:
    """Returns the flags that deploy/serving/serve.sh gives TensorFlow Serving for a folder of exports."""
    script = (ROOT / "deploy" / "serving" / "serve.sh").read_text(encoding="utf-8")
    flags = re.findall(r'^ +"(--[^"]+)"', script, re.MULTILINE)
    assert len(flags) == 8
    return [flag.replace("$1", exports).replace("$poll", "5") for flag in flags]


@dataclass(frozen=True)
class RunningModelServer:
    """The addresses of a running server, its process and the file of its log."""

    grpc: str
    rest: str
    process: subprocess.Popen[bytes]
    log: Path

    def read_log(self) -> str:
        """Returns the end of the log."""
        return self.log.read_text("utf-8", errors="replace")[-4000:]


@contextlib.contextmanager
def model_server(exports: Path, *flags: str, poll_seconds: float = 0.2, port: int = 0) -> Iterator[RunningModelServer]:
    """Runs the server on the exports of a model, with the flags of deploy/serving, and stops it at the end.

    Args:
        exports: folder with `models.config`.
        flags: more flags.
        poll_seconds: seconds between two polls of `models.config`, and of the folders.
        port: port for gRPC; 0 for any.
    """
    port, rest_port = port or free_port(), free_port()
    command = [
        sys.executable, PROGRAM, f"--port={port}", f"--rest_api_port={rest_port}",
        f"--model_config_file={exports / 'models.config'}", f"--model_config_file_poll_wait_seconds={poll_seconds}",
        f"--file_system_poll_wait_seconds={poll_seconds}", "--allow_version_labels_for_unavailable_models=true",
        "--enable_batching=true", f"--batching_parameters_file={exports / 'batching.config'}", *flags,
    ]  # fmt: skip
    variables = environment(PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0")
    with tempfile.TemporaryDirectory(prefix="spamscore-serving-") as folder:
        path = Path(folder, "log")
        with open(path, "wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=variables) as process:
            try:
                wait_for_port(rest_port, process, path)
                yield RunningModelServer(f"127.0.0.1:{port}", f"127.0.0.1:{rest_port}", process, path)
            finally:
                process.kill()


class ScriptedServer:
    """Services of TensorFlow Serving in this process, which answer as a test says.

    Attributes:
        answer: takes the name of the call, the request and its context, and returns the response. By default, every
            message has the probability 0.25 by version 7.
        calls: names of the calls that arrived, and their metadata.
    """

    def __init__(self) -> None:
        self.answer: Callable[[str, Any, Any], Any] = answer_quarter
        self.calls: list[tuple[str, dict[str, str]]] = []

    def handle(self, name: str) -> Callable[[Any, Any], Any]:
        def handler(request: Any, context: Any) -> Any:
            self.calls.append((name, dict(context.invocation_metadata())))
            return self.answer(name, request, context)

        return handler


def answer_quarter(name: str, request: Any, _context: Any) -> Any:
    """Answers 0.25 for each message."""
    if name == "Classify":
        response = classification_pb2.ClassificationResponse()
        for _ in request.input.example_list.examples:
            classes = response.result.classifications.add().classes
            classes.add(label="ham", score=0.75)
            classes.add(label="spam", score=0.25)
    elif name == "Predict":
        response = predict_pb2.PredictResponse()
        scores = response.outputs["scores"]
        count = len(request.inputs["texts"].string_val)
        scores.dtype, scores.float_val[:] = types_pb2.DT_FLOAT, [0.25] * count
        scores.tensor_shape.dim.add(size=count)
    elif name == "GetModelStatus":
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state in ((9, 20), (7, 30)):
            response.model_version_status.add(version=version, state=state)
        return response
    else:
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        signature = signatures.signature_def["predict_spam"]
        signature.inputs["texts"].name, signature.outputs["scores"].name = "t:0", "s:0"
        response.metadata["signature_def"].Pack(signatures)
    response.model_spec.name, response.model_spec.version.value = "spam_ham", 7
    return response


@contextlib.contextmanager
def scripted_server(port: int = 0, credentials: Any = None) -> Iterator[tuple[ScriptedServer, str]]:
    """Starts a scripted server on loopback and yields it with its address; stops it at the end."""
    scripted = ScriptedServer()
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    for package, names in (
        ("PredictionService", ("Predict", "Classify", "GetModelMetadata")),
        ("ModelService", ("GetModelStatus",)),
    ):
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                scripted.handle(name), _REQUESTS[name].FromString, lambda response: response.SerializeToString()
            )
            for name in names
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"tensorflow.serving.{package}", handlers),)
        )
    address = f"127.0.0.1:{port}"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield scripted, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


_REQUESTS = {
    "Predict": predict_pb2.PredictRequest,
    "Classify": classification_pb2.ClassificationRequest,
    "GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
}


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority; a server for 127.0.0.1 and a client that it signed; and another authority."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    other_authority: Path

    def server_credentials(self, mutual: bool) -> Any:
        return grpc.ssl_server_credentials(
            [(self.server_key.read_bytes(), self.server.read_bytes())],
            root_certificates=self.authority.read_bytes() if mutual else None,
            require_client_auth=mutual,
        )


def create_certificates(folder: Path) -> Certificates:
    """Creates keys and certificates, valid for a day."""
    for name in ("authority", "other"):
        _openssl(
            folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem",
        )  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        _openssl(
            folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        _openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "authority.pem", "-CAkey", "authority.key",
            "-CAcreateserial", "-days", "1", "-extfile", "names", "-out", f"{name}.pem",
        )  # fmt: skip
    names = ("authority.pem", "server.pem", "server.key", "client.pem", "client.key", "other.pem")
    return Certificates(*(folder / name for name in names))


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
