"""Prepares a drill: runs the chain once undisturbed on each database, and makes copies from which runs can start."""

from __future__ import annotations

import contextlib
import csv
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from chain import SMALL, Settings, merge_settings, write_settings
from drill.moments import STAGES, Recording
from drill.outcome import Outcome, Verdict, compare_outcomes
from drill.reader import BATCH_DATE, Reader, Row, read_published_rows
from drill.workspace import Workspace
from servers import PostgresqlServer, temporary_database
from sqlalchemy.engine import URL

from tasks.database.chunks import ScoredChunk
from tasks.database.ledger import BatchPlan, commit_chunk, publish_batch, start_batch
from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings

PROJECT = Path(__file__).resolve().parents[3]
DRILL_SETTINGS: Settings = merge_settings(
    SMALL,
    {
        "training": {"checkpoint_steps": "4", "keep_checkpoints": "3"},
        "messages": {"source": "file", "path": "inbox.csv"},
        "scoring": {"chunk_size": "25"},
    },
)
COPIES = 3  # copies of the bundled inbox, each with other message ids

# Starting points of runs: the artifacts to delete from a folder in which the chain has run completely.
START_POINTS = {
    "nothing": ("corpus", "messages", "vocabulary", "training", "evaluation", "exports", "snapshots", "receipts"),
    "trained": ("evaluation", "exports", "snapshots", "receipts"),
    "exported": ("snapshots", "receipts"),
    "extracted": ("receipts",),
}
_START_POINT_OF_STAGE = {
    "EvaluateModel": "trained",
    "ExportModel": "trained",
    "ExtractMessages": "exported",
    "ScoreBatch": "extracted",
}


def find_start_point(stage: str) -> str:
    """Returns the last starting point from which a run includes a stage."""
    return _START_POINT_OF_STAGE.get(stage, "nothing")


class Baseline:
    """The undisturbed run on one kind of database, with the copies and the server that other runs start from.

    Attributes:
        name: "sqlite" or "postgresql".
        outcome: outcome of the undisturbed run.
        recording: events of the undisturbed run.
    """

    outcome: Outcome
    recording: Recording

    def __init__(self, name: str, folder: Path, points: Path, server: PostgresqlServer | None) -> None:
        self.name, self.folder, self.points, self.server = name, folder, points, server
        self.old: list[Row] = []
        self.template: str | None = None

    @contextlib.contextmanager
    def open_workspace(self, point: str, *, mounted: bool = False) -> Iterator[Workspace]:
        """Copies a starting point into a new workspace with a running reader; deletes it at the end.

        Args:
            point: a key of `START_POINTS`.
            mounted: make the working folder a file system of its own.
        """
        base = Path(tempfile.mkdtemp(dir=self.folder, prefix=f"{point}-"))
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, base, ignore_errors=True)
            (base / "tmp").mkdir()
            (base / "work").mkdir()
            if mounted:
                stack.enter_context(mount_tmpfs(base / "work"))
            shutil.copytree(self.points / point, base / "work", dirs_exist_ok=True)
            if self.server:
                url = stack.enter_context(temporary_database(self.server.url, self.template))
            else:
                url = sa.make_url(f"sqlite:///{base}/work/spamscore.db")
            new = self.outcome.rows if hasattr(self, "outcome") else []
            reader = Reader(url, self.old, new)
            if new:
                stack.enter_context(reader)
            yield Workspace(base, url, reader, self.server)

    def judge(self, workspace: Workspace) -> Verdict:
        """Compares the current outcome of a workspace with the undisturbed outcome."""
        return compare_outcomes(workspace.collect_outcome(), self.outcome, workspace.reader)


