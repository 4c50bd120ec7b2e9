"""Scores a snapshot and publishes the batch: reads, tokenizes, scores and commits chunk by chunk.

The four stages overlap. A thread reads chunks ahead. As many threads as there are cores score one chunk each; only one
of them tokenizes at a time. The calling thread commits. `tasks.score_batch` decides what is scored with which model;
this module takes a snapshot, a scorer and an open database. It needs TensorFlow, so a task imports it inside `run`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlalchemy.engine import Engine

from models.inference.scorer import Scorer, score_isolating_failures
from tasks.database.batches import BatchRow
from tasks.database.chunks import RejectedMessage, ScoredChunk, find_rejections
from tasks.database.connection import persistent_connection
from tasks.database.ledger import (
    BatchPlan,
    commit_chunk,
    find_committed_chunks,
    publish_batch,
    record_times,
    start_batch,
)
from tasks.scoring.overlap import StageSeconds, map_in_threads, read_ahead, short_switch_interval
from tasks.scoring.refusal import require_publishable
from tasks.sources.snapshots import SNAPSHOT_FILE, SnapshotChunk, count_snapshot_rows, read_snapshot, verify_snapshot

log = logging.getLogger("spamscore")


@dataclass(frozen=True)
class Concurrency:
    """The number of threads and the size of the queues of a batch.

    Attributes:
        threads: threads that score one chunk each: one tokenizes while the others compute the network.
        queue: maximum number of chunks that wait between two stages.
    """

    threads: int
    queue: int


def score_snapshot(
    engine: Engine,
    plan: BatchPlan,
    snapshot: Path,
    scorer: Scorer,
    on_progress: Callable[[float, float, str], None],
    started: float,
    write_receipt: Callable[[BatchRow], None],
    take_again: Callable[[], None],
    concurrency: Concurrency,
) -> BatchRow:
    """Scores the chunks that are not in the ledger yet, and publishes the batch.

    Args:
        engine: an open database.
        plan: date, model, threshold and chunk size of the batch.
        snapshot: folder of the snapshot, written by ExtractMessages.
        scorer: texts to probabilities.
        on_progress: called after each chunk with messages done, total messages, and a line of status; may block.
        started: `time.monotonic()` at the start of the run, for the times of the batch.
        write_receipt: called with the batch just before it is published.
        take_again: called if too many messages are rejected; makes the next run read the source anew.
        concurrency: threads and queues.

    Raises:
        RejectedError: too many messages are rejected; nothing is published.
    """
    verify_snapshot(snapshot)
    path = snapshot / SNAPSHOT_FILE
    rows = count_snapshot_rows(path)
    with persistent_connection(engine) as open_engine:
        batch = start_batch(open_engine, plan)
        done = find_committed_chunks(open_engine, batch.batch_id)
        if done:
            log.info("batch %d of %s resumed: %d chunks are already scored", batch.batch_id, plan.batch_date, len(done))
        seconds, processor = StageSeconds(), time.process_time()
        progress = _Progress(rows)
        with contextlib.closing(score_chunks(scorer, path, plan, done, concurrency, seconds)) as chunks:
            for scored in seconds.measure_items("wait", chunks):
                with seconds.measure("write"):
                    commit_chunk(open_engine, batch.batch_id, scored)
                on_progress(*progress.update(scored))
        # Recorded before publishing: if the run is killed after publishing, the next run finds the batch done.
        stages = {name: seconds.total(name) for name in ("read", "text", "network", "write", "wait")}
        total = time.monotonic() - started
        record_times(open_engine, batch.batch_id, total=total, processor=time.process_time() - processor, **stages)
        require_publishable(open_engine, batch.batch_id, plan, snapshot, rows, take_again)
        return publish_batch(open_engine, batch.batch_id, rows, write_receipt)


def score_chunks(
    scorer: Scorer, path: Path, plan: BatchPlan, done: Collection[int], concurrency: Concurrency, seconds: StageSeconds
) -> Generator[ScoredChunk]:
    """Yields the scored chunks of a snapshot that are not done. Reading and scoring overlap with the caller's work.

    Args:
        scorer: texts to probabilities.
        path: file of the snapshot.
        plan: chunk size and threshold.
        done: numbers of the chunks to skip.
        concurrency: threads and queues.
        seconds: receives the seconds of the stages.
    """
    chunks = _measure_items(seconds, "read", read_snapshot(path, plan.chunk_size, skip=done))
    queued = read_ahead(chunks, concurrency.queue)
    score = partial(score_chunk, scorer, threshold=plan.threshold, seconds=seconds)
    threads = concurrency.threads
    # A thread without a chunk helps the others with the last chunks.
    with (
        short_switch_interval(),
        contextlib.closing(map_in_threads(score, queued, threads, threads + concurrency.queue, scorer.help)) as scored,
    ):
        yield from scored


def _measure_items(seconds: StageSeconds, stage: str, chunks: Iterator[SnapshotChunk]) -> Generator[SnapshotChunk]:
    yield from seconds.measure_items(stage, chunks)


def score_chunk(scorer: Scorer, chunk: SnapshotChunk, threshold: float, seconds: StageSeconds) -> ScoredChunk:
    """Scores the messages of a chunk that can be scored, and rejects the others.

    A message that makes the scorer fail is rejected too. `models.inference.scorer.score_isolating_failures`
    distinguishes it from a model or a device that fails.

    Args:
        scorer: texts to probabilities.
        chunk: a chunk of the snapshot.
        threshold: probability from which a message is flagged.
        seconds: receives the seconds of text and network.

    Raises:
        ArtifactError: the model fails on every message.
        DeviceError: the device fails on every message.
    """
    started = time.monotonic()
    rejected = find_rejections(chunk)
    indices = _remaining_indices(len(chunk), rejected)
    result = score_isolating_failures(scorer, chunk.texts.take(pa.array(indices)) if rejected else chunk.texts)
    failed = {int(indices[position]): detail for position, detail in result.failures.items()}
    rejected |= {index: reject_message(chunk, index, detail) for index, detail in failed.items()}
    succeeded = _remaining_indices(len(indices), result.failures)
    scored, probabilities = indices[succeeded], result.scores.probabilities[succeeded]
    seconds.add("text", result.scores.seconds_text)
    seconds.add("network", result.scores.seconds_network)
    return ScoredChunk(
        chunk_number=chunk.chunk_number,
        first_row=chunk.first_row,
        message_ids=chunk.message_ids.take(pa.array(scored)).to_pylist(),
        row_numbers=chunk.row_numbers[scored],
        probabilities=probabilities,
        flagged=probabilities >= threshold,
        rejected=[rejected[index] for index in sorted(rejected)],
        seconds=time.monotonic() - started,
    )


def _remaining_indices(count: int, excluded: Collection[int]) -> npt.NDArray[np.int64]:
    """Returns the indices from 0 to `count` - 1 that are not excluded."""
    return np.delete(np.arange(count), list(excluded))


def reject_message(chunk: SnapshotChunk, index: int, detail: str) -> RejectedMessage:
    """Rejects the message at an index of a chunk because scoring it failed, and logs a warning."""
    row_number, message_id = int(chunk.row_numbers[index]), chunk.message_ids[index].as_py()
    log.warning("row %d, message %a: scoring failed, message rejected: %s", row_number, (message_id or "")[:80], detail)
    return RejectedMessage(row_number, message_id, "scoring failed", detail)


class _Progress:
    """Computes the progress of a batch after each chunk: messages done, total messages, and a line of status."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._started = time.monotonic()
        self._done_before: int | None = None
        self._rejected = 0

    def update(self, chunk: ScoredChunk) -> tuple[int, int, str]:
        """Returns the progress after a chunk is committed."""
        if self._done_before is None:
            self._done_before = chunk.first_row - 1  # messages of chunks that an earlier run committed
        finished = chunk.first_row - 1 + chunk.messages_read
        self._rejected += len(chunk.rejected)
        rate = (finished - self._done_before) / max(time.monotonic() - self._started, 1e-9)
        seconds_left = (self._rows - finished) / rate
        status = f"{finished:,} of {self._rows:,} scored, {rate:,.0f} per second, {seconds_left:,.0f} s left"
        return finished, self._rows, f"{status}, {self._rejected:,} rejected" if self._rejected else status
