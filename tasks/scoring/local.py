"""The engine that scores in this process: reads, tokenizes, scores and commits chunk by chunk.

The four stages overlap. A thread reads chunks ahead. As many threads as there are cores score one chunk each; only one
of them tokenizes at a time. The calling thread commits. A Spark executor does the same with its part of the chunks.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from models.settings import DeviceSettings
from tasks.database.connection import persistent_connection
from tasks.database.ledger import commit_chunk
from tasks.scoring.batch import BatchWork, CommittedMessages
from tasks.scoring.overlap import StageSeconds, map_in_threads, read_ahead, short_switch_interval
from tasks.scoring.scorer import load_scorer
from tasks.settings.loading import load
from tasks.settings.scoring import ScoringSettings
from tasks.sources.snapshots import SNAPSHOT_FILE, SnapshotChunk, read_snapshot
from tasks.stage import prepare_tensorflow, processor_threads

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from models.inference.scorer import Scorer
    from tasks.database.chunks import ScoredChunk

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


class LocalEngine:
    """Scores chunks with the devices of this machine. The model is loaded when the first date needs it.

    Args:
        version: the model version, for the log.
        training: the folder of its training.
        checkpoint: the checkpoint whose weights are loaded; by default, the final weights of the training.
    """

    def __init__(self, version: int, training: Path, checkpoint: str | None = None) -> None:
        self._version, self._training, self._checkpoint = version, training, checkpoint

    @property
    def devices(self) -> str:
        """The names of the devices, separated by commas."""
        return ",".join(device.removeprefix("/device:").lower() for device in self._loaded[0].devices)

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint that the weights were read from."""
        return self._loaded[1]

    def close(self) -> None:
        """Does nothing: the model is freed with the process."""

    def score_chunks(self, database: Engine, work: BatchWork, seconds: StageSeconds) -> Generator[CommittedMessages]:
        """Scores and commits chunks; see `tasks.scoring.batch.ScoringEngine`."""
        scorer = self._loaded[0]
        threads = scorer.threads or processor_threads(load(DeviceSettings))
        return score_and_commit(database, scorer, work, Concurrency(threads, load(ScoringSettings).queue), seconds)

    @cached_property
    def _loaded(self) -> tuple[Scorer, str]:
        prepare_tensorflow()
        scorer, checkpoint = load_scorer(self._training, self._checkpoint)
        log.info("version %d loaded, from checkpoint %s/%s", self._version, self._training.name, checkpoint)
        return scorer, checkpoint


def score_and_commit(
    database: Engine, scorer: Scorer, work: BatchWork, concurrency: Concurrency, seconds: StageSeconds
) -> Generator[CommittedMessages]:
    """Scores chunks in threads, commits each in this thread, and yields its counts once it is committed.

    Args:
        database: an open database.
        scorer: texts to probabilities.
        work: the chunks.
        concurrency: threads and queues.
        seconds: receives the seconds of the stages and of the processor.

    Raises:
        ArtifactError: the snapshot is damaged, or the model fails on every message.
        DeviceError: the device fails on every message.
        DatabaseError: the batch is no longer running, the database reported an error, or the connection was lost.
    """
    processor = time.process_time()
    with (
        persistent_connection(database) as open_database,
        contextlib.closing(_score_in_threads(scorer, work, concurrency, seconds)) as chunks,
    ):
        for scored in seconds.measure_items("wait", chunks):
            with seconds.measure("write"):
                commit_chunk(open_database, work.batch_id, scored)
            yield CommittedMessages(scored.messages_read, len(scored.rejected))
    seconds.add("processor", time.process_time() - processor)


def _score_in_threads(
    scorer: Scorer, work: BatchWork, concurrency: Concurrency, seconds: StageSeconds
) -> Generator[ScoredChunk]:
    """Yields scored chunks. Reading and scoring overlap with the caller's work."""
    from tasks.scoring.chunk_scoring import score_chunk

    chunks = read_snapshot(work.snapshot / SNAPSHOT_FILE, work.plan.chunk_size, work.chunk_numbers)
    queued = read_ahead(_measure_items(seconds, "read", chunks), concurrency.queue)
    score = partial(score_chunk, scorer, threshold=work.plan.threshold, seconds=seconds)
    threads = concurrency.threads
    # A thread without a chunk helps the others with the last chunks.
    with (
        short_switch_interval(),
        contextlib.closing(map_in_threads(score, queued, threads, threads + concurrency.queue, scorer.help)) as scored,
    ):
        yield from scored


def _measure_items(seconds: StageSeconds, stage: str, chunks: Iterator[SnapshotChunk]) -> Generator[SnapshotChunk]:
    yield from seconds.measure_items(stage, chunks)
