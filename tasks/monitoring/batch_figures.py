"""Reads the figures of a published batch: scores in one pass over its rows, texts in one pass over its snapshot.

Memory does not grow with the batch: scores are counted on a grid, the messages to list are found with heaps, and texts
are read in chunks. If a source is missing, the functions return the reason as text instead of raising an error.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from models.errors import ArtifactError, FormatError
from models.statistics.arrays import FloatArray, IntArray
from models.statistics.stability import GRID, count_scores
from models.statistics.uncertainty import uncertainty_distances
from tasks.database.batches import BatchRow
from tasks.database.chunks import add_checksums, checksum_rows, format_checksum
from tasks.database.connection import read_transaction
from tasks.database.tables import batch_chunks, spam_scores
from tasks.sources.snapshots import SNAPSHOT_FILE, SnapshotChunk, count_snapshot_rows, read_snapshot, verify_snapshot

if TYPE_CHECKING:
    from models.evaluation.text_statistics import TextStatistics
    from models.text.vocabulary import Vocabulary

_FETCH_ROWS = 20_000  # rows fetched at a time
_CHUNK_ROWS = 20_000  # messages of the snapshot in one chunk

ProgressCallback = Callable[[float, float, str], None]  # done, total, a line of status


@dataclass(frozen=True)
class ScoredMessage:
    """A message of the batch and its score."""

    message_id: str
    probability: float
    flagged: bool


@dataclass(frozen=True)
class ScoreFigures:
    """The figures of the rows of a batch.

    Attributes:
        rows: number of scored messages.
        flagged: number of flagged messages.
        checksum: checksum of the rows, computed like the checksum of the batch.
        counts: score counts on the grid of `models.statistics.stability`.
        suspicious: messages with the highest probabilities, highest first.
        uncertain: messages nearest to the threshold, nearest first.
    """

    rows: int
    flagged: int
    checksum: str
    counts: IntArray
    suspicious: list[ScoredMessage]
    uncertain: list[ScoredMessage]


class SmallestKeys:
    """Keeps the messages with the smallest keys of a stream. Equal keys are ordered by identifier."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: list[tuple[float, str, float, bool]] = []

    def add(self, keys: FloatArray, message_ids: list[str], probabilities: FloatArray, flagged: Any) -> None:
        """Adds messages."""
        largest = self._rows[-1][0] if len(self._rows) == self._limit else np.inf
        rows = (
            (float(keys[index]), message_ids[index], float(probabilities[index]), bool(flagged[index]))
            for index in np.flatnonzero(keys <= largest).tolist()
        )
        self._rows = heapq.nsmallest(self._limit, (*self._rows, *rows))

    def messages(self) -> list[ScoredMessage]:
        """Returns the messages, smallest key first."""
        return [ScoredMessage(*row[1:]) for row in self._rows]


def read_scores(
    engine: Engine, batch: BatchRow, limit: int, on_progress: ProgressCallback = lambda *_: None
) -> ScoreFigures:
    """Counts the scores of a batch in one stream.

    Args:
        engine: the database.
        batch: a published batch.
        limit: maximum number of suspicious and of uncertain messages.
        on_progress: called with rows read, total rows, and a line of status.

    Raises:
        DatabaseError: the database was lost.
    """
    table = spam_scores.c
    query = sa.select(table.message_id, table.spam_probability, table.flagged).where(table.batch_id == batch.batch_id)
    counts = np.zeros(len(GRID) - 1, np.int64)
    suspicious, uncertain = SmallestKeys(limit), SmallestKeys(limit)
    rows = flagged = 0
    checksums = []
    with (
        read_transaction(engine) as connection,
        connection.execution_options(yield_per=_FETCH_ROWS).execute(query) as result,
    ):
        for part in result.partitions():
            message_ids, probabilities, flags = _columns(part)
            counts += count_scores(probabilities)
            suspicious.add(-probabilities, message_ids, probabilities, flags)
            distances = uncertainty_distances(probabilities, batch.threshold)
            uncertain.add(distances, message_ids, probabilities, flags)
            checksums.append(checksum_rows(message_ids, probabilities, flags))
            rows, flagged = rows + len(part), flagged + int(flags.sum())
            on_progress(rows, batch.scored or rows, f"{rows:,} scores counted")
    checksum = format_checksum(add_checksums(checksums))
    return ScoreFigures(rows, flagged, checksum, counts, suspicious.messages(), uncertain.messages())


def _columns(rows: Iterable[Any]) -> tuple[list[str], FloatArray, Any]:
    message_ids, probabilities, flags = zip(*rows, strict=True)
    return list(message_ids), np.array(probabilities, np.float64), np.array(flags, bool)


