"""The messages of a batch that are most worth a person's label: what `spamscore uncertain` lists.

Which they are is `models.statistics.uncertainty`'s; here they are found among the published scores, with their texts.
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

# Looked at for each message wanted, ten times more at the next attempt: many may be copies of one another.
_CANDIDATES = 20


@dataclass(frozen=True)
class UncertainMessage:
    """A message to be labelled; `label` is what a person fills in."""

    message_id: str
    label: str
    spam_probability: float
    flagged: bool
    text: str


def uncertain_messages(engine: Engine, batch: BatchRow, limit: int) -> list[UncertainMessage]:
    """The messages nearest to the batch's threshold, the nearest first; none that is labelled or like one that is.

    Args:
        engine: the database.
        batch: a published batch.
        limit: how many are wanted.

    Raises:
        InputError: the messages of the batch are gone.
    """
    from tasks.database.labels import found_labels

    labels = found_labels(engine)
    wanted = _CANDIDATES * limit
    while True:
        rows = nearest_scores(engine, batch, wanted, labels)
        texts = require_texts(batch, [row.message_id for row in rows])
        picked = _unlike([texts[row.message_id] for row in rows], labels, limit)
        if len(picked) == limit or len(rows) < wanted:
            chosen = [rows[place] for place in picked]
            return [
                UncertainMessage(row.message_id, "", row.spam_probability, row.flagged, texts[row.message_id])
                for row in chosen
            ]
        wanted *= 10


def nearest_scores(engine: Engine, batch: BatchRow, most: int, labels: list[MessageLabel]) -> list[ScoreRow]:
    """The published scores nearest to the threshold, of messages that nobody has labelled; the nearest first."""
    from models.statistics.uncertainty import uncertainty_distance
    from tasks.database.batches import scores

    done = {one.message_id for one in labels if one.batch_date == batch.batch_date}
    rows = (row for row in scores(engine, batch.batch_date, order="message_id") if row.message_id not in done)
    return heapq.nsmallest(
        most, rows, key=lambda row: (uncertainty_distance(row.spam_probability, batch.threshold), row.message_id)
    )


def _unlike(texts: list[str], labels: list[MessageLabel], limit: int) -> list[int]:
    """Places of those that are alike neither to one another nor to what is labelled, as the model reads them."""
    if not texts:
        return []
    prepare_tensorflow()
    from models.statistics.uncertainty import pick_dissimilar
    from models.text.cleaning import clean_texts

    cleaned = clean_texts([*texts, *(one.text for one in labels)], load(TextSettings))
    return pick_dissimilar(cleaned[: len(texts)], cleaned[len(texts) :], limit)
