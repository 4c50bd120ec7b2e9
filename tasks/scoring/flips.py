"""Counts the verdicts on the latest published batch that another model would flip, for the gate.

The module reads the latest published batch from the database, and its snapshot. Neither is part of a fingerprint: like
the version in service, they are used as they are at the time of the evaluation, and a new batch does not cause a new
evaluation. If there is no batch, or its messages are gone, the result is the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from models.errors import ArtifactError, DatabaseError
from tasks.artifacts.locations import snapshot_folder
from tasks.settings.loading import load
from tasks.settings.scoring import ScoringSettings
from tasks.settings.storage import DatabaseSettings

if TYPE_CHECKING:
    from models.evaluation.gate import FlipCounter, Flips
    from models.inference.scorer import Scorer
    from tasks.database.batches import BatchRow
    from tasks.sources.snapshots import SnapshotChunk


def count_flips_on_latest_batch(
    before: tuple[Scorer, float],
    now: tuple[Scorer, float],
    max_examples: int,
    on_progress: Callable[[float, float, str], None] = lambda *_: None,
) -> Flips | str:
    """Scores the messages of the latest published batch with two models, chunk by chunk, and compares the verdicts.

    Args:
        before: the version in service and its threshold.
        now: the new model and its threshold.
        max_examples: maximum number of example messages.
        on_progress: called after each chunk with messages done, total messages, and a line of status.

    Returns:
        The flips, or the reason why they could not be counted.

    Raises:
        ArtifactError: a model fails on every message.
        DeviceError: a device fails on every message.
    """
    batch = find_latest_batch()
    if isinstance(batch, str):
        return batch
    from models.evaluation.gate import FlipCounter
    from tasks.sources.snapshots import SNAPSHOT_FILE, count_snapshot_rows, read_snapshot, verify_snapshot

    folder = snapshot_folder(batch.batch_date, batch.snapshot)
    if not folder.is_dir():
        return f"the messages of batch {batch.batch_id} are no longer in {folder}"
    try:
        verify_snapshot(folder)
    except ArtifactError as error:
        return f"the messages of batch {batch.batch_id} cannot be used: {error}"
    path, counter = folder / SNAPSHOT_FILE, FlipCounter(max_examples)
    rows = count_snapshot_rows(path)
    for chunk in read_snapshot(path, load(ScoringSettings).chunk_size):
        add_chunk(counter, chunk, before, now)
        finished = chunk.first_row - 1 + len(chunk)
        on_progress(finished, rows, f"{finished:,} of {rows:,} messages of the latest batch compared")
    flips = counter.flips(f"the messages of {batch.batch_date} (batch {batch.batch_id})")
    return flips if flips.messages else f"batch {batch.batch_id} has no message that can be scored"


def find_latest_batch() -> BatchRow | str:
    """Returns the published batch of the latest date that is not provisional, or the reason why there is none.

    Neither creates nor migrates the database.
    """
    from tasks.database.batches import find_latest_published_batch
    from tasks.database.connection import connect

    try:
        return find_latest_published_batch(connect(load(DatabaseSettings)), final=True) or "no batch is published"
    except DatabaseError as error:
        return f"the database cannot be read: {error}"


def add_chunk(
    counter: FlipCounter, chunk: SnapshotChunk, before: tuple[Scorer, float], now: tuple[Scorer, float]
) -> None:
    """Scores the messages of a chunk that a batch would score, and adds their verdicts to the counter."""
    import numpy as np
    import pyarrow as pa

    from models.inference.scorer import score_isolating_failures
    from tasks.database.chunks import find_rejections

    valid = np.setdiff1d(np.arange(len(chunk)), list(find_rejections(chunk)))
    message_ids, texts = (column.take(pa.array(valid)).to_pylist() for column in (chunk.message_ids, chunk.texts))
    old, new = (score_isolating_failures(scorer, texts).scores.probabilities for scorer, _ in (before, now))
    scored = np.flatnonzero(np.isfinite(old) & np.isfinite(new))
    counter.add(
        [message_ids[index] for index in scored],
        [texts[index] for index in scored],
        (old[scored], before[1]),
        (new[scored], now[1]),
    )
