"""A run with Luigi's page beside it: luigid on loopback, the reports that it links to, and the run.

luigid keeps its state in a folder of its own, so that the page still shows yesterday's run when it is opened today.
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
_SECONDS_TO_START = 60
# Of luigid: a run stays on the page for a week, and what failed stays red.
_SETTINGS = """\
[scheduler]
remove_delay = 604800
retry_delay = -1
"""


@contextlib.contextmanager
def luigid(folder: Path, port: int) -> Iterator[str]:
    """Runs luigid on loopback while the block lasts, and gives its address.

    Args:
        folder: takes its state, its settings and its log; nobody else may read there.
        port: to listen on; 0 takes one that is free.

    Raises:
        InputError: something listens on the port already.
        SchedulerError: luigid does not start.
    """
    port = _free(port)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "luigid.cfg").write_text(_SETTINGS, encoding="utf-8")
    command = [_program("luigid"), "--address", "127.0.0.1", "--port", str(port)]
    with open(folder / "luigid.log", "ab") as log:
        process = subprocess.Popen(  # noqa: S603 - the program beside this one
            [*command, "--state-path", "state.pickle"],
            cwd=folder,
            env={**os.environ, "LUIGI_CONFIG_PATH": "luigid.cfg"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # ^C is ours: it writes its state when it is told to end.
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(process, url, folder / "luigid.log")
        yield url
    finally:
        process.terminate()
        process.wait()


def _program(name: str) -> str:
    """The path of a command that was installed beside this one."""
    return str(Path(sys.executable).with_name(name))


def _free(port: int) -> int:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"--port {port}: {error.strerror}: perhaps another luigid runs there. Open its page, or choose another "
                "port; --port 0 takes one that is free."
            ) from None
        return int(one.getsockname()[1])


def _wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    with requests.Session() as session:
        session.trust_env = False  # no proxy stands between this machine and itself
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(requests.ConnectionError):
                session.get(url, timeout=_SECONDS_TO_START)
                return
            time.sleep(0.1)
    raise SchedulerError(f"luigid did not start: see {log.absolute()}.")


@contextlib.contextmanager
def watched_run(url: str, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a task of the pipeline with luigid, and what it links to, while the block lasts.

    Args:
        url: of luigid.
        arguments: of ``luigi --module pipeline``, the task's name first.
    """
    with serve_reports(artifacts_folder()) as reports:
        command = [_program("luigi"), "--module", "pipeline", *arguments]
        process = subprocess.Popen(  # noqa: S603 - as above
            [*command, "--run-artifacts-url", reports],
            env={**os.environ, LUIGID_VARIABLE: url},
            # ^C is ours: the run is to end at a place from which the next one goes on.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait()


def watch_folder() -> Path:
    """Where luigid keeps its state."""
    return artifacts_folder() / "watch"
