"""Builds the report of a drill: a row for each database and kind of fault, and the totals."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from drill.outcome import Verdict
from rich.console import Console
from rich.table import Table

HEAD = ("database", "fault", "times", "rows lost", "doubled", "wrong readings", "readings", "weights", "strays", "exit")
_JSON_NAMES = {"last_line": "said", "problems": "wrong"}  # fields that have another name in the JSON report


@dataclass
class Row:
    """A kind of fault on one database, over all of its injections.

    Attributes:
        times: number of injections.
        runs: number of commands run, including reruns.
        exits: distinct exit codes of the runs with the fault.
        last_line: last output line of the latest run with the fault.
        problems: deviations from the expected result, one line each.
    """

    database: str
    fault: str
    times: int = 0
    runs: int = 0
    lost: int = 0
    doubled: int = 0
    wrong_readings: int = 0
    readings: int = 0
    weights_equal: bool = True
    strays: int = 0
    exits: list[int] = field(default_factory=list)
    last_line: str = ""
    problems: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Adds the verdict on a workspace after its faults are gone."""
        self.lost += verdict.lost
        self.doubled += verdict.doubled
        self.wrong_readings += verdict.wrong
        self.readings += verdict.readings
        self.weights_equal = self.weights_equal and verdict.weights_equal
        self.strays += len(verdict.strays)
        self.problems += [f"stray: {path}" for path in verdict.strays] + verdict.differences
        if verdict.lost or verdict.doubled or not verdict.weights_equal:
            weights = "equal" if verdict.weights_equal else "differ"
            self.problems.append(f"{verdict.lost} rows lost, {verdict.doubled} doubled, weights {weights}")

    def add_exit(self, code: int, last_line: str) -> None:
        """Adds the exit code and the last line of a run with the fault."""
        self.last_line = last_line
        if code not in self.exits:
            self.exits.append(code)

    @property
    def good(self) -> bool:
        """Returns whether the fault was injected and there was no problem."""
        return not self.problems and self.times > 0

    def format_cells(self) -> tuple[str, ...]:
        """Formats the cells of the table row, in the order of `HEAD`."""
        weights = "equal" if self.weights_equal else "DIFFER"
        numbers = (self.times, self.lost, self.doubled, self.wrong_readings, self.readings)
        exits = ", ".join(map(str, self.exits))
        return (self.database, self.fault, *map(str, numbers), weights, str(self.strays), exits)

    def to_dict(self) -> dict[str, Any]:
        """Returns the row under the names of the JSON report."""
        return {_JSON_NAMES.get(name, name): value for name, value in asdict(self).items()}


@dataclass
class Report:
    """All rows of a drill, its seed, and the faults that could not be injected."""

    seed: int
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def totals(self) -> dict[str, int]:
        """Returns the sums over all rows."""
        killed = [row for row in self.rows if row.fault.startswith("SIGKILL")]
        sums = {"moments killed": sum(row.times for row in killed)}
        sums["faults injected"] = sum(row.times for row in self.rows)
        sums["inputs tried"] = sum(row.runs for row in self.rows)
        for name, key in (("rows lost", "lost"), ("rows doubled", "doubled"), ("wrong readings", "wrong_readings")):
            sums[name] = sum(getattr(row, key) for row in self.rows)
        return {**sums, "readings": sum(row.readings for row in self.rows)}

    @property
    def good(self) -> bool:
        """Returns whether every fault was injected and there was no problem."""
        return bool(self.rows) and all(row.good for row in self.rows)

    def format_lines(self) -> list[str]:
        """Formats the lines below the table: last lines, skipped faults, problems, totals and seed."""
        last_lines = [
            f"{row.database}, {row.fault}: {row.last_line}" for row in self.rows if not row.fault.startswith("SIGKILL")
        ]
        skipped = [f"skipped: {reason}" for reason in self.skipped]
        problems = [
            f"WRONG: {row.database}, {row.fault}: {problem}"
            for row in self.rows
            for problem in sorted(set(row.problems))
        ]
        missing = [f"WRONG: {row.database}, {row.fault}: not injected" for row in self.rows if not row.times]
        sums = ", ".join(f"{name} {number:,}" for name, number in self.totals().items())
        return ["last line with each fault:", *last_lines, *skipped, *problems, *missing, f"{sums}; seed {self.seed}"]

    def print(self) -> None:
        """Prints the table and the lines below it; 160 columns wide if the output is not a terminal."""
        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
        table = Table(*HEAD)
        for row in self.rows:
            table.add_row(*row.format_cells(), style="" if row.good else "red")
        console.print(table)
        for line in self.format_lines():
            console.out(line, highlight=False)

    def write(self, path: Path) -> None:
        """Writes the report as Markdown if the file name ends in .md, otherwise as JSON."""
        if path.suffix == ".md":
            lines = [
                _format_markdown_row(HEAD),
                _format_markdown_row(["---"] * len(HEAD)),
                *(_format_markdown_row(row.format_cells()) for row in self.rows),
                "",
            ]
            text = "\n".join([*lines, *(f"{line}  " for line in self.format_lines())])
        else:
            content = {"seed": self.seed, "totals": self.totals(), "rows": [row.to_dict() for row in self.rows]}
            text = json.dumps({**content, "left_out": self.skipped, "good": self.good}, indent=2)
        path.write_text(text + "\n", encoding="utf-8")


def _format_markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
