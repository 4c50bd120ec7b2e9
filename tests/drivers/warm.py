"""Starts Python commands warm: each in a fork of a process that has imported TensorFlow and its like once.

A chain imports TensorFlow in one process for each of its stages, which takes longer than what they do with the little
that a test gives them. Luigi, and everything of ours, is imported by the command, which finds its settings as ever.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# All of them third parties, of which none looks at a working folder, an argument or a setting of ours.
_IMPORTED = (
    "tensorflow", "keras", "pandas", "pyarrow.parquet", "scipy.optimize", "sklearn.metrics", "matplotlib.figure",
    "sqlalchemy", "numba",
)  # fmt: skip


def run(script: Path, arguments: tuple[str, ...], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Runs a Python script in a folder as if it was started there, waits for it, gives its exit code and its output."""
    with tempfile.TemporaryFile() as output:
        job = {"argv": [str(script), *arguments], "cwd": str(folder), "environment": environment, "umask": _umask()}
        code = _forks().ask({**job, "output": f"/proc/{os.getpid()}/fd/{output.fileno()}"})
        output.seek(0)
        return code, output.read().decode()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@functools.cache
def _forks() -> _Forks:
    return _Forks()


class _Forks:
    """The process that is forked; it ends with this one."""

    def __init__(self) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this process lives
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            bufsize=1, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        atexit.register(self.end)

    def ask(self, job: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        if not (answer := self.process.stdout.readline()):
            self.errors.seek(0)
            raise RuntimeError(self.errors.read().decode(errors="replace"))
        return int(answer)

    def end(self) -> None:
        self.process.communicate()
        self.errors.close()


def serve() -> dict[str, Any] | None:
    """Forks for each job and answers with its exit code; returns in the fork with the job, and at the end with none."""
    for line in sys.stdin:
        job: dict[str, Any] = json.loads(line)
        if (pid := os.fork()) == 0:
            return job
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def become(job: dict[str, Any]) -> None:
    """Makes this process what one is that was started for the job."""
    os.chdir(job["cwd"])
    os.umask(job["umask"])
    os.environ.clear()
    os.environ.update(job["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(job["output"], os.O_WRONLY | os.O_APPEND)
    for given, place in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(given, place)
    sys.argv[:] = job["argv"]
    sys.path[0] = str(Path(job["argv"][0]).parent)


if __name__ == "__main__":
    for name in _IMPORTED:
        __import__(name)
    gc.freeze()  # so that no fork copies all of it to look for what is not needed any more
    if found := serve():
        become(found)
        runpy.run_path(found["argv"][0], run_name="__main__")
