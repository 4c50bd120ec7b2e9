"""Scores a snapshot and publishes the batch: plans the chunks, has an engine score and commit them, and publishes.

An engine is one module over two functions: `tasks.scoring.chunk_scoring.score_chunk` scores chunk n, and
`tasks.database.ledger.commit_chunk` commits it. `tasks.scoring.local` runs them in threads of this process,
`tasks.scoring.spark` in the executors of a Spark cluster. This module needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from sqlalchemy.engine import Engine

from tasks.database.batches import BatchRow
from tasks.database.connection import persistent_connection
from tasks.database.ledger import BatchPlan, find_committed_chunks, publish_batch, record_times, start_batch
from tasks.scoring.overlap import StageSeconds
from tasks.scoring.refusal import require_publishable
from tasks.sources.snapshots import SNAPSHOT_FILE, count_snapshot_rows, verify_snapshot

log = logging.getLogger("spamscore")

_STAGES = ("read", "text", "network", "write", "wait", "processor")


@dataclass(frozen=True)
class BatchWork:
    """Chunks of a batch to be scored and committed.

    Attributes:
        batch_id: number of the running batch.
        plan: threshold and chunk size, among others.
        snapshot: folder of the snapshot.
        rows: messages of the snapshot.
        chunk_numbers: the chunks, from 0, in ascending order.
    """

    batch_id: int
    plan: BatchPlan
    snapshot: Path
    rows: int
    chunk_numbers: Sequence[int]

    def count_messages(self) -> int:
        """Returns the number of messages in the chunks."""
        size = self.plan.chunk_size
        return sum(min(size, self.rows - number * size) for number in self.chunk_numbers)


class CommittedMessages(NamedTuple):
    """Numbers of messages that were committed since the last report of an engine: all, and the rejected ones."""

    messages: int
    rejected: int


class ScoringEngine(Protocol):
    """Scores and commits the chunks of a batch."""

    @property
    def devices(self) -> str:
        """What computes the scores, for the table of batches."""

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint that the weights are read from."""

    def close(self) -> None:
        """Frees what the engine holds."""

    def score_chunks(self, database: Engine, work: BatchWork, seconds: StageSeconds) -> Generator[CommittedMessages]:
        """Scores and commits chunks in any order, and yields what was committed, until all are.

        Args:
            database: an open database.
            work: the chunks.
            seconds: receives the seconds of reading, text, network, writing, waiting, and of all processors.
        """


def score_snapshot(
    database: Engine,
    plan: BatchPlan,
    snapshot: Path,
    engine: ScoringEngine,
    on_progress: Callable[[float, float, str], None],
    started: float,
    write_receipt: Callable[[BatchRow], None],
    take_again: Callable[[], None],
) -> BatchRow:
    """Scores the chunks that are not in the ledger yet, and publishes the batch.

    Args:
        database: an open database.
        plan: date, model, threshold and chunk size of the batch.
        snapshot: folder of the snapshot, written by ExtractMessages.
        engine: scores and commits the chunks.
        on_progress: called before the first chunk and after each report of the engine with messages done, total
            messages, and a line of status; may block.
        started: `time.monotonic()` at the start of the run, for the times of the batch.
        write_receipt: called with the batch just before it is published.
        take_again: called if too many messages are rejected; makes the next run read the source anew.

    Raises:
        RejectedError: too many messages are rejected; nothing is published.
    """
    verify_snapshot(snapshot)
    rows = count_snapshot_rows(snapshot / SNAPSHOT_FILE)
    with persistent_connection(database) as open_database:
        work = _plan_work(open_database, plan, snapshot, rows)
        seconds, progress = StageSeconds(), _Progress(rows, rows - work.count_messages())
        on_progress(*progress.update(CommittedMessages(0, 0)))
        if work.chunk_numbers:
            with contextlib.closing(engine.score_chunks(open_database, work, seconds)) as reports:
                for committed in reports:
                    on_progress(*progress.update(committed))
        # Recorded before publishing: if the run is killed after publishing, the next run finds the batch done.
        stages = {name: seconds.total(name) for name in _STAGES}
        record_times(open_database, work.batch_id, total=time.monotonic() - started, **stages)
        require_publishable(open_database, work.batch_id, plan, snapshot, rows, take_again)
        return publish_batch(open_database, work.batch_id, rows, write_receipt)


def _plan_work(database: Engine, plan: BatchPlan, snapshot: Path, rows: int) -> BatchWork:
    """Starts or resumes the batch, and returns the chunks that are not committed."""
    batch = start_batch(database, plan)
    done = find_committed_chunks(database, batch.batch_id)
    if done:
        log.info("batch %d of %s resumed: %d chunks are already scored", batch.batch_id, plan.batch_date, len(done))
    chunk_count = -(-rows // plan.chunk_size)
    chunk_numbers = [number for number in range(chunk_count) if number not in done]
    return BatchWork(batch.batch_id, plan, snapshot, rows, chunk_numbers)


class _Progress:
    """Computes the progress of a batch after each report: messages done, total messages, and a line of status.

    Args:
        rows: messages of the snapshot.
        done_before: messages of chunks that an earlier run committed.
    """

    def __init__(self, rows: int, done_before: int) -> None:
        self._rows, self._done_before, self._done = rows, done_before, done_before
        self._started = time.monotonic()
        self._rejected = 0

    def update(self, committed: CommittedMessages) -> tuple[int, int, str]:
        """Returns the progress after messages were committed."""
        self._done += committed.messages
        self._rejected += committed.rejected
        rate = (self._done - self._done_before) / max(time.monotonic() - self._started, 1e-9)
        status = f"{self._done:,} of {self._rows:,} scored"
        if rate:
            status += f", {rate:,.0f} per second, {(self._rows - self._done) / rate:,.0f} s left"
        return self._done, self._rows, f"{status}, {self._rejected:,} rejected" if self._rejected else status
