"""Runs Python commands in forks of a process that has already imported TensorFlow and other heavy packages.

In a new process the imports take longer than the stages need for the few rows of a test. The command itself imports
Luigi and the packages of this project, so that settings are read as usual.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Third-party packages, and modules of this project that compute: none of them reads the working folder, the arguments
# or the settings. Luigi does.
_PRELOADED = (
    "tensorflow", "keras", "pandas", "pyarrow.dataset", "pyarrow.parquet", "scipy.optimize", "sklearn.metrics",
    "matplotlib.figure", "sqlalchemy.dialects.mysql.pymysql", "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite", "numba", "jsonschema", "requests", "rich.progress", "tenacity.tornadoweb",
    "models.inference.scorer", "models.trained_model.loading", "models.training.loop",
)  # fmt: skip


def run(script: Path, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Runs a Python script in a folder, as if started there, and returns its exit code and its output."""
    with tempfile.TemporaryFile() as output:
        job = {"argv": [str(script), *arguments], "cwd": str(folder), "environment": environment, "umask": _umask()}
        code = _fork_server().run_job({**job, "output": f"/proc/{os.getpid()}/fd/{output.fileno()}"})
        output.seek(0)
        return code, output.read().decode()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@functools.cache
def _fork_server() -> _ForkServer:
    return _ForkServer()


class _ForkServer:
    """The process that is forked for each command; it ends with this process."""

    def __init__(self) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - stays open until this process ends
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            bufsize=1, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        atexit.register(self.close)

    def run_job(self, job: dict[str, Any]) -> int:
        """Runs one command and returns its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        if not (answer := self.process.stdout.readline()):
            self.errors.seek(0)
            raise RuntimeError(self.errors.read().decode(errors="replace"))
        return int(answer)

    def close(self) -> None:
        self.process.communicate()
        self.errors.close()


def serve() -> dict[str, Any] | None:
    """Forks for each job and prints its exit code; returns the job in the fork, and None after the last job."""
    for line in sys.stdin:
        job: dict[str, Any] = json.loads(line)
        if (pid := os.fork()) == 0:
            return job
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def set_up_process(job: dict[str, Any]) -> None:
    """Sets folder, umask, environment, output and arguments, as in a process that was started for the job."""
    os.chdir(job["cwd"])
    os.umask(job["umask"])
    os.environ.clear()
    os.environ.update(job["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null, output = os.open(os.devnull, os.O_RDONLY), os.open(job["output"], os.O_WRONLY | os.O_APPEND)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    sys.argv[:] = job["argv"]
    sys.path[0] = str(Path(job["argv"][0]).parent)


if __name__ == "__main__":
    for name in _PRELOADED:
        importlib.import_module(name)
    importlib.import_module("models.text.lookalikes").folding_table()
    importlib.import_module("numba").njit(lambda: None)()  # starts the compiler
    gc.freeze()  # otherwise the garbage collector of each fork would copy all of this memory
    if job := serve():
        set_up_process(job)
        runpy.run_path(job["argv"][0], run_name="__main__")
