"""Renders the report of a batch, one HTML file, and the index of all batch reports.

As in the evaluation report (`models.reports.evaluation_report`), the file needs no other file, and messages are
untrusted text. The caller computes all figures. Plots come from `models.reports.batch_plots`, the text from
`templates/batch.html`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation.text_statistics import TextStatistics
from models.reports.pages import load_template, quote_message
from models.statistics.arrays import IntArray
from models.statistics.stability import Psi

SHOW, MASK, HIDE = "show", "mask", "hide"
_PART_TITLES = {
    "total": "total",
    "read": "reading the snapshot",
    "text": "splitting texts into words",
    "network": "network",
    "write": "writing to the database",
    "wait": "writer waiting for scores",
    "processor": "processor time, all cores",
}
_INDEX_BATCHES = 90  # batches in the charts of the index


@dataclass(frozen=True)
class ListedMessage:
    """A message in a list of the report; `text` is None if it is not available."""

    message_id: str
    probability: float
    flagged: bool
    text: str | None


@dataclass(frozen=True)
class CountCheck:
    """Two counts of the same rows that must be equal. The JSON of a report stores the field names."""

    title: str
    expected: int | str
    found: int | str

    @property
    def agrees(self) -> bool:
        """Whether the two counts are equal."""
        return self.expected == self.found


@dataclass(frozen=True)
class LimitRow:
    """One row of the table of limits: a figure, its usual value and its allowed range, as text."""

    title: str
    value: str
    usual: str
    allowed: str
    crossed: bool = False


@dataclass(frozen=True)
class TrendPoint:
    """The figures of one published batch that the trend charts show; a figure is None if unknown."""

    date: datetime.date
    batch_id: int
    messages: int
    flagged_share: float | None
    unknown_share: float | None
    psi_before: float | None


@dataclass(frozen=True)
class BatchReport:
    """The content of the report of one batch.

    Attributes:
        batch_id: number of the batch.
        date: date of its messages.
        model: name and version of the model.
        threshold: probability from which a message is flagged.
        counts: number of messages by name: `read`, `scored`, `rejected`, `flagged`.
        count_checks: counts and the checksum, each from two sources.
        rejected: number of rejected messages by reason.
        seconds: seconds of the whole batch and of its parts, by name; empty if no times were recorded.
        points: the latest batches before this one, oldest first, then this batch.
        limits: lowest and highest allowed value for `flagged_share`, `messages`, `unknown_share`, `psi_before`.
        limit_rows: the table of limits.
        crossings: one sentence for each crossed limit.
        acceptance: who accepted the drift, and when; empty if nobody did.
        comparison: sentence about the batches that this one was compared with.
        scores: scores of the batch, counted by `models.statistics.stability.count_scores`.
        validation: counts for labelled messages that were not trained on; or the reason why there are none.
        before: counts for the previous batch; or the reason why there are none.
        psi_validation: population stability index against `validation`.
        psi_before: population stability index against `before`.
        text_statistics: statistics of the texts; or the reason why there are none.
        sample_description: the messages that these statistics were computed on.
        no_vocabulary: reason why no words were looked up; empty if they were.
        suspicious: messages with the highest probabilities.
        uncertain: messages nearest to the threshold.
        facts: tables of values by name, by title.
        previous_report: address of the report of the previous batch; empty if there is none.
        provisional: whether the batch was scored before its date was over.
    """

    batch_id: int
    date: datetime.date
    model: str
    threshold: float
    counts: Mapping[str, int]
    count_checks: Sequence[CountCheck]
    rejected: Mapping[str, int]
    seconds: Mapping[str, float]
    points: Sequence[TrendPoint]
    limits: Mapping[str, tuple[float | None, float | None]]
    limit_rows: Sequence[LimitRow]
    crossings: Sequence[str]
    acceptance: str
    comparison: str
    scores: IntArray
    validation: IntArray | str
    before: IntArray | str
    psi_validation: Psi | None
    psi_before: Psi | None
    text_statistics: TextStatistics | str
    sample_description: str
    no_vocabulary: str
    suspicious: Sequence[ListedMessage]
    uncertain: Sequence[ListedMessage]
    facts: Mapping[str, Mapping[str, object]]
    previous_report: str
    provisional: bool


def render_batch(batch: BatchReport, messages: str) -> str:
    """Renders the report of a batch as HTML.

    Args:
        batch: content of the report.
        messages: `show` the lists of messages, `mask` letters and digits in them, or `hide` the lists.
    """
    lists = [] if messages == HIDE else [("Most suspicious", batch.suspicious), ("Most uncertain", batch.uncertain)]
    return load_template("batch.html").render(
        batch=batch,
        rate=_messages_per_second(batch),
        times=_time_rows(batch.seconds),
        messages=messages,
        missing=_missing_sentences(batch),
        lists=[(title, [_quote(message, messages) for message in listed]) for title, listed in lists],
        trends=_draw_trends(batch.points, batch.limits),
        plots=_draw_plots(batch),
        scripts=_script_rows(batch.text_statistics),
    )


def render_index(points: Sequence[TrendPoint], rows: Sequence[Mapping[str, Any]], updated: str) -> str:
    """Renders the index of all batches as HTML.

    Args:
        points: figures of the batches, oldest first.
        rows: one mapping for each batch, newest first: `point`, `address` of its report, `crossed` (sentences) and
            `accepted` (by whom).
        updated: time of the update, as text.
    """
    trends = _draw_trends(points[-_INDEX_BATCHES:], {})
    return load_template("batches.html").render(trends=trends, rows=rows, updated=updated)


def mask_text(text: str) -> str:
    """Replaces every letter and digit, so that only the length and the punctuation of a text can be read."""
    return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "0", text))


def _quote(message: ListedMessage, messages: str) -> dict[str, Any]:
    text = mask_text(message.text) if message.text is not None and messages == MASK else message.text
    parts, hidden = quote_message(text) if text is not None else ((), 0)
    return {
        "id": message.message_id,
        "probability": message.probability,
        "flagged": message.flagged,
        "parts": parts,
        "hidden_characters": hidden,
        "has_text": text is not None,
    }


def _messages_per_second(batch: BatchReport) -> float | None:
    total = batch.seconds.get("total")
    return batch.counts["read"] / total if total else None


def _time_rows(seconds: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Returns the name of each part, its seconds, and their share of the total."""
    total = seconds.get("total")
    order = sorted(
        seconds, key=lambda name: list(_PART_TITLES).index(name) if name in _PART_TITLES else len(_PART_TITLES)
    )
    return [(_PART_TITLES.get(name, name), seconds[name], seconds[name] / total if total else None) for name in order]


