"""A published batch measured and compared: its rows and its snapshot, what there was before, the limits of [drift].

It needs TensorFlow, so a task imports it inside `run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sqlalchemy.engine import Engine

from models.reports.batch_report import HIDE
from models.statistics.arrays import IntArray
from models.statistics.stability import Psi, population_stability
from models.text.vocabulary import Vocabulary
from tasks.artifacts.locations import snapshot_folder, training_folder
from tasks.database.batches import BatchRow, find_latest_published_batch
from tasks.monitoring.batch_figures import (
    ScoreFigures,
    TextFigures,
    Watch,
    read_counts,
    read_scores,
    read_texts,
    validation_counts,
    vocabulary_of,
)
from tasks.monitoring.drift import (
    Allowed,
    Crossing,
    Drift,
    DriftFigures,
    allowed,
    crossed,
    drift_of,
    figures_before,
    with_indexes,
)
from tasks.settings.loading import load
from tasks.settings.scoring import DriftSettings, ReportSettings

_ALIKE = 20  # messages looked at for each one listed, for many may be alike


@dataclass(frozen=True)
class Measured:
    """What was found of a batch; what is not known is why, as text.

    Attributes:
        scores: of its rows.
        texts: of its snapshot.
        no_words: why no words were looked up; empty where they were.
        validation: scores of labelled messages, counted.
        before: the batch before.
        counts_before: its scores, counted.
        psi: against either.
        earlier: figures of the latest batches before, the newest first.
        figures: its own.
        limits: in force.
        crossed: of these.
        kept: what was found of it at an earlier time; None where it was not.
    """

    scores: ScoreFigures
    texts: TextFigures | str
    no_words: str
    validation: IntArray | str
    before: BatchRow | None
    counts_before: IntArray | str
    psi: tuple[Psi | None, Psi | None]
    earlier: list[DriftFigures]
    figures: DriftFigures
    limits: Mapping[str, Allowed]
    crossed: list[Crossing]
    kept: Drift | None


def measured(engine: Engine, batch: BatchRow, watch: Watch) -> Measured:
    """Reads rows and snapshot of a batch, once each, and compares them with what there was before."""
    training = training_folder(batch.checkpoint.split("/")[0])
    vocabulary, validation = vocabulary_of(training), validation_counts(training)
    scores = read_scores(engine, batch, most_wanted(), watch)
    texts = texts_of(batch, scores, None if isinstance(vocabulary, str) else vocabulary, watch)
    before = find_latest_published_batch(engine, before=batch.batch_date)
    counts_before = counts_of(engine, before)
    psi = (index_of(validation, scores.counts), index_of(counts_before, scores.counts))
    figures = figures_of_batch(batch, texts, psi)
    earlier = figures_before(engine, batch.batch_date, load(DriftSettings).batches)
    limits = allowed(earlier, load(DriftSettings))
    return Measured(
        scores=scores,
        texts=texts,
        no_words=vocabulary if isinstance(vocabulary, str) else "",
        validation=validation,
        before=before,
        counts_before=counts_before,
        psi=psi,
        earlier=earlier,
        figures=figures,
        limits=limits,
        crossed=crossed(figures, limits),
        kept=drift_of(engine, batch.batch_id),
    )


def most_wanted() -> int:
    """Messages looked at for each of the page's lists; of hidden lists one, whose text nobody asks for."""
    settings = load(ReportSettings)
    return 1 if settings.messages == HIDE else settings.listed * _ALIKE


def texts_of(batch: BatchRow, scores: ScoreFigures, vocabulary: Vocabulary | None, watch: Watch) -> TextFigures | str:
    """What the snapshot of a batch says, the texts of the messages to be listed among it."""
    settings = load(ReportSettings)
    listed = () if settings.messages == HIDE else (*scores.suspicious, *scores.uncertain)
    wanted, folder = {one.message_id for one in listed}, snapshot_folder(batch.batch_date, batch.snapshot)
    return read_texts(folder, wanted, settings.sample, vocabulary, watch)


def figures_of_batch(batch: BatchRow, texts: TextFigures | str, psi: tuple[Psi | None, Psi | None]) -> DriftFigures:
    """What of a batch is compared with others."""
    unknown = None if isinstance(texts, str) else texts.wording.unknown_share
    counts = (batch.messages_read or 0, batch.scored or 0, batch.flagged or 0)
    return with_indexes(DriftFigures(batch.batch_id, batch.batch_date, *counts, unknown_share=unknown), *psi)


def index_of(expected: IntArray | str, observed: IntArray) -> Psi | None:
    """The population stability index, if there is something to compare with."""
    return None if isinstance(expected, str) else population_stability(expected, observed)


def counts_of(engine: Engine, batch: BatchRow | None) -> IntArray | str:
    """The scores of the batch before, counted: as they were kept, or from its rows where it has no report."""
    if batch is None:
        return "none is published of an earlier date"
    kept = drift_of(engine, batch.batch_id)
    return np.array(kept.score_counts, np.int64) if kept else read_counts(engine, batch)
