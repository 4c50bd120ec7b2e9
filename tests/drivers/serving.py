"""Starts the stand-in for TensorFlow Serving (model_server.py), and creates the files that TLS needs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from chain import environment
from servers import free_port, wait_for_port

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("model_server.py")


@dataclass(frozen=True)
class RunningModelServer:
    """The addresses of a running server, its process and the file of its log."""

    grpc: str
    rest: str
    process: subprocess.Popen[bytes]
    log: Path

    def read_log(self) -> str:
        return self.log.read_text("utf-8", errors="replace")


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