def _missing_sentences(batch: BatchReport) -> list[str]:
    """Returns one sentence for each part that is missing, with the reason."""
    reasons = {
        "There are no scores of labelled messages to compare with": batch.validation,
        "There is no previous batch to compare with": batch.before,
        "Lengths, scripts and words are not available": batch.text_statistics,
        "Unknown words are not counted": batch.no_vocabulary if not isinstance(batch.text_statistics, str) else None,
    }
    return [f"{part}: {reason}." for part, reason in reasons.items() if isinstance(reason, str) and reason]


def _draw_trends(
    points: Sequence[TrendPoint], limits: Mapping[str, tuple[float | None, float | None]]
) -> list[tuple[str, str]]:
    """Returns title and SVG of each trend chart."""
    from models.reports.batch_plots import Trend, draw_trend

    dates = [point.date for point in points]
    figures = [
        ("Share flagged", "share", "flagged_share"),
        ("Messages", "count", "messages"),
        ("PSI of scores against the previous batch", "index", "psi_before"),
        ("Words not in the vocabulary", "share", "unknown_share"),
    ]
    return [
        (title, draw_trend(Trend(name, title, kind, dates, _values(points, name), limits.get(name, (None, None)))))
        for title, kind, name in (figures if points else [])
    ]


def _values(points: Sequence[TrendPoint], name: str) -> list[float | None]:
    return [getattr(point, name) for point in points]


def _draw_plots(batch: BatchReport) -> list[tuple[str, str, str]]:
    """Returns title, caption and SVG of each large plot."""
    from models.reports.batch_plots import draw_lengths, draw_score_shares

    validation, before = (
        None if isinstance(counts, str) else np.asarray(counts) for counts in (batch.validation, batch.before)
    )
    plots = [
        (
            "Spam probabilities",
            "Where bars and lines differ, the messages differ from the labelled messages or from the previous batch.",
            draw_score_shares(batch.scores, validation, before, batch.threshold),
        )
    ]
    if not isinstance(batch.text_statistics, str):
        caption = f"Computed on {batch.sample_description}. 160 characters are one SMS."
        plots.append(("Lengths", caption, draw_lengths(batch.text_statistics.lengths)))
    return plots


def _script_rows(statistics: TextStatistics | str) -> list[tuple[str, int, float]]:
    """Returns the name of each script, the number of messages and their share."""
    if isinstance(statistics, str) or not statistics.messages:
        return []
    return [(name, count, count / statistics.messages) for name, count in statistics.scripts.items()]
