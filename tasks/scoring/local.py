"""How a snapshot becomes a published batch: read, turned into text's tokens, scored and committed, chunk by chunk.

The four overlap: chunks are read ahead, as many threads as there are cores score one each, of which one at a time turns
messages into tokens, and who asks commits. What is scored with which model is `tasks.score_batch`'s; this takes a
snapshot, a scorer and an open database. It needs TensorFlow, so a task imports it inside `run`.
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
from tasks.database.chunks import RejectedMessage, ScoredChunk, refusals
from tasks.database.connection import connection_kept
from tasks.database.ledger import BatchPlan, begin_batch, chunks_done, commit_chunk, publish_batch, record_times
from tasks.scoring.overlap import StageSeconds, ahead, in_threads, short_turns
from tasks.sources.snapshots import SNAPSHOT_FILE, SnapshotChunk, read_snapshot, snapshot_rows, verify_snapshot

log = logging.getLogger("spamscore")


@dataclass(frozen=True)
class Pace:
    """How a batch uses the machine.

    Attributes:
        threads: threads that score, each a chunk: one reads text while the others compute.
        queue: chunks that wait between two stages.
    """

    threads: int
    queue: int


def score_snapshot(
    engine: Engine,
    plan: BatchPlan,
    snapshot: Path,
    scorer: Scorer,
    watch: Callable[[float, float, str], None],
    began: float,
    receipt: Callable[[BatchRow], None],
    pace: Pace,
) -> BatchRow:
    """Scores what is not yet in the ledger, chunk by chunk, and publishes the batch.

    Args:
        engine: an open database.
        plan: what the batch is.
        snapshot: folder that ExtractMessages left.
        scorer: texts to probabilities.
        watch: told messages done, messages in all, and a line of status after each chunk; may take its time.
        began: `time.monotonic()` when the run began, for the batch's times.
        receipt: takes the batch as it is about to be published.
        pace: threads and queues.
    """
    verify_snapshot(snapshot)
    path = snapshot / SNAPSHOT_FILE
    rows = snapshot_rows(path)
    with connection_kept(engine) as kept:
        batch = begin_batch(kept, plan)
        done = chunks_done(kept, batch.batch_id)
        if done:
            log.info("batch %d of %s goes on: %d chunks are there already", batch.batch_id, plan.batch_date, len(done))
        seconds, processor = StageSeconds(), time.process_time()
        progress = _Progress(rows)
        with contextlib.closing(scored_chunks(scorer, path, plan, done, pace, seconds)) as chunks:
            for scored in seconds.asking("wait", chunks):
                with seconds.counted("write"):
                    commit_chunk(kept, batch.batch_id, scored)
                watch(*progress.after(scored))
        # Before publishing, for a run that is killed after it finds all done the next time.
        stages = {name: seconds.of(name) for name in ("read", "text", "network", "write", "wait")}
        total = time.monotonic() - began
        record_times(kept, batch.batch_id, total=total, processor=time.process_time() - processor, **stages)
        return publish_batch(kept, batch.batch_id, rows, receipt)


def scored_chunks(
    scorer: Scorer, path: Path, plan: BatchPlan, done: Collection[int], pace: Pace, seconds: StageSeconds
) -> Generator[ScoredChunk]:
    """Scores the chunks of a snapshot that are not done; reading, text and network overlap with whoever asks.

    Args:
        scorer: texts to probabilities.
        path: the snapshot's file.
        plan: chunk size and threshold.
        done: numbers of the chunks to leave out.
        pace: threads and queues.
        seconds: what the stages take is added to.
    """
    read = ahead(_counted(seconds, "read", read_snapshot(path, plan.chunk_size, skip=done)), pace.queue)
    score = partial(score_chunk, scorer, threshold=plan.threshold, seconds=seconds)
    # Who has no chunk any more helps with the last ones.
    with (
        short_turns(),
        contextlib.closing(in_threads(score, read, pace.threads, pace.threads + pace.queue, scorer.help)) as scored,
    ):
        yield from scored


def _counted(seconds: StageSeconds, stage: str, chunks: Iterator[SnapshotChunk]) -> Generator[SnapshotChunk]:
    yield from seconds.asking(stage, chunks)


def score_chunk(scorer: Scorer, chunk: SnapshotChunk, threshold: float, seconds: StageSeconds) -> ScoredChunk:
    """Scores the messages of a chunk that can be scored, and refuses the others.

    A message that makes scoring itself fail is refused too; `models.inference.scorer.score_isolating_failures`
    has the rule by which it is told from a model or a device that fails.

    Args:
        scorer: texts to probabilities.
        chunk: from the snapshot.
        threshold: probability from which a message is flagged.
        seconds: what text and network took is added to.

    Raises:
        ArtifactError: the model fails, whatever the message.
        DeviceError: the device fails, whatever the message.
    """
    began = time.monotonic()
    refused = refusals(chunk)
    places = _others(len(chunk), refused)
    result = score_isolating_failures(scorer, chunk.texts.take(pa.array(places)) if refused else chunk.texts)
    failed = {int(places[place]): detail for place, detail in result.failures.items()}
    refused |= {place: set_aside(chunk, place, detail) for place, detail in failed.items()}
    kept = _others(len(places), result.failures)
    sound, probabilities = places[kept], result.scores.probabilities[kept]
    seconds.add("text", result.scores.seconds_text)
    seconds.add("network", result.scores.seconds_network)
    return ScoredChunk(
        chunk_number=chunk.chunk_number,
        first_row=chunk.first_row,
        message_ids=chunk.message_ids.take(pa.array(sound)).to_pylist(),
        row_numbers=chunk.row_numbers[sound],
        probabilities=probabilities,
        flagged=probabilities >= threshold,
        rejected=[refused[place] for place in sorted(refused)],
        seconds=time.monotonic() - began,
    )


def _others(count: int, places: Collection[int]) -> npt.NDArray[np.int64]:
    """The places of so many that are not among the given ones."""
    return np.delete(np.arange(count), list(places))


def set_aside(chunk: SnapshotChunk, place: int, detail: str) -> RejectedMessage:
    """Refuses a message of a chunk, by its place in it, that made scoring fail, and warns of it."""
    row_number, message_id = int(chunk.row_numbers[place]), chunk.message_ids[place].as_py()
    log.warning("row %d, message %a: scoring failed, set aside: %s", row_number, (message_id or "")[:80], detail)
    return RejectedMessage(row_number, message_id, "scoring failed", detail)


class _Progress:
    """How far a batch is: after each chunk, messages done, messages in all, and what to say."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._began = time.monotonic()
        self._before: int | None = None
        self._rejected = 0

    def after(self, chunk: ScoredChunk) -> tuple[int, int, str]:
        """What to tell once a chunk is committed."""
        if self._before is None:
            self._before = chunk.first_row - 1  # of chunks that an earlier run committed nothing is known but that
        finished = chunk.first_row - 1 + chunk.messages_read
        self._rejected += len(chunk.rejected)
        rate = (finished - self._before) / max(time.monotonic() - self._began, 1e-9)
        left = (self._rows - finished) / rate
        status = f"{finished:,} of {self._rows:,} scored, {rate:,.0f} a second, {left:,.0f} s left"
        return finished, self._rows, f"{status}, {self._rejected:,} rejected" if self._rejected else status
