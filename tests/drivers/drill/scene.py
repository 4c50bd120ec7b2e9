"""The scratch folder of a drill: where a run can start from, how one is run in a copy, and what it came to."""

from __future__ import annotations

import contextlib
import csv
import datetime
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import sqlalchemy as sa
from chain import DATE, LUIGI, SMALL, Settings, environment, merge_settings, write_settings
from drill.moments import STAGES, Moment, Recorded, recorded
from servers import PostgresqlServer, temporary_database
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from tasks.database.chunks import ScoredChunk
from tasks.database.ledger import BatchPlan, begin_batch, commit_chunk, publish_batch
from tasks.database.schema import open_database
from tasks.database.tables import published_scores, rejected_messages, score_batches, spam_scores
from tasks.settings.storage import DatabaseSettings

DRIVERS = Path(__file__).resolve().parents[1]
PROJECT = DRIVERS.parents[1]
ARGUMENTS = ("--module", "pipeline", "ScoreBatch", "--date", DATE)
NIGHT = datetime.date.fromisoformat(DATE)
DRILLED: Settings = merge_settings(
    SMALL,
    {
        "training": {"checkpoint_steps": "4", "keep_checkpoints": "3"},
        "messages": {"source": "file", "path": "inbox.csv"},
        "scoring": {"chunk_size": "25"},
    },
)
COPIES = 3  # the bundled inbox so many times, each time under other identifiers
_LONGEST_RUN = 900  # seconds after which a run is taken to hang

# What is taken away from a folder in which all is done, to get one from which a run begins earlier.
POINTS = {
    "nothing": ("corpus", "messages", "vocabulary", "training", "evaluation", "exports", "snapshots", "receipts"),
    "trained": ("evaluation", "exports", "snapshots", "receipts"),
    "exported": ("snapshots", "receipts"),
    "extracted": ("receipts",),
}
_POINT = {
    "EvaluateModel": "trained",
    "ExportModel": "trained",
    "ExtractMessages": "exported",
    "ScoreBatch": "extracted",
}
_STRAY = re.compile(r"\.partial$|tmp|tempstate|_temp")
# A server gives out the number of a batch whose beginning was killed no second time.
_BATCH_NUMBER = re.compile(r"batch-\d+\.json$")
_CHECKPOINT = re.compile(r"checkpoint|ckpt-\d+\.(index|data-\d{5}-of-\d{5})")

Row = tuple[Any, ...]


def point_before(stage: str) -> str:
    """The last point from which a run goes through a stage."""
    return _POINT.get(stage, "nothing")


@dataclass(frozen=True)
class Outcome:
    """What is there after a run, of all that must not depend on how often it was disturbed.

    Attributes:
        rows: the published rows, sorted.
        rejected: the refused messages of the published batch, sorted.
        batches: state, counts and checksum of each batch of the date.
        twice: rows of one batch and message beyond the first.
        weights: SHA-256 of the weights, as each training describes them and as each export has them.
        content: SHA-256 of the tables, vocabularies and figures among the artifacts.
        files: the files among the artifacts, without those whose names tell a time or how often a training stopped.
        strays: half-made files and folders among the artifacts and in the folder for temporary files.
    """

    rows: list[Row]
    rejected: list[Row]
    batches: list[Row]
    twice: int
    weights: dict[str, str]
    content: dict[str, str]
    files: set[str]
    strays: list[str]


@dataclass(frozen=True)
class Verdict:
    """How an outcome differs from the undisturbed one, and what the reader saw."""

    lost: int
    doubled: int
    weights_equal: bool
    strays: list[str]
    differences: list[str]
    readings: int
    wrong: int

    @property
    def good(self) -> bool:
        """Whether nothing differs."""
        return not (self.lost or self.doubled or self.strays or self.differences or self.wrong) and self.weights_equal


def compared(found: Outcome, whole: Outcome, reader: Reader) -> Verdict:
    """Holds an outcome to the undisturbed one."""
    missing = Counter(whole.rows) - Counter(found.rows)
    doubled = sum(count - 1 for count in Counter(row[0] for row in found.rows).values()) + found.twice
    names = ("rows", "rejected", "batches", "content")
    differences = [f"other {name}" for name in names if getattr(found, name) != getattr(whole, name)]
    differences += [f"missing {one}" for one in sorted(whole.files - found.files)] + sorted(set(reader.seen_wrong))
    return Verdict(
        lost=missing.total(),
        doubled=doubled,
        weights_equal=bool(found.weights) and found.weights == whole.weights,
        strays=found.strays + sorted(found.files - whole.files),
        differences=differences,
        readings=reader.readings,
        wrong=len(reader.seen_wrong),
    )


