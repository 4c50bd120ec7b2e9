"""Finds the messages of a batch that are most worth labelling, for `spamscore uncertain`.

`models.statistics.uncertainty` defines the order; this module applies it to the published scores and adds the texts.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.settings import TextSettings
from pipeline.answers.explanations import require_texts
from tasks.settings.loading import load
from tasks.stage import prepare_tensorflow

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow, ScoreRow
    from tasks.database.labels import MessageLabel

# Rows read for each message asked for, and ten times more at each further attempt: many may be near-duplicates.
_ROWS_PER_MESSAGE = 20


@dataclass(frozen=True)
class LabelCandidate:
    """A message to label; `label` is empty, for a person to fill in."""

    message_id: str
    label: str
    spam_probability: float
    flagged: bool
    text: str


def find_label_candidates(engine: Engine, batch: BatchRow, limit: int) -> list[LabelCandidate]:
    """Returns the messages nearest to the threshold of the batch, nearest first.

    Leaves out messages that have a label or are near-duplicates of one that has; of other near-duplicates, returns one.

    Args:
        engine: the database.
        batch: a published batch.
        limit: maximum number of messages.

    Raises:
        InputError: the snapshot of the batch is missing.
    """
    from tasks.database.labels import read_labels

    labels = read_labels(engine)
    row_limit = _ROWS_PER_MESSAGE * limit
    while True:
        rows = read_nearest_scores(engine, batch, row_limit, labels)
        texts = require_texts(batch, [row.message_id for row in rows])
        indices = _pick_dissimilar([texts[row.message_id] for row in rows], labels, limit)
        if len(indices) == limit or len(rows) < row_limit:
            return [
                LabelCandidate(row.message_id, "", row.spam_probability, row.flagged, texts[row.message_id])
                for row in (rows[index] for index in indices)
            ]
        row_limit *= 10


def read_nearest_scores(engine: Engine, batch: BatchRow, limit: int, labels: list[MessageLabel]) -> list[ScoreRow]:
    """Returns up to `limit` published scores of messages without a label, nearest to the threshold first."""
    from models.statistics.uncertainty import uncertainty_distance
    from tasks.database.batches import stream_scores

    labelled = {label.message_id for label in labels if label.batch_date == batch.batch_date}
    rows = (
        row for row in stream_scores(engine, batch.batch_date, order="message_id") if row.message_id not in labelled
    )
    return heapq.nsmallest(
        limit, rows, key=lambda row: (uncertainty_distance(row.spam_probability, batch.threshold), row.message_id)
    )


def _pick_dissimilar(texts: list[str], labels: list[MessageLabel], limit: int) -> list[int]:
    """Returns indices of texts that, after cleaning, are not near-duplicates of each other or of a labelled text."""
    if not texts:
        return []
    prepare_tensorflow()
    from models.statistics.uncertainty import pick_dissimilar
    from models.text.cleaning import clean_texts

    cleaned = clean_texts([*texts, *(label.text for label in labels)], load(TextSettings))
    return pick_dissimilar(cleaned[: len(texts)], cleaned[len(texts) :], limit)
