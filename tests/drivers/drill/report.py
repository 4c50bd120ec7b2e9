"""What a drill found: a row for each database and kind of fault, and the sums."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from drill.scene import Verdict
from rich.console import Console
from rich.table import Table

HEAD = ("database", "fault", "times", "rows lost", "doubled", "wrong readings", "readings", "weights", "strays", "exit")


@dataclass
class Row:
    """A kind of fault on one database, over all the times it was injected.

    Attributes:
        times: how often it was injected.
        runs: commands given for it, reruns included.
        exits: exit codes of the runs under it, each once.
        said: the last line printed by the last run under it.
        wrong: what was not as it must be, one line each.
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
    said: str = ""
    wrong: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Takes in what a folder came to after the faults were gone."""
        self.lost += verdict.lost
        self.doubled += verdict.doubled
        self.wrong_readings += verdict.wrong
        self.readings += verdict.readings
        self.weights_equal = self.weights_equal and verdict.weights_equal
        self.strays += len(verdict.strays)
        self.wrong += [f"stray: {one}" for one in verdict.strays] + verdict.differences
        if verdict.lost or verdict.doubled or not verdict.weights_equal:
            weights = "equal" if verdict.weights_equal else "differ"
            self.wrong.append(f"{verdict.lost} rows lost, {verdict.doubled} doubled, weights {weights}")

    def left(self, code: int, last_line: str) -> None:
        """Takes note of how a run ended under the fault."""
        self.said = last_line
        if code not in self.exits:
            self.exits.append(code)

    @property
    def good(self) -> bool:
        return not self.wrong and self.times > 0

    def cells(self) -> tuple[str, ...]:
        weights = "equal" if self.weights_equal else "DIFFER"
        numbers = (self.times, self.lost, self.doubled, self.wrong_readings, self.readings)
        exits = ", ".join(map(str, self.exits))
        return (self.database, self.fault, *map(str, numbers), weights, str(self.strays), exits)


@dataclass
class Report:
    """All rows of a drill, and its seed."""

    seed: int
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def totals(self) -> dict[str, int]:
        """The sums over all rows."""
        killed = [row for row in self.rows if row.fault.startswith("SIGKILL")]
        sums = {"moments killed": sum(row.times for row in killed)}
        sums["faults injected"] = sum(row.times for row in self.rows)
        sums["inputs tried"] = sum(row.runs for row in self.rows)
        for name, key in (("rows lost", "lost"), ("rows doubled", "doubled"), ("wrong readings", "wrong_readings")):
            sums[name] = sum(getattr(row, key) for row in self.rows)
        return {**sums, "readings": sum(row.readings for row in self.rows)}

    @property
    def good(self) -> bool:
        """Whether every fault was injected, and nothing was wrong after any."""
        return bool(self.rows) and all(row.good for row in self.rows)

    def lines(self) -> list[str]:
        """What goes below the table."""
        said = [f"{row.database}, {row.fault}: {row.said}" for row in self.rows if not row.fault.startswith("SIGKILL")]
        wrong = [f"WRONG: {row.database}, {row.fault}: {one}" for row in self.rows for one in sorted(set(row.wrong))]
        never = [f"WRONG: {row.database}, {row.fault}: not injected" for row in self.rows if not row.times]
        sums = ", ".join(f"{name} {number:,}" for name, number in self.totals().items())
        left_out = [f"not run: {one}" for one in self.left_out]
        return ["last line under each fault:", *said, *left_out, *wrong, *never, f"{sums}; seed {self.seed}"]

    def show(self) -> None:
        """The table, on lines of its own where nobody watches."""
        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
        table = Table(*HEAD)
        for row in self.rows:
            table.add_row(*row.cells(), style="" if row.good else "red")
        console.print(table)
        for line in self.lines():
            console.out(line, highlight=False)

    def write(self, path: Path) -> None:
        """As JSON or, under a name that ends in .md, as Markdown."""
        if path.suffix == ".md":
            lines = [_line(HEAD), _line(["---"] * len(HEAD)), *(_line(row.cells()) for row in self.rows), ""]
            text = "\n".join([*lines, *(f"{line}  " for line in self.lines())])
        else:
            content = {"seed": self.seed, "totals": self.totals(), "rows": [asdict(row) for row in self.rows]}
            text = json.dumps({**content, "left_out": self.left_out, "good": self.good}, indent=2)
        path.write_text(text + "\n", encoding="utf-8")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
