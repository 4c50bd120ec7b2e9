"""Runs the chain in a scratch folder: starts the command, strikes it at a moment, and collects its outcome."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from chain import DATE, LUIGI, environment
from drill.moments import Moment, Recording, parse_recording
from drill.outcome import Outcome, collect_outcome
from drill.reader import Reader
from servers import PostgresqlServer
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

DRIVERS = Path(__file__).resolve().parents[1]
ARGUMENTS = ("--module", "pipeline", "ScoreBatch", "--date", DATE)
_RUN_TIMEOUT = 900  # seconds; a longer run counts as hanging


@dataclass(frozen=True)
class RunResult:
    """The end of a run.

    Attributes:
        code: exit code; negative for a signal, 124 for a run that was killed because it took too long.
        output: all output.
        seconds: duration of the run.
        seconds_after_strike: time from the strike to the end; None if the run was not struck.
    """

    code: int
    output: str
    seconds: float
    seconds_after_strike: float | None

    @property
    def last_line(self) -> str:
        return (self.output.rstrip().splitlines() or [""])[-1]


class Run:
    """A run in progress; its output goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, log: Path) -> None:
        self.process, self._output, self._log = process, output, log
        self._started_at = time.monotonic()

    def find_strike_time(self) -> float | None:
        """Returns when the run was struck, on the system's monotonic clock, or None if it was not yet."""
        for event in read_log(self._log):
            if "struck" in event:
                return float(event["at"])
        return None

    def wait_for_moment(self) -> bool:
        """Waits until the run is struck; returns False if it ended before."""
        while self.find_strike_time() is None:
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        return True

    def signal(self, number: int) -> None:
        """Sends a signal to all processes of the run."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self, timeout: float = _RUN_TIMEOUT) -> RunResult:
        """Waits for the end of the run; kills it after the timeout, with exit code 124."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = 124
        now = time.monotonic()
        self.signal(signal.SIGKILL)
        self.process.wait()
        struck_at = self.find_strike_time()
        output = self._output.read_text(encoding="utf-8", errors="replace")
        return RunResult(code, output, now - self._started_at, None if struck_at is None else now - struck_at)


class Workspace:
    """A working folder, a database and a reader, in which runs are disturbed.

    Attributes:
        base: scratch folder; `folder` in it is the working folder of the runs.
        url: URL of the database.
        reader: polls the published scores.
        server: the PostgreSQL server of the database; None for SQLite.
        mounted: whether the working folder is a file system of its own.
        scheduler: the process of luigid, if a fault has started it.
    """

    def __init__(self, base: Path, url: URL, reader: Reader, server: PostgresqlServer | None) -> None:
        self.base, self.url, self.reader, self.server = base, url, reader, server
        self.folder = base / "work"
        self.mounted = os.path.ismount(self.folder)
        self.scheduler: subprocess.Popen[bytes] | None = None
        self._runs = 0
        self._last: Run | None = None

    def start(self, moment: Moment | None = None, *, record: bool = False, **variables: str) -> Run:
        """Starts the command in a new process group.

        Args:
            moment: when and how to strike the run; None to leave it alone.
            record: write all events to the log instead of striking.
            variables: additional environment variables.
        """
        self._runs += 1
        output, log = self.base / f"output-{self._runs}", self.base / f"log-{self._runs}"
        command: list[str | Path] = [LUIGI]
        extra = {"SPAMSCORE_DATABASE_URL": self.url.render_as_string(hide_password=False)}
        if moment or record:
            command = [sys.executable, "-m", "drill.instrumented_luigi"]
            plan = {"root": str(self.folder), "log": str(log), "moment": asdict(moment) if moment else None}
            extra["DRILL_WATCH"] = json.dumps(plan)
        path = os.pathsep.join(filter(None, (str(DRIVERS), os.environ.get("PYTHONPATH"))))
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*command, *ARGUMENTS], cwd=self.folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env=environment(**{"TMPDIR": str(self.base / "tmp"), "PYTHONPATH": path, **extra, **variables}),
            )  # fmt: skip
        self._last = Run(process, output, log)
        return self._last

    def run(self, moment: Moment | None = None, *, record: bool = False, **variables: str) -> RunResult:
        """Runs the command until it ends or is killed."""
        return self.start(moment, record=record, **variables).wait()

    def list_processes(self) -> list[int]:
        """Returns the process ids of the latest run."""
        if self._last is None:
            return []
        parent = psutil.Process(self._last.process.pid)
        return [parent.pid, *(child.pid for child in parent.children(recursive=True))]

    def read_recording(self) -> Recording:
        """Reads the events that the latest run recorded."""
        return parse_recording(read_log(self.base / f"log-{self._runs}"))

    @contextlib.contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """Opens a connection to the database."""
        engine = sa.create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            yield connection

    def collect_outcome(self) -> Outcome:
        """Reads the current outcome."""
        with self.connection() as connection:
            return collect_outcome(connection, self.folder / "artifacts", self.base / "tmp")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Reads the complete lines that an instrumented run has written so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]
