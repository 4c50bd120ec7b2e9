"""Runs the real `luigi` command in the working folder of a test, and reads its results."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import warm
from missing import skip_or_fail

LUIGI = Path(sys.executable).with_name("luigi")
STAGES = (
    "IngestCorpus", "CleanText", "BuildVocabulary", "TrainModel", "EvaluateModel", "ExportModel", "ExtractMessages",
    "ScoreBatch",
)  # fmt: skip
# Small enough to train in seconds; everything else as shipped.
SMALL = {
    "network": {
        "embedding_size": "8", "rnn_units": "8", "bidirectional": "false", "ngram_buckets": "4096",
        "ngram_vectors": "4096",
    },
    "training": {
        "epochs": "4", "learning_rate": "0.02", "batch_size": "32", "augmentation": "0", "held_out_folds": "0",
        "processes": "1",
    },
}  # fmt: skip
DATE = "2026-01-31"

Settings = dict[str, dict[str, str]]


class RunningCommand:
    """A command that was started in a folder, with its output in the file ``output`` there."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder, self.process = folder, process

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text("utf-8")


@dataclass(frozen=True)
class CommandResult:
    """The exit code of a command and all of its output."""

    code: int
    output: str

    @property
    def last_line(self) -> str:
        return self.output.rstrip().splitlines()[-1]

    @property
    def ran(self) -> set[str]:
        """Stages that this run completed."""
        return {stage for stage in STAGES if f"done      {stage}(" in self.output}


def format_settings(settings: Settings) -> str:
    """Returns the text of a luigi.cfg."""
    lines = [line for section, keys in settings.items() for line in
             (f"[{section}]", *(f"{key} = {value}" for key, value in keys.items()))]  # fmt: skip
    return "\n".join(lines) + "\n"


def write_settings(folder: Path, settings: Settings) -> None:
    """Writes luigi.cfg into a folder."""
    (folder / "luigi.cfg").write_text(format_settings(settings), encoding="utf-8")


def environment(**extra: str) -> dict[str, str]:
    """Returns the environment of this process without settings of Luigi and spamscore, plus the given variables."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("LUIGI", "SPAMSCORE_"))}
    return {**inherited, **extra}


def luigi(folder: Path, *arguments: str, **variables: str) -> CommandResult:
    """Runs the command in a fork that has already imported TensorFlow: as `luigi_cold`, but faster."""
    return CommandResult(*warm.run(LUIGI, ("--module", "pipeline", *arguments), folder, environment(**variables)))


def luigi_cold(folder: Path, *arguments: str, **variables: str) -> CommandResult:
    """Runs the command in a new process, as a user does."""
    command = [LUIGI, "--module", "pipeline", *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=folder, env=environment(**variables), check=False, **output)
    return CommandResult(done.returncode, done.stdout)


def luigi_at(moment: str, folder: Path, *arguments: str) -> CommandResult:
    """Runs the command in a new process whose clock starts at a time, in UTC: ``2026-01-31 10:00:00``."""
    if shutil.which("faketime") is None:
        message = "skipped: faketime is not installed (apt-get install faketime)"
        skip_or_fail(message)
    # TensorFlow waits by the monotonic clock.
    command = ["faketime", "--exclude-monotonic", "-f", f"@{moment}", LUIGI, "--module", "pipeline", *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=folder, env=environment(TZ="UTC"), check=False, **output)
    return CommandResult(done.returncode, done.stdout)


def merge_settings(*settings: Settings) -> Settings:
    """Merges settings key by key; a later value replaces an earlier one."""
    merged: Settings = {}
    for sections in settings:
        for section, values in sections.items():
            merged.setdefault(section, {}).update(values)
    return merged


def query(folder: Path, statement: str) -> list[tuple[object, ...]]:
    """Returns the rows of a SELECT on the SQLite database of a folder."""
    with sqlite3.connect(folder / "spamscore.db") as connection:
        rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


def count_committed_chunks(folder: Path) -> int:
    """Counts the committed chunks; 0 if the database or the table does not exist yet."""
    try:
        return int(str(query(folder, "select count(*) from batch_chunks")[0][0]))
    except sqlite3.OperationalError:
        return 0


def start_command(folder: Path, arguments: tuple[str, ...], output: int) -> subprocess.Popen[str]:
    """Starts the command in a new process group."""
    return subprocess.Popen(
        [LUIGI, "--module", "pipeline", *arguments], cwd=folder, env=environment(),
        stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_until(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    """Waits until `ready` returns true, and checks that the command still runs then.

    Polls more often than `eventually`: the next chunk is committed, or the run ends, within a fraction of a second.
    """
    while process.poll() is None and not ready():
        time.sleep(0.01)
    assert process.poll() is None, "the command ended before the test could interrupt it"


@contextlib.contextmanager
def kill_group_on_exit(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Kills the process group of a command when the block ends, also after an error."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def kill_when(folder: Path, arguments: tuple[str, ...], ready: Callable[[], bool]) -> None:
    """Starts the command and kills its process group once `ready` returns true."""
    process = start_command(folder, arguments, subprocess.DEVNULL)
    with kill_group_on_exit(process):
        wait_until(process, ready)


def terminate_when(folder: Path, arguments: tuple[str, ...], ready: Callable[[], bool]) -> CommandResult:
    """Starts the command, sends SIGTERM to its parent process once `ready` returns true, and waits for its end."""
    process = start_command(folder, arguments, subprocess.PIPE)
    with kill_group_on_exit(process):
        wait_until(process, ready)
        process.terminate()
        output, _ = process.communicate(timeout=60)
    return CommandResult(process.returncode, output)
