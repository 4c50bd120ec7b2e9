"""Scores the messages of one chunk of a snapshot. Every engine calls it; it needs TensorFlow."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.inference.scorer import Scorer, score_isolating_failures
from tasks.database.chunks import RejectedMessage, ScoredChunk, find_rejections
from tasks.scoring.overlap import StageSeconds
from tasks.sources.snapshots import SnapshotChunk

log = logging.getLogger("spamscore")


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
