"""The rows of the table, and the folder with the model that they measure."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        title: what is measured.
        values: figures, one for each run.
        aim: value that the median must reach; None for a figure without one.
        higher_is_better: whether it must be at least the aim, or at most.
        unit: of the figures; empty for a ratio.
    """

    title: str
    values: Sequence[float]
    aim: float | None
    higher_is_better: bool
    unit: str = ""

    @property
    def reached(self) -> bool:
        """Whether the median reaches the aim."""
        median = statistics.median(self.values)
        if self.aim is None:
            return True
        return median >= self.aim if self.higher_is_better else median <= self.aim


def table(rows: Sequence[Row]) -> list[str]:
    """Formats rows as a Markdown table."""
    head = ["| benchmark | median (least to most) | aim | |", "| --- | ---: | ---: | --- |"]
    return head + [_line(row) for row in rows]


def _line(row: Row) -> str:
    median, least, most = (
        _format(value) for value in (statistics.median(row.values), min(row.values), max(row.values))
    )
    aim = "" if row.aim is None else f"{'≥' if row.higher_is_better else '≤'} {row.aim:g} {row.unit}".rstrip()
    measured = f"**{median}** ({least} to {most}) {row.unit}".rstrip()
    result = "" if row.aim is None else "reached" if row.reached else "not reached"
    return f"| {row.title} | {measured} | {aim} | {result} |"


def _format(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Bench:
    """What the rows are measured with.

    Attributes:
        folder: working folder, in which the model is trained once.
        corpus: file SMSSpamCollection.
        runs: number of runs for each figure.
    """

    folder: Path
    corpus: Path
    runs: int

    def prepare(self) -> None:
        """Trains and exports a model with the default settings, unless the folder has one."""
        if next(self.folder.glob("artifacts/exports/*/*/saved_model.pb"), None):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = f"[corpus]\nsource = file\npath = {self.corpus}\nformat = sms\n"
        (self.folder / "luigi.cfg").write_text(settings, encoding="utf-8")
        self.run([str(BIN / "luigi"), "--module", "pipeline", "ExportModel"])

    @property
    def export(self) -> Path:
        """The SavedModel of the first version."""
        return next(self.folder.glob("artifacts/exports/*/1"))

    def job(self, script: str, *arguments: object) -> Any:
        """Runs a script of this folder in its own process, in the working folder; returns what it prints as JSON."""
        output = json.loads(self.run([sys.executable, str(HERE / script), *map(str, arguments)]))
        print(f"{script} {' '.join(map(str, arguments))}: done", file=sys.stderr, flush=True)
        return output

    def run(self, command: Sequence[str]) -> str:
        """Runs a command and returns its output. If it fails, the benchmark stops with what it printed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SPAMSCORE_")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        completed = subprocess.run(  # noqa: S603 - our own commands
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        if completed.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {completed.returncode}\n{completed.stderr}")
        return completed.stdout
