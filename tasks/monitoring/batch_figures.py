"""What a published batch holds: its scores, counted in one pass over its rows, and its texts, in one over its snapshot.

Memory does not grow with the batch: scores are counted on a grid, the messages to be shown are found with heaps, texts
come by in chunks. What is missing is said, and is no error.
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
from tasks.database.chunks import add_checksums, checksum_rows, show_checksum
from tasks.database.connection import reading
from tasks.database.tables import batch_chunks, rejected_messages, spam_scores
from tasks.sources.snapshots import SNAPSHOT_FILE, SnapshotChunk, read_snapshot, snapshot_rows, verify_snapshot

if TYPE_CHECKING:
    from models.evaluation.text_statistics import Wording
    from models.text.vocabulary import Vocabulary

_FETCH = 20_000  # rows asked for at a time
_CHUNK = 20_000  # messages of the snapshot looked at together

Watch = Callable[[float, float, str], None]


@dataclass(frozen=True)
class ScoredMessage:
    """A message of the batch, and its score."""

    message_id: str
    probability: float
    flagged: bool


@dataclass(frozen=True)
class ScoreFigures:
    """What the rows of a batch say.

    Attributes:
        rows: scored messages.
        flagged: of them, those flagged.
        checksum: as the batch's own is made.
        counts: on the grid of `models.statistics.stability`.
        suspicious: the messages of the highest probability, the highest first.
        uncertain: those nearest to the threshold, the nearest first.
    """

    rows: int
    flagged: int
    checksum: str
    counts: IntArray
    suspicious: list[ScoredMessage]
    uncertain: list[ScoredMessage]


class Least:
    """Keeps the messages of the smallest keys, of any number that go by; equal keys in the order of identifiers."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[float, str, float, bool]] = []

    def add(self, keys: FloatArray, message_ids: list[str], probabilities: FloatArray, flagged: Any) -> None:
        """Lets some messages go by."""
        worst = self._kept[-1][0] if len(self._kept) == self._most else np.inf
        rows = (
            (float(keys[place]), message_ids[place], float(probabilities[place]), bool(flagged[place]))
            for place in np.flatnonzero(keys <= worst).tolist()
        )
        self._kept = heapq.nsmallest(self._most, (*self._kept, *rows))

    def messages(self) -> list[ScoredMessage]:
        """Those kept, the smallest key first."""
        return [ScoredMessage(*row[1:]) for row in self._kept]


def read_scores(engine: Engine, batch: BatchRow, most: int, watch: Watch = lambda *_: None) -> ScoreFigures:
    """Counts the scores of a batch in one stream.

    Args:
        engine: the database.
        batch: a batch that was published.
        most: messages wanted of each kind.
        watch: told rows read, rows in all, and a line of status.

    Raises:
        DatabaseError: the database was lost.
    """
    table = spam_scores.c
    wanted = sa.select(table.message_id, table.spam_probability, table.flagged).where(table.batch_id == batch.batch_id)
    counts = np.zeros(len(GRID) - 1, np.int64)
    suspicious, uncertain = Least(most), Least(most)
    rows = flagged = 0
    checksums = []
    with reading(engine) as connection, connection.execution_options(yield_per=_FETCH).execute(wanted) as result:
        for part in result.partitions():
            message_ids, probabilities, flags = _columns(part)
            counts += count_scores(probabilities)
            suspicious.add(-probabilities, message_ids, probabilities, flags)
            distances = uncertainty_distances(probabilities, batch.threshold)
            uncertain.add(distances, message_ids, probabilities, flags)
            checksums.append(checksum_rows(message_ids, probabilities, flags))
            rows, flagged = rows + len(part), flagged + int(flags.sum())
            watch(rows, batch.scored or rows, f"{rows:,} scores counted")
    checksum = show_checksum(add_checksums(checksums))
    return ScoreFigures(rows, flagged, checksum, counts, suspicious.messages(), uncertain.messages())


def _columns(rows: Iterable[Any]) -> tuple[list[str], FloatArray, Any]:
    message_ids, probabilities, flags = zip(*rows, strict=True)
    return list(message_ids), np.array(probabilities, np.float64), np.array(flags, bool)


def read_counts(engine: Engine, batch: BatchRow) -> IntArray:
    """The scores of a batch counted on the grid, in one stream."""
    return read_scores(engine, batch, most=1).counts