@contextlib.contextmanager
def mount_tmpfs(folder: Path, size: str = "64m") -> Iterator[None]:
    """Mounts a new file system on a folder; needs the permission to mount."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "drill", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)


def can_mount() -> bool:
    """Returns whether this user may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with mount_tmpfs(Path(folder)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def write_inbox(path: Path) -> None:
    """Writes the bundled inbox several times with other message ids; one id is repeated, and some rows are rejected."""
    with (PROJECT / "pipeline" / "sample" / "inbox.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["message_id", "text"])
        for copy in range(COPIES):
            for row in rows:
                keep_id = row["message_id"] in ("m-0001", "")
                writer.writerow([row["message_id"] if keep_id else f"{copy}-{row['message_id']}", row["text"]])


def publish_old_batch(url: URL) -> list[Row]:
    """Publishes a batch of the date with the scores of another model, and returns its published rows."""
    engine = open_database(DatabaseSettings(url=url.render_as_string(hide_password=False)))
    ids = [f"{copy}-m-{number:04d}" for copy in range(COPIES) for number in range(1, 201)]
    probabilities = np.round(np.random.default_rng(1).random(len(ids)), 6)
    plan = BatchPlan(
        batch_date=BATCH_DATE, recipe="old", model_name="spam_ham", model_version=0, checkpoint="old/ckpt-1",
        snapshot="old", threshold=0.9, devices="cpu:0", chunk_size=len(ids),
    )  # fmt: skip
    rows = np.arange(1, len(ids) + 1)
    batch = start_batch(engine, plan)
    commit_chunk(engine, batch.batch_id, ScoredChunk(0, 1, ids, rows, probabilities, probabilities >= 0.9, [], 0.0))
    publish_batch(engine, batch.batch_id, len(ids))
    with engine.connect() as connection:
        old = read_published_rows(connection)
    engine.dispose()
    return old


@contextlib.contextmanager
def prepare_baselines(
    folder: Path, databases: tuple[str, ...], server: PostgresqlServer | None
) -> Iterator[list[Baseline]]:
    """Runs the chain once undisturbed on each database, and makes the starting points.

    Raises:
        RuntimeError: an undisturbed run failed, or the databases differ in their published rows.
    """
    points = folder / "points"
    (points / "nothing").mkdir(parents=True)
    write_settings(points / "nothing", DRILL_SETTINGS)
    write_inbox(points / "nothing" / "inbox.csv")
    database = points / "nothing" / "spamscore.db"
    sqlite = Baseline("sqlite", folder, points, None)
    sqlite.old = publish_old_batch(sa.make_url(f"sqlite:///{database}"))
    _run_undisturbed(sqlite, "nothing", keep=points / "done")
    for point, missing in START_POINTS.items():
        if point != "nothing":
            shutil.copytree(points / "done", points / point)
            for name in missing:
                shutil.rmtree(points / point / "artifacts" / name)
            for path in points.glob(f"{point}/spamscore.db*"):
                path.unlink()
            shutil.copy(database, points / point)
    with contextlib.ExitStack() as stack:
        baselines = [sqlite] if "sqlite" in databases else []
        if "postgresql" in databases and server:
            postgresql = Baseline("postgresql", folder, points, server)
            url = stack.enter_context(temporary_database(server.url))
            postgresql.old, postgresql.template = publish_old_batch(url), url.database
            _run_undisturbed(postgresql, "extracted")
            # Only ScoreBatch uses the database, so the other stages are recorded once, on SQLite.
            other_stages = sqlite.recording.select(set(STAGES) - {"ScoreBatch"})
            score_batch = postgresql.recording.select({"ScoreBatch"})
            postgresql.recording = Recording({**other_stages.times, **score_batch.times})
            if postgresql.outcome.rows != sqlite.outcome.rows:
                raise RuntimeError("the undisturbed runs on SQLite and PostgreSQL published different rows")
            baselines.append(postgresql)
        yield baselines


def _run_undisturbed(baseline: Baseline, point: str, keep: Path | None = None) -> None:
    with baseline.open_workspace(point) as workspace:
        result = workspace.run(record=True)
        outcome = workspace.collect_outcome()
        if result.code or outcome.strays or not outcome.weights or len(outcome.batches) != 2:
            raise RuntimeError(
                f"the undisturbed run ended with {result.code}, strays {outcome.strays}:\n{result.output}"
            )
        baseline.outcome, baseline.recording = outcome, workspace.read_recording()
        if keep:
            shutil.copytree(workspace.folder, keep)
