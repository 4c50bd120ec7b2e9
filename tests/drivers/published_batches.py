"""Publishes batches with given scores, and writes snapshots with given messages, without a run of the chain."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
from sqlalchemy.engine import Engine

from tasks.database.chunks import RejectedMessage, ScoredChunk
from tasks.database.ledger import BatchPlan, commit_chunk, publish_batch, record_times, start_batch

DATE = datetime.date(2026, 1, 31)


def publish(
    engine: Engine,
    scores: dict[str, float],
    date: datetime.date = DATE,
    rejected: list[RejectedMessage] | None = None,
    version: int = 1,
    snapshot: str = "snap",
    provisional: bool = False,
) -> int:
    """Publishes a batch as ScoreBatch does, and returns its id.

    Args:
        engine: the database.
        scores: spam probability by message_id; the threshold is 0.5.
        date: date of the batch.
        rejected: rejected messages of the batch.
        version: model version.
        snapshot: fingerprint of the snapshot.
        provisional: whether the date was not over.
    """
    checkpoint, recipe = "fingerprint/ckpt-7", f"r{version}{'p' * provisional}"
    plan = BatchPlan(date, recipe, "spam_ham", version, checkpoint, snapshot, 0.5, "cpu:0", 1000, provisional)
    batch_id = start_batch(engine, plan).batch_id
    values = np.array(list(scores.values()))
    rows = np.arange(1, len(scores) + 1)
    commit_chunk(engine, batch_id, ScoredChunk(0, 1, list(scores), rows, values, values >= 0.5, rejected or [], 1.0))
    publish_batch(engine, batch_id, len(scores) + len(rejected or []))
    record_times(engine, batch_id, total=12.34)
    return batch_id


def write_snapshot(folder: Path, rows: list[tuple[int, str, str | None]], date: datetime.date = DATE) -> None:
    """Writes a snapshot of messages: row number, message_id and text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.sources.snapshots import SNAPSHOT_FILE

    snapshot = folder / "artifacts" / "snapshots" / date.isoformat() / "snap"
    snapshot.mkdir(parents=True)
    columns = ("row_number", "message_id", "text")
    pq.write_table(
        pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows]), snapshot / SNAPSHOT_FILE
    )
