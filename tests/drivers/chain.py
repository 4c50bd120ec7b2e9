"""Drives the real `luigi` command in a folder of a test's own, and reads what it left."""

from __future__ import annotations

import contextlib
import os
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

LUIGI = Path(sys.executable).with_name("luigi")
STAGES = (
    "IngestCorpus", "CleanText", "BuildVocabulary", "TrainModel", "EvaluateModel", "ExportModel", "ExtractMessages",
    "ScoreBatch",
)  # fmt: skip
# Small enough to train in seconds; everything else as shipped.
SMALL = {
    "network": {"embedding_size": "8", "rnn_units": "8", "bidirectional": "false", "ngram_buckets": "4096"},
    "training": {
        "epochs": "4", "learning_rate": "0.02", "batch_size": "32", "augmentation": "0", "held_out_folds": "0",
    },
}  # fmt: skip
DATE = "2026-01-31"

Settings = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and all that it printed."""

    code: int
    output: str

    @property
    def last_line(self) -> str:
        return self.output.rstrip().splitlines()[-1]

    @property
    def ran(self) -> set[str]:
        """Stages that ran to their end in this run."""
        return {stage for stage in STAGES if f"done      {stage}(" in self.output}


def write_settings(folder: Path, settings: Settings) -> None:
    lines = [line for section, keys in settings.items() for line in
             (f"[{section}]", *(f"{key} = {value}" for key, value in keys.items()))]  # fmt: skip
    (folder / "luigi.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")


def environment(**extra: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LUIGI", "SPAMSCORE_"))}
    return {**kept, **extra}


def luigi(folder: Path, *arguments: str, **variables: str) -> Done:
    """Runs the command with TensorFlow imported already, for all but the time the same as `luigi_cold`."""
    return Done(*warm.run(LUIGI, ("--module", "pipeline", *arguments), folder, environment(**variables)))


def luigi_cold(folder: Path, *arguments: str, **variables: str) -> Done:
    """Runs the command in a process of its own, as a person does."""
    command = [LUIGI, "--module", "pipeline", *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=folder, env=environment(**variables), check=False, **output)
    return Done(done.returncode, done.stdout)


def merged(*settings: Settings) -> Settings:
    sections = {section for one in settings for section in one}
    return {section: {k: v for one in settings for k, v in one.get(section, {}).items()} for section in sections}


def query(folder: Path, statement: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / "spamscore.db") as connection:
        rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


def chunks_there(folder: Path) -> int:
    """Chunks that are committed; none while there is no database or no table yet."""
    try:
        return int(str(query(folder, "select count(*) from batch_chunks")[0][0]))
    except sqlite3.OperationalError:
        return 0


def started(folder: Path, arguments: tuple[str, ...], output: int) -> subprocess.Popen[str]:
    """Starts the command in a process group of its own."""
    return subprocess.Popen(
        [LUIGI, "--module", "pipeline", *arguments], cwd=folder, env=environment(),
        stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_until(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    while process.poll() is None and not ready():
        time.sleep(0.01)
    assert process.poll() is None, "the command ended before anything could be done to it"


@contextlib.contextmanager
def ended_with_its_group(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Leaves nothing of a command behind, however the block ends."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def kill_when(folder: Path, arguments: tuple[str, ...], ready: Callable[[], bool]) -> None:
    """Starts the command and kills its whole group once something is so."""
    process = started(folder, arguments, subprocess.DEVNULL)
    with ended_with_its_group(process):
        wait_until(process, ready)


def end_when(folder: Path, arguments: tuple[str, ...], ready: Callable[[], bool]) -> Done:
    """Starts the command and sends SIGTERM to its parent process once something is so; waits for its end."""
    process = started(folder, arguments, subprocess.PIPE)
    with ended_with_its_group(process):
        wait_until(process, ready)
        process.terminate()
        output, _ = process.communicate(timeout=60)
    return Done(process.returncode, output)