def rows_of(connection: sa.Connection) -> list[Row]:
    """The published rows of the date, sorted: message_id, spam_probability, flagged, model_version."""
    view = published_scores.c
    wanted = sa.select(view.message_id, view.spam_probability, view.flagged, view.model_version)
    return sorted(tuple(row) for row in connection.execute(wanted.where(view.batch_date == NIGHT)))


class Reader:
    """Polls `published_scores` with one SELECT a reading as long as it is entered, and knows what it may see."""

    def __init__(self, url: URL, old: list[Row], new: list[Row]) -> None:
        self.readings = 0
        self.seen_wrong: list[str] = []
        self._old, self._new = old, new
        self._engine = sa.create_engine(url, poolclass=NullPool)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _poll(self) -> None:
        seen_new = False
        while not self._over.is_set():
            try:
                with self._engine.connect() as connection:
                    while not self._over.wait(0.02):
                        seen_new = self._judge(rows_of(connection), seen_new)
                        connection.rollback()
            except sa.exc.DBAPIError:
                self._over.wait(0.1)  # the database is stopped, or the connection was cut: no reading

    def _judge(self, rows: list[Row], seen_new: bool) -> bool:
        self.readings += 1
        if rows == self._new:
            return True
        if rows != self._old:
            self.seen_wrong.append(f"read {len(rows)} rows that are neither the old nor the new ones")
        elif seen_new:
            self.seen_wrong.append("read the old rows after the new ones")
        return seen_new


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative for a signal), what it printed, how long it took, how long after it was
    struck it went on (None if it was not), in seconds.
    """

    code: int
    output: str
    seconds: float
    went_on: float | None

    @property
    def last_line(self) -> str:
        return (self.output.rstrip().splitlines() or [""])[-1]


class Run:
    """A run that was started; its output goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, log: Path) -> None:
        self.process, self._output, self._log = process, output, log
        self._began = time.monotonic()

    def struck(self) -> float | None:
        """When the moment came, by the system's monotonic clock; None if it has not."""
        for event in read_log(self._log):
            if "struck" in event:
                return float(event["at"])
        return None

    def wait_for_moment(self) -> bool:
        """Waits until the moment came; False if the run ended before it did."""
        while self.struck() is None:
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        return True

    def signal(self, number: int) -> None:
        """Sends a signal to all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def ended(self, timeout: float = _LONGEST_RUN) -> Ended:
        """Waits for the end; a run that takes too long is killed, and its code is 124."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = 124
        now = time.monotonic()
        self.signal(signal.SIGKILL)
        self.process.wait()
        at = self.struck()
        output = self._output.read_text(encoding="utf-8", errors="replace")
        return Ended(code, output, now - self._began, None if at is None else now - at)


