"""How a snapshot becomes a published batch: read, scored and committed chunk by chunk.

What is scored with which model is `tasks.score_batch`'s; this takes a snapshot, a scorer and an open database. It needs
TensorFlow, so a task imports it inside `run`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sqlalchemy.engine import Engine

from models.scoring import Scorer, score_apart
from tasks.batches import BatchRow
from tasks.chunks import RejectedMessage, ScoredChunk, refusal
from tasks.ledger import BatchPlan, begin_batch, chunks_done, commit_chunk, publish_batch, record_times
from tasks.snapshots import SNAPSHOT_FILE, SnapshotChunk, read_snapshot, snapshot_rows, verify_snapshot

log = logging.getLogger("spamscore")


def score_snapshot(
    engine: Engine,
    plan: BatchPlan,
    snapshot: Path,
    scorer: Scorer,
    watch: Callable[[float, float, str], None],
    began: float,
    receipt: Callable[[BatchRow], None],
) -> BatchRow:
    """Scores what is not yet in the ledger, chunk by chunk, and publishes the batch.

    Args:
        engine: an open database.
        plan: what the batch is.
        snapshot: folder that ExtractMessages left.
        scorer: texts to probabilities.
        watch: told messages done, messages in all, and a line of status after each chunk.
        began: `time.monotonic()` when the run began, for the batch's times.
        receipt: takes the batch as it is about to be published.
    """
    verify_snapshot(snapshot)
    rows = snapshot_rows(snapshot / SNAPSHOT_FILE)
    batch = begin_batch(engine, plan)
    done = chunks_done(engine, batch.batch_id)
    if done:
        log.info("batch %d of %s goes on: %d chunks are there already", batch.batch_id, plan.batch_date, len(done))
    seconds = {"text": 0.0, "network": 0.0, "write": 0.0}
    for chunk in read_snapshot(snapshot / SNAPSHOT_FILE, plan.chunk_size, skip=done):
        scored = score_chunk(scorer, chunk, plan.threshold, seconds)
        writing = time.monotonic()
        commit_chunk(engine, batch.batch_id, scored)
        seconds["write"] += time.monotonic() - writing
        finished = chunk.first_row - 1 + len(chunk)
        rate = finished / (time.monotonic() - began)
        left = (rows - finished) / rate
        watch(finished, rows, f"{finished:,} of {rows:,} scored, {rate:,.0f} a second, {left:,.0f} s left")
    # Before publishing, for a run that is killed after it finds all done the next time.
    record_times(engine, batch.batch_id, total=time.monotonic() - began, **seconds)
    return publish_batch(engine, batch.batch_id, rows, receipt)


def score_chunk(scorer: Scorer, chunk: SnapshotChunk, threshold: float, seconds: dict[str, float]) -> ScoredChunk:
    """Scores the messages of a chunk that can be, and says of the others why not.

    A message that makes scoring itself fail is one of the others; `models.scoring.score_apart` has the rule by which it
    is told from a model or a device that fails.

    Args:
        scorer: texts to probabilities.
        chunk: messages as they were read.
        threshold: probability from which a message is flagged.
        seconds: what text and network took is added to.

    Raises:
        ArtifactError: the model fails, whatever the message.
        DeviceError: the device fails, whatever the message.
    """
    began = time.monotonic()
    columns = (chunk.row_numbers.tolist(), chunk.message_ids, chunk.texts, chunk.faults)
    refusals = [refusal(*row) for row in zip(*columns, strict=True)]
    tried = [place for place, found in enumerate(refusals) if found is None]
    result = score_apart(scorer, [str(chunk.texts[place]) for place in tried])
    for number, detail in result.failures.items():
        refusals[tried[number]] = set_aside(chunk, tried[number], detail)
    kept = [number for number in range(len(tried)) if number not in result.failures]
    sound = [tried[number] for number in kept]
    probabilities = result.scored.probabilities[kept]
    seconds["text"] += result.scored.seconds_text
    seconds["network"] += result.scored.seconds_network
    return ScoredChunk(
        chunk_number=chunk.chunk_number,
        first_row=chunk.first_row,
        message_ids=[str(chunk.message_ids[place]) for place in sound],
        row_numbers=chunk.row_numbers[np.array(sound, dtype=np.int64)],
        probabilities=probabilities,
        flagged=probabilities >= threshold,
        rejected=[found for found in refusals if found is not None],
        seconds=time.monotonic() - began,
    )


def set_aside(chunk: SnapshotChunk, place: int, detail: str) -> RejectedMessage:
    """Refuses a message of a chunk, by its place in it, that made scoring fail, and warns of it."""
    row_number, message_id = int(chunk.row_numbers[place]), chunk.message_ids[place]
    log.warning("row %d, message %a: scoring failed, set aside: %s", row_number, (message_id or "")[:80], detail)
    return RejectedMessage(row_number, message_id, "scoring failed", detail)
