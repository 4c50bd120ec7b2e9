"""Runs a task together with luigid, on loopback, and with the reports that luigid's page links to.

luigid keeps its state in its own folder, so that its page still shows yesterday's run when it is opened today.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests

from models.errors import InputError, SchedulerError
from pipeline.watch.reports_server import serve_reports
from tasks.artifacts.locations import artifacts_folder
from tasks.scheduler.luigi_defaults import LUIGID_VARIABLE

PAGE = "/static/visualiser/index.html"
_START_TIMEOUT_SECONDS = 60
# luigid's settings: a run stays on the page for a week, and a failed task stays red.
_LUIGID_CFG = """\
[scheduler]
remove_delay = 604800
retry_delay = -1
"""


@contextlib.contextmanager
def run_luigid(folder: Path, port: int) -> Iterator[str]:
    """Runs luigid on loopback inside the `with` block, and yields its URL.

    Args:
        folder: the folder of its state, settings and log; only the current user can read it.
        port: the port to listen on; 0 takes a free one.

    Raises:
        InputError: the port is in use.
        SchedulerError: luigid does not start.
    """
    port = _find_port(port)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "luigid.cfg").write_text(_LUIGID_CFG, encoding="utf-8")
    command = [_find_program("luigid"), "--address", "127.0.0.1", "--port", str(port)]
    with open(folder / "luigid.log", "ab") as log:
        process = subprocess.Popen(  # noqa: S603 - the program of this environment
            [*command, "--state-path", "state.pickle"],
            cwd=folder,
            env={**os.environ, "LUIGI_CONFIG_PATH": "luigid.cfg"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # ^C must not reach luigid: it writes its state when it is terminated below.
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url, folder / "luigid.log")
        yield url
    finally:
        process.terminate()
        process.wait()


def _find_program(name: str) -> str:
    """Returns the path of a command that is installed in this Python environment."""
    return str(Path(sys.executable).with_name(name))


def _find_port(port: int) -> int:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"--port {port}: {error.strerror}. Another luigid may be running there: open its page, or choose "
                "another port. --port 0 takes a free one."
            ) from None
        return int(listener.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    with requests.Session() as session:
        session.trust_env = False  # a connection to loopback must not go through a proxy
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                session.get(url, timeout=_START_TIMEOUT_SECONDS)
                return
            time.sleep(0.1)
    raise SchedulerError(f"luigid did not start: see {log.absolute()}.")


@contextlib.contextmanager
def run_task(url: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a task of the pipeline with luigid inside the `with` block, and serves the reports that its page links to.

    Args:
        url: URL of luigid.
        arguments: arguments of ``luigi --module pipeline``, starting with the name of the task.
    """
    with serve_reports(artifacts_folder()) as reports_url:
        command = [_find_program("luigi"), "--module", "pipeline", *arguments]
        process = subprocess.Popen(  # noqa: S603 - as above
            [*command, "--run-artifacts-url", reports_url],
            env={**os.environ, LUIGID_VARIABLE: url},
            # ^C must not reach the run: it gets a SIGTERM below, and stops where the next run can resume.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait()


def luigid_folder() -> Path:
    """Returns the folder in which luigid keeps its state."""
    return artifacts_folder() / "watch"
