"""Measures a published batch and compares it with earlier batches and with the limits of [drift].

The module needs TensorFlow, so a task imports it inside `run`.
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
    ProgressCallback,
    ScoreFigures,
    TextFigures,
    read_counts,
    read_scores,
    read_texts,
    read_validation_counts,
    read_vocabulary,
)
from tasks.monitoring.drift import (
    AllowedRange,
    Crossing,
    Drift,
    DriftFigures,
    compute_limits,
    find_crossings,
    read_drift,
    read_earlier_figures,
    with_indexes,
)
from tasks.settings.loading import load
from tasks.settings.scoring import DriftSettings, ReportSettings

_CANDIDATES = 20  # candidates for each listed message, because many may be similar


@dataclass(frozen=True)
class BatchComparison:
    """The measurements of a batch and of what it is compared with. A missing part is the reason, as text.

    Attributes:
        scores: figures of its rows.
        texts: figures of its snapshot.
        no_vocabulary: reason why no words were looked up; empty if they were.
        validation: score counts of labelled messages.
        before: the previous batch that is not provisional; None if there is none.
        counts_before: score counts of the previous batch.
        psi: population stability indexes against `validation` and against `counts_before`.
        earlier: figures of the latest earlier batches, newest first.
        figures: figures of this batch.
        limits: limits in force, by key in [drift].
        crossed: limits that this batch crosses.
        stored: drift that an earlier run stored for this batch; None if there is none.
    """

    scores: ScoreFigures
    texts: TextFigures | str
    no_vocabulary: str
    validation: IntArray | str
    before: BatchRow | None
    counts_before: IntArray | str
    psi: tuple[Psi | None, Psi | None]
    earlier: list[DriftFigures]
    figures: DriftFigures
    limits: Mapping[str, AllowedRange]
    crossed: list[Crossing]
    stored: Drift | None


def compare_batch(engine: Engine, batch: BatchRow, on_progress: ProgressCallback) -> BatchComparison:
    """Reads the rows and the snapshot of a batch, once each, and compares the figures with earlier batches."""
    training = training_folder(batch.checkpoint.split("/")[0])
    vocabulary, validation = read_vocabulary(training), read_validation_counts(training)
    scores = read_scores(engine, batch, candidate_limit(), on_progress)
    texts = read_batch_texts(batch, scores, None if isinstance(vocabulary, str) else vocabulary, on_progress)
    before = find_latest_published_batch(engine, before=batch.batch_date, final=True)
    counts_before = read_score_counts(engine, before)
    psi = (compute_psi(validation, scores.counts), compute_psi(counts_before, scores.counts))
    figures = compute_drift_figures(batch, texts, psi)
    earlier = read_earlier_figures(engine, batch.batch_date, load(DriftSettings).batches)
    limits = compute_limits(earlier, load(DriftSettings))
    if batch.provisional:
        limits.pop("message_count", None)  # the date is not over: it has fewer messages than whole dates
    return BatchComparison(
        scores=scores,
        texts=texts,
        no_vocabulary=vocabulary if isinstance(vocabulary, str) else "",
        validation=validation,
        before=before,
        counts_before=counts_before,
        psi=psi,
        earlier=earlier,
        figures=figures,
        limits=limits,
        crossed=find_crossings(figures, limits),
        stored=read_drift(engine, batch.batch_id),
    )


def candidate_limit() -> int:
    """Returns the number of candidates for each list of messages; 1 if the lists are hidden."""
    settings = load(ReportSettings)
    return 1 if settings.messages == HIDE else settings.listed * _CANDIDATES


def read_batch_texts(
    batch: BatchRow, scores: ScoreFigures, vocabulary: Vocabulary | None, on_progress: ProgressCallback
) -> TextFigures | str:
    """Reads the figures of the snapshot of a batch, and the texts of the messages that may be listed."""
    settings = load(ReportSettings)
    candidates = () if settings.messages == HIDE else (*scores.suspicious, *scores.uncertain)
    message_ids = {message.message_id for message in candidates}
    folder = snapshot_folder(batch.batch_date, batch.snapshot)
    return read_texts(folder, message_ids, settings.sample, vocabulary, on_progress)


def compute_drift_figures(
    batch: BatchRow, texts: TextFigures | str, psi: tuple[Psi | None, Psi | None]
) -> DriftFigures:
    """Returns the figures of a batch that are compared with other batches."""
    unknown = None if isinstance(texts, str) else texts.statistics.unknown_share
    counts = (batch.messages_read or 0, batch.scored or 0, batch.flagged or 0)
    return with_indexes(DriftFigures(batch.batch_id, batch.batch_date, *counts, unknown_share=unknown), *psi)


def compute_psi(expected: IntArray | str, observed: IntArray) -> Psi | None:
    """Returns the population stability index; None if there are no expected counts."""
    return None if isinstance(expected, str) else population_stability(expected, observed)


def read_score_counts(engine: Engine, batch: BatchRow | None) -> IntArray | str:
    """Returns the score counts of the previous batch: stored ones, or from its rows if it was never measured."""
    if batch is None:
        return "no batch of an earlier date is published"
    stored = read_drift(engine, batch.batch_id)
    return np.array(stored.score_counts, np.int64) if stored else read_counts(engine, batch)