class Stand:
    """A copy of a point to disturb a run in: a folder, a database, a reader.

    Attributes:
        base: a folder of its own; `folder` in it is the working folder of its runs.
        url: address of its database.
    """

    def __init__(self, ground: Ground, base: Path, url: URL, reader: Reader) -> None:
        self.ground, self.base, self.url, self.reader = ground, base, url, reader
        self.folder = base / "work"
        self.mounted = os.path.ismount(self.folder)
        self.scheduler: subprocess.Popen[bytes] | None = None
        self._runs = 0
        self._last: Run | None = None

    def start(self, moment: Moment | None = None, *, record: bool = False, **variables: str) -> Run:
        """Starts the command in a process group of its own, struck at a moment if one is given.

        Args:
            moment: when and how.
            record: write down every event instead.
            variables: of the environment.
        """
        self._runs += 1
        output, log = self.base / f"output-{self._runs}", self.base / f"log-{self._runs}"
        command: list[str | Path] = [LUIGI]
        extra = {"SPAMSCORE_DATABASE_URL": self.url.render_as_string(hide_password=False)}
        if moment or record:
            command = [sys.executable, "-m", "drill.watched"]
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

    def run(self, moment: Moment | None = None, *, record: bool = False, **variables: str) -> Ended:
        """Runs the command to its end, or until it is killed."""
        return self.start(moment, record=record, **variables).ended()

    def processes(self) -> list[int]:
        """The processes of the run that was started last, by number."""
        if self._last is None:
            return []
        own = psutil.Process(self._last.process.pid)
        return [own.pid, *(child.pid for child in own.children(recursive=True))]

    def recorded(self) -> Recorded:
        """The events that the last run wrote down."""
        return recorded(read_log(self.base / f"log-{self._runs}"))

    @contextlib.contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """A connection to its database."""
        engine = sa.create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            yield connection

    def outcome(self) -> Outcome:
        """What is there now."""
        with self.connection() as connection:
            rows = rows_of(connection)
            batch = score_batches.c
            columns = [batch[n] for n in ("state", "messages_read", "scored", "rejected", "flagged", "checksum")]
            batches = [tuple(row) for row in connection.execute(sa.select(*columns).order_by(batch.batch_id))]
            one = rejected_messages.c
            refused = sa.select(one.row_number, one.message_id, one.reason).join(
                score_batches, (one.batch_id == batch.batch_id) & (batch.state == "published")
            )
            rejected = sorted(tuple(row) for row in connection.execute(refused))
            keys = connection.execute(sa.select(spam_scores.c.batch_id, spam_scores.c.message_id))
            twice = sum(count - 1 for count in Counter(map(tuple, keys)).values())
        artifacts = self.folder / "artifacts"
        files = {_BATCH_NUMBER.sub("batch-N.json", str(path.relative_to(artifacts))) for path in artifacts.rglob("*")}
        strays = sorted(one for one in files if _is_stray(Path(one)))
        strays += [f"temporary: {name}" for name in sorted(path.name for path in (self.base / "tmp").iterdir())]
        return Outcome(
            rows, rejected, batches, twice, _weights(artifacts), _content(artifacts),
            {one for one in files if not {"checkpoints", "tensorboard"} & set(Path(one).parts)} - set(strays), strays,
        )  # fmt: skip

    def verdict(self) -> Verdict:
        """What is there now, held to the undisturbed run."""
        return compared(self.outcome(), self.ground.whole, self.reader)


def _is_stray(path: Path) -> bool:
    in_checkpoints = path.parent.name == "checkpoints"
    return bool(_STRAY.search(path.name)) or (in_checkpoints and _CHECKPOINT.fullmatch(path.name) is None)


def _weights(artifacts: Path) -> dict[str, str]:
    found = {
        str(path.relative_to(artifacts)): str(json.loads(path.read_text(encoding="utf-8"))["weights_sha256"])
        for path in artifacts.glob("training/*/model.json")
    }
    for path in artifacts.glob("exports/*/*/assets.extra/weights.npz"):
        digest = hashlib.sha256()
        with np.load(path) as arrays:
            for name in sorted(arrays.files):
                digest.update(name.encode() + arrays[name].tobytes())
        found[str(path.relative_to(artifacts))] = digest.hexdigest()
    return found