def read_counts(engine: Engine, batch: BatchRow) -> IntArray:
    """Counts the scores of a batch on the grid, in one stream."""
    return read_scores(engine, batch, limit=1).counts


def read_ledger_counts(engine: Engine, batch_id: int) -> dict[str, int]:
    """Sums the counts of a batch's chunks in the ledger: chunks, messages_read, scored, rejected, flagged."""
    names = ("messages_read", "scored", "rejected", "flagged")
    sums = [sa.func.coalesce(sa.func.sum(batch_chunks.c[name]), 0) for name in names]
    query = sa.select(sa.func.count(), *sums).where(batch_chunks.c.batch_id == batch_id)
    with read_transaction(engine) as connection:
        row = connection.execute(query).one()
    return {name: int(value) for name, value in zip(("chunks", *names), row, strict=True)}


@dataclass(frozen=True)
class TextFigures:
    """The figures of the snapshot of a batch.

    Attributes:
        rows: number of messages in the snapshot.
        step: every `step`-th message was measured, if it has a text.
        statistics: text statistics of the measured messages.
        texts: texts of the requested messages, by identifier.
    """

    rows: int
    step: int
    statistics: TextStatistics
    texts: dict[str, str]


def read_texts(
    folder: Path,
    message_ids: set[str],
    sample: int,
    vocabulary: Vocabulary | None,
    on_progress: ProgressCallback = lambda *_: None,
) -> TextFigures | str:
    """Reads a snapshot in one stream: measures an even sample of its messages, and finds the requested texts.

    Args:
        folder: folder of the snapshot.
        message_ids: identifiers of the messages whose texts are requested.
        sample: maximum number of messages to measure.
        vocabulary: vocabulary for looking up words; None to measure no words.
        on_progress: called with messages read, total messages, and a line of status.

    Returns:
        The figures, or the reason why the snapshot cannot be read.
    """
    from models.evaluation.text_statistics import TextStatisticsCounter

    if not folder.is_dir():
        return f"the messages are no longer in {folder}"
    try:
        verify_snapshot(folder)
        rows = count_snapshot_rows(folder / SNAPSHOT_FILE)
    except ArtifactError as error:
        return str(error)
    step, counter, texts = max(-(-rows // sample), 1), TextStatisticsCounter(vocabulary), dict[str, str]()
    for chunk in read_snapshot(folder / SNAPSHOT_FILE, _CHUNK_ROWS):
        valid = _valid_rows(chunk)
        counter.add([text for number, _, text in valid if number % step == 0])
        for _, message_id, text in valid:
            if message_id in message_ids:
                texts.setdefault(message_id, text)  # if an identifier repeats, its first row was scored
        finished = chunk.first_row - 1 + len(chunk)
        on_progress(finished, rows, f"{finished:,} of {rows:,} messages read")
    return TextFigures(rows, step, counter.statistics(), texts)


def _valid_rows(chunk: SnapshotChunk) -> list[tuple[int, str, str]]:
    """Returns row number, identifier and text of the messages that have a text and no fault."""
    columns = (column.to_pylist() for column in (chunk.message_ids, chunk.texts, chunk.faults))
    return [
        (number, message_id or "", text)
        for number, message_id, text, fault in zip(chunk.row_numbers.tolist(), *columns, strict=True)
        if fault is None and text and text.strip()
    ]


def read_vocabulary(training: Path) -> Vocabulary | str:
    """Returns the vocabulary of a trained model, or the reason why it cannot be read."""
    from models.text.vocabulary import load_vocabulary
    from tasks.artifacts.folders import verify_file
    from tasks.artifacts.locations import VOCABULARY

    if not training.is_dir():
        return f"the model that scored them is no longer in {training}"
    try:
        return load_vocabulary(verify_file(training, VOCABULARY))
    except (ArtifactError, FormatError) as error:
        return str(error)


def read_validation_counts(training: Path) -> IntArray | str:
    """Counts the held-out scores of a training on the grid; returns the reason as text if there are none."""
    from models.statistics.calibration import UNSEEN_SCORES
    from tasks.artifacts.folders import list_manifest_files
    from tasks.artifacts.trainings import read_unseen_scores

    if not training.is_dir():
        return f"the model that scored them is no longer in {training}"
    try:
        if UNSEEN_SCORES not in list_manifest_files(training):
            return f"{training} was trained by an older version, which did not store them"
        return count_scores(read_unseen_scores(training)["probability"])
    except ArtifactError as error:
        return str(error)