def rejected_reasons(engine: Engine, batch_id: int) -> dict[str, int]:
    """Messages refused, by reason, the most frequent first."""
    reason, number = rejected_messages.c.reason, sa.func.count()
    wanted = sa.select(reason, number).where(rejected_messages.c.batch_id == batch_id).group_by(reason)
    with reading(engine) as connection:
        found = connection.execute(wanted).all()
    return {str(name): int(count) for name, count in sorted(found, key=lambda row: (-row[1], row[0]))}


def ledger_counts(engine: Engine, batch_id: int) -> dict[str, int]:
    """What the chunks of a batch say together: chunks, messages_read, scored, rejected, flagged."""
    names = ("messages_read", "scored", "rejected", "flagged")
    sums = [sa.func.coalesce(sa.func.sum(batch_chunks.c[name]), 0) for name in names]
    wanted = sa.select(sa.func.count(), *sums).where(batch_chunks.c.batch_id == batch_id)
    with reading(engine) as connection:
        row = connection.execute(wanted).one()
    return {name: int(value) for name, value in zip(("chunks", *names), row, strict=True)}


@dataclass(frozen=True)
class TextFigures:
    """What the snapshot of a batch says.

    Attributes:
        rows: messages in it.
        every: of which each so many-th was looked at, as far as it has a text.
        wording: of these.
        texts: of the messages asked for, by identifier.
    """

    rows: int
    every: int
    wording: Wording
    texts: dict[str, str]


def read_texts(
    folder: Path,
    wanted: set[str],
    sample: int,
    vocabulary: Vocabulary | None,
    watch: Watch = lambda *_: None,
) -> TextFigures | str:
    """Reads a snapshot in one stream: measures messages evenly from all of it, and finds the texts that are wanted.

    Args:
        folder: of the snapshot.
        wanted: identifiers of messages whose texts are wanted.
        sample: most messages measured.
        vocabulary: what words are looked up in; None measures no words.
        watch: told messages read, messages in all, and a line of status.

    Returns:
        The figures; or why the snapshot cannot be read.
    """
    from models.evaluation.text_statistics import WordingCount

    if not folder.is_dir():
        return f"the messages are not in {folder} any more"
    try:
        verify_snapshot(folder)
        rows = snapshot_rows(folder / SNAPSHOT_FILE)
    except ArtifactError as error:
        return str(error)
    every, count, texts = max(-(-rows // sample), 1), WordingCount(vocabulary), dict[str, str]()
    for chunk in read_snapshot(folder / SNAPSHOT_FILE, _CHUNK):
        sound = _sound(chunk)
        count.add([text for number, _, text in sound if number % every == 0])
        for _, message_id, text in sound:
            if message_id in wanted:
                texts.setdefault(message_id, text)  # of rows with one identifier the first was scored
        finished = chunk.first_row - 1 + len(chunk)
        watch(finished, rows, f"{finished:,} of {rows:,} messages looked at")
    return TextFigures(rows, every, count.wording(), texts)


def _sound(chunk: SnapshotChunk) -> list[tuple[int, str, str]]:
    """Row number, identifier and text of the messages that have a text, and no fault."""
    columns = (one.to_pylist() for one in (chunk.message_ids, chunk.texts, chunk.faults))
    return [
        (number, message_id or "", text)
        for number, message_id, text, fault in zip(chunk.row_numbers.tolist(), *columns, strict=True)
        if fault is None and text and text.strip()
    ]


def vocabulary_of(training: Path) -> Vocabulary | str:
    """The vocabulary of a trained model; or why it cannot be read."""
    from models.text.vocabulary import load_vocabulary
    from tasks.artifacts.folders import verify_file
    from tasks.artifacts.locations import VOCABULARY

    if not training.is_dir():
        return f"the model that scored them is not in {training} any more"
    try:
        return load_vocabulary(verify_file(training, VOCABULARY))
    except (ArtifactError, FormatError) as error:
        return str(error)


def validation_counts(training: Path) -> IntArray | str:
    """The scores of labelled messages that a model was not trained on, counted on the grid; or why there are none."""
    from models.statistics.calibration import UNSEEN_SCORES
    from tasks.artifacts.folders import list_manifest_files
    from tasks.artifacts.trainings import read_unseen_scores

    if not training.is_dir():
        return f"the model that scored them is not in {training} any more"
    try:
        if UNSEEN_SCORES not in list_manifest_files(training):
            return f"{training} was trained before they were kept"
        return count_scores(read_unseen_scores(training)["probability"])
    except ArtifactError as error:
        return str(error)
