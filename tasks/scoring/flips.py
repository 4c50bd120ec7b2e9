"""The verdicts on the latest batch's messages that another model would change: a question of the gate.

It asks the database which batch was published last, and reads that batch's snapshot. Neither is part of a fingerprint:
a model is judged by what there is when it is judged, as with the version in service, and not judged anew because a
night went by. Where there is no batch, or its messages are gone, that is the answer.
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
    from models.evaluation.gate import FlipCount, Flips
    from models.inference.scorer import Scorer
    from tasks.database.batches import BatchRow
    from tasks.sources.snapshots import SnapshotChunk


def flips_on_latest_batch(
    before: tuple[Scorer, float],
    now: tuple[Scorer, float],
    shown: int,
    watch: Callable[[float, float, str], None] = lambda *_: None,
) -> Flips | str:
    """Scores the messages of the latest published batch with two models, chunk by chunk, and compares the verdicts.

    Args:
        before: the version in service and its threshold.
        now: the new model and its threshold.
        shown: examples kept.
        watch: told messages done, messages in all, and a line of status after each chunk.

    Returns:
        The flips; or why there are none to be counted.

    Raises:
        ArtifactError: a model fails on every message.
        DeviceError: a device does.
    """
    batch = latest_batch()
    if isinstance(batch, str):
        return batch
    from models.evaluation.gate import FlipCount
    from tasks.sources.snapshots import SNAPSHOT_FILE, read_snapshot, snapshot_rows, verify_snapshot

    folder = snapshot_folder(batch.batch_date, batch.snapshot)
    if not folder.is_dir():
        return f"the messages of batch {batch.batch_id} are not in {folder} any more"
    try:
        verify_snapshot(folder)
    except ArtifactError as error:
        return f"the messages of batch {batch.batch_id} cannot be used: {error}"
    path, count = folder / SNAPSHOT_FILE, FlipCount(shown)
    rows = snapshot_rows(path)
    for chunk in read_snapshot(path, load(ScoringSettings).chunk_size):
        add_chunk(count, chunk, before, now)
        finished = chunk.first_row - 1 + len(chunk)
        watch(finished, rows, f"{finished:,} of {rows:,} messages of the latest batch compared")
    flips = count.flips(f"the messages of {batch.batch_date} (batch {batch.batch_id})")
    return flips if flips.messages else f"batch {batch.batch_id} has no message that can be scored"


def latest_batch() -> BatchRow | str:
    """The published batch of the latest date; or why there is none. The database is neither made nor migrated."""
    from tasks.database.batches import latest_published
    from tasks.database.connection import connect

    try:
        return latest_published(connect(load(DatabaseSettings))) or "no batch is published"
    except DatabaseError as error:
        return f"the database cannot be asked: {error}"


def add_chunk(count: FlipCount, chunk: SnapshotChunk, before: tuple[Scorer, float], now: tuple[Scorer, float]) -> None:
    """Scores those messages of a chunk that a batch would score, and adds their verdicts to the count."""
    import numpy as np
    import pyarrow as pa

    from models.inference.scorer import score_isolating_failures
    from tasks.database.chunks import refusals

    sound = np.setdiff1d(np.arange(len(chunk)), list(refusals(chunk)))
    message_ids, texts = (one.take(pa.array(sound)).to_pylist() for one in (chunk.message_ids, chunk.texts))
    old, new = (score_isolating_failures(scorer, texts).scores.probabilities for scorer, _ in (before, now))
    kept = np.flatnonzero(np.isfinite(old) & np.isfinite(new))
    count.add(
        [message_ids[place] for place in kept],
        [texts[place] for place in kept],
        (old[kept], before[1]),
        (new[kept], now[1]),
    )
