"""The rows of the table: runs the jobs, alternating between what is compared."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from measure import Bench, Figures, Row, compare_rates, rate

HERE = Path(__file__).parent
SCRIPT_MESSAGES = 100_000  # of the usual Spark script, which is much slower; its time per message is constant


class SparkBench:
    """Runs batches on the cluster and in one process.

    Args:
        bench: folder, corpus and number of runs.
        master: URL of the Spark master.
        database: URL of the PostgreSQL server.
        messages: messages of a batch.
        driver: path of the JDBC driver.
    """

    def __init__(self, bench: Bench, master: str, database: str, messages: int, driver: str) -> None:
        self._bench, self._master, self._database, self._driver = bench, master, database, driver
        self._messages = messages
        self._runs: dict[str, list[Figures]] = {}

    def rows(self) -> list[Row]:
        """Returns the rows that have a target."""
        bench, name = self._bench, self._bench.distinct(self._messages)
        bench.distinct(1_000)  # the small batch that loads the model
        for _ in range(bench.runs):
            for job in ("local", "one", "two"):
                self._run(job, name)
        local, one, two = (self._runs[job] for job in ("local", "one", "two"))
        rows = [
            compare_rates(
                "one executor of one core, against the local engine on one thread",
                list(zip(one, local, strict=True)),
                0.9,
            ),
            compare_rates("two executors of one core, against one", list(zip(two, one, strict=True)), 1.8),
        ]
        for _ in range(bench.runs):
            self._run("script", bench.distinct(SCRIPT_MESSAGES))
        script = self._runs["script"]
        title = "two executors, against `mapInPandas` with the SavedModel and `df.write.jdbc` on the same cluster"
        rows.append(compare_rates(title, list(zip(two, script, strict=True)), 3.0))
        return rows if self._bench.max_messages <= self._messages else [*rows, *self._large(name)]

    def _large(self, name: str) -> list[Row]:
        largest = self._bench.max_messages
        large_name = self._bench.distinct(largest)
        pairs = [
            (self._run("two", large_name, "large"), self._run("two", name, "small")) for _ in range(self._bench.runs)
        ]
        title = f"{largest:,} messages against {self._messages:,}"
        times = [[1e6 / rate(pair[side]) for pair in pairs] for side in (0, 1)]
        memory = [[pair[side]["driver_memory"] for pair in pairs] for side in (0, 1)]
        return [
            Row(
                f"{title}: {figure}", *sides, [ours / base for ours, base in zip(*sides, strict=True)], 1.1, False, unit
            )
            for figure, sides, unit in (
                ("time a message", times, "µs"),
                ("driver's memory, Python and JVM", memory, "MiB"),
            )
        ]

    def other_figures(self) -> list[str]:
        """Returns lines about the start and about a killed executor."""
        name = self._bench.distinct(self._messages)
        pairs = [
            (self._run("killed", name)["seconds"], self._run("two", name)["seconds"]) for _ in range(self._bench.runs)
        ]
        cost = [killed - whole for killed, whole in pairs]
        two = self._runs["two"]
        lines = [("session", [run["session"] for run in two]), ("first batch, in which executors load the model",
                 [run["model"] for run in two]), ("one killed executor", cost)]  # fmt: skip
        return [
            f"- {title}: {statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"
            for title, values in lines
        ]

    def _run(self, job: str, name: str, kept_as: str | None = None) -> Figures:
        environment = {**os.environ, "SPAMSCORE_DATABASE_URL": self._database}
        command = [
            sys.executable,
            str(HERE / "jobs.py"),
            job,
            str(self._bench.folder),
            name,
            self._master,
            self._driver,
        ]
        done = subprocess.run(command, cwd=self._bench.folder, env=environment, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise SystemExit(f"{job} {name}: exit code {done.returncode}\n{done.stderr}")
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        print(f"{job} {name}: {figures}", file=sys.stderr, flush=True)
        self._runs.setdefault(kept_as or job, []).append(figures)
        return figures