def _content(artifacts: Path) -> dict[str, str]:
    paths = [*artifacts.rglob("*.parquet"), *artifacts.rglob("vocabulary.json"), *artifacts.rglob("metrics.json")]
    return {str(path.relative_to(artifacts)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines that a watch wrote so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


class Ground:
    """All that the drill of one kind of database stands on.

    Attributes:
        name: "sqlite" or "postgresql".
        whole: what the undisturbed run left.
        seen: the events of the undisturbed run.
    """

    whole: Outcome
    seen: Recorded

    def __init__(self, name: str, folder: Path, points: Path, server: PostgresqlServer | None) -> None:
        self.name, self.folder, self.points, self.server = name, folder, points, server
        self.old: list[Row] = []
        self.template: str | None = None

    @contextlib.contextmanager
    def stand(self, point: str, *, mounted: bool = False) -> Iterator[Stand]:
        """A fresh copy of a point, its reader polling; gone at the end.

        Args:
            point: one of `POINTS`.
            mounted: the working folder is there already, a file system of its own.
        """
        base = Path(tempfile.mkdtemp(dir=self.folder, prefix=f"{point}-"))
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, base, ignore_errors=True)
            (base / "tmp").mkdir()
            (base / "work").mkdir()
            if mounted:
                stack.enter_context(tmpfs(base / "work"))
            shutil.copytree(self.points / point, base / "work", dirs_exist_ok=True)
            if self.server:
                url = stack.enter_context(temporary_database(self.server.url, self.template))
            else:
                url = sa.make_url(f"sqlite:///{base}/work/spamscore.db")
            new = self.whole.rows if hasattr(self, "whole") else []
            reader = Reader(url, self.old, new)
            if new:
                stack.enter_context(reader)
            yield Stand(self, base, url, reader)


@contextlib.contextmanager
def tmpfs(folder: Path, size: str = "64m") -> Iterator[None]:
    """A file system of its own on a folder, where one may mount."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "drill", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)


def may_mount() -> bool:
    """Whether this user may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tmpfs(Path(folder)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def write_inbox(path: Path) -> None:
    """The bundled inbox several times under other identifiers; one message comes again, and some rows are refused."""
    with (PROJECT / "pipeline" / "sample" / "inbox.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["message_id", "text"])
        for copy in range(COPIES):
            for row in rows:
                again = row["message_id"] in ("m-0001", "")
                writer.writerow([row["message_id"] if again else f"{copy}-{row['message_id']}", row["text"]])


def publish_old_batch(url: URL) -> list[Row]:
    """Publishes a batch of the date as another model would have scored it; gives its published rows."""
    engine = open_database(DatabaseSettings(url=url.render_as_string(hide_password=False)))
    ids = [f"{copy}-m-{number:04d}" for copy in range(COPIES) for number in range(1, 201)]
    probabilities = np.round(np.random.default_rng(1).random(len(ids)), 6)
    plan = BatchPlan(
        batch_date=NIGHT, recipe="old", model_name="spam_ham", model_version=0, checkpoint="old/ckpt-1",
        snapshot="old", threshold=0.9, devices="cpu:0", chunk_size=len(ids),
    )  # fmt: skip
    rows = np.arange(1, len(ids) + 1)
    batch = begin_batch(engine, plan)
    commit_chunk(engine, batch.batch_id, ScoredChunk(0, 1, ids, rows, probabilities, probabilities >= 0.9, [], 0.0))
    publish_batch(engine, batch.batch_id, len(ids))
    with engine.connect() as connection:
        old = rows_of(connection)
    engine.dispose()
    return old


@contextlib.contextmanager
def prepared(folder: Path, databases: tuple[str, ...], server: PostgresqlServer | None) -> Iterator[list[Ground]]:
    """Runs the chain once undisturbed for each database, and makes the points from which it can start.

    Raises:
        RuntimeError: that run failed.
    """
    points = folder / "points"
    (points / "nothing").mkdir(parents=True)
    write_settings(points / "nothing", DRILLED)
    write_inbox(points / "nothing" / "inbox.csv")
    database = points / "nothing" / "spamscore.db"
    old = publish_old_batch(sa.make_url(f"sqlite:///{database}"))
    first = Ground("sqlite", folder, points, None)
    first.old = old
    _undisturbed(first, "nothing", keep=points / "done")
    for point, missing in POINTS.items():
        if point != "nothing":
            shutil.copytree(points / "done", points / point)
            for name in missing:
                shutil.rmtree(points / point / "artifacts" / name)
            for path in points.glob(f"{point}/spamscore.db*"):
                path.unlink()
            shutil.copy(database, points / point)
    with contextlib.ExitStack() as stack:
        grounds = [first] if "sqlite" in databases else []
        if "postgresql" in databases and server:
            second = Ground("postgresql", folder, points, server)
            url = stack.enter_context(temporary_database(server.url))
            second.old, second.template = publish_old_batch(url), url.database
            _undisturbed(second, "extracted")
            # Its other stages are the first one's: they do not touch the database.
            others = first.seen.only(set(STAGES) - {"ScoreBatch"})
            second.seen = Recorded({**others.times, **second.seen.only({"ScoreBatch"}).times})
            if second.whole.rows != first.whole.rows:
                raise RuntimeError("the undisturbed runs on SQLite and PostgreSQL published other rows")
            grounds.append(second)
        yield grounds


def _undisturbed(ground: Ground, point: str, keep: Path | None = None) -> None:
    with ground.stand(point) as stand:
        ended = stand.run(record=True)
        found = stand.outcome()
        if ended.code or found.strays or not found.weights or len(found.batches) != 2:
            raise RuntimeError(f"the undisturbed run ended with {ended.code}, strays {found.strays}:\n{ended.output}")
        ground.whole, ground.seen = found, stand.recorded()
        if keep:
            shutil.copytree(stand.folder, keep)
