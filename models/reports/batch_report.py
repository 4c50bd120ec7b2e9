"""The report of a batch: one HTML file about what a night scored, for a person to read; and the index of all of them.

As an evaluation's (`models.reports.evaluation_report`), the file needs nothing beside it, and messages in it are a
stranger's
text. Figures come ready made; drawings are `models.reports.batch_plots`', the words those of `templates/batch.html`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation.text_statistics import TextStatistics
from models.reports.pages import page, quoted
from models.statistics.arrays import IntArray
from models.statistics.stability import Psi

SHOW, MASK, HIDE = "show", "mask", "hide"
_PARTS = {
    "total": "from begin to end",
    "read": "reading the snapshot",
    "text": "cutting texts into words",
    "network": "the network",
    "write": "writing to the database",
    "wait": "writing had to wait for scores",
    "processor": "of all processors together",
}
_INDEX_DAYS = 90  # batches in the charts of the index


@dataclass(frozen=True)
class ListedMessage:
    """A message to be quoted; `text` is None where it is not known."""

    message_id: str
    probability: float
    flagged: bool
    text: str | None


@dataclass(frozen=True)
class Held:
    """Two counts that must be the same, and what is counted."""

    title: str
    expected: int | str
    found: int | str

    @property
    def agrees(self) -> bool:
        """Whether they are."""
        return self.expected == self.found


@dataclass(frozen=True)
class Figure:
    """A figure that has a limit: as text, what is usual, what is allowed, and what is said if it is crossed."""

    title: str
    shown: str
    usual: str
    allowed: str
    crossed: bool = False


@dataclass(frozen=True)
class Night:
    """What is compared of a published batch with those of other dates; a figure is None where it is not known."""

    date: datetime.date
    batch_id: int
    messages: int
    flagged_share: float | None
    unknown_share: float | None
    psi_before: float | None


@dataclass(frozen=True)
class Batch:
    """All that is told of a batch.

    Attributes:
        batch_id: its number.
        date: the date of its messages.
        model: the model's name and version.
        threshold: from which on a message is flagged.
        counts: read, scored, rejected, flagged.
        held: counts and checksum, from several places.
        rejected: messages refused, by reason.
        seconds: of the whole and of its parts, by name; empty where nobody noted them.
        nights: the latest batches before it, oldest first, and itself.
        limits: by figure lowest and highest allowed: `flagged_share`, `messages`, `unknown_share`, `psi_before`.
        figures: what was held to limits.
        crossed: what was crossed, a sentence each.
        accepted: who accepted that, and when; empty where nobody did.
        compared: what is said of the comparison with the batches before.
        scores: counted by `models.statistics.stability.count_scores`.
        validation: the same, of labelled messages that were not trained on; or why there are none.
        before: the same, of the batch before; or why there is none.
        psi_validation: index against the former.
        psi_before: index against the latter.
        wording: what its texts are like; or why that is not known.
        sampled: how many messages that is said of.
        no_words: why no words were looked up; empty where they were.
        suspicious: the messages of the highest probability.
        uncertain: those nearest to the threshold.
        facts: tables: a title to names to values.
        earlier: address of the report of the batch before; empty where there is none.
    """

    batch_id: int
    date: datetime.date
    model: str
    threshold: float
    counts: Mapping[str, int]
    held: Sequence[Held]
    rejected: Mapping[str, int]
    seconds: Mapping[str, float]
    nights: Sequence[Night]
    limits: Mapping[str, tuple[float | None, float | None]]
    figures: Sequence[Figure]
    crossed: Sequence[str]
    accepted: str
    compared: str
    scores: IntArray
    validation: IntArray | str
    before: IntArray | str
    psi_validation: Psi | None
    psi_before: Psi | None
    wording: TextStatistics | str
    sampled: str
    no_words: str
    suspicious: Sequence[ListedMessage]
    uncertain: Sequence[ListedMessage]
    facts: Mapping[str, Mapping[str, object]]
    earlier: str


def render_batch(batch: Batch, messages: str) -> str:
    """Renders the report of a batch.

    Args:
        batch: what is told.
        messages: `show`, `mask` their letters and digits, or `hide` the lists of messages.
    """
    lists = [] if messages == HIDE else [("Most suspicious", batch.suspicious), ("Most uncertain", batch.uncertain)]
    return page("batch.html").render(
        batch=batch,
        rate=_rate(batch),
        times=_times(batch.seconds),
        messages=messages,
        missing=_missing(batch),
        lists=[(title, [_quoted(one, messages) for one in some]) for title, some in lists],
        courses=_courses(batch.nights, batch.limits),
        plots=_plots(batch),
        scripts=_shares(batch.wording),
    )


def render_index(nights: Sequence[Night], rows: Sequence[Mapping[str, Any]], made: str) -> str:
    """Renders the index of all batches.

    Args:
        nights: what is compared, the oldest first.
        rows: a mapping a batch, the newest first: `night`, `address` of its report, `crossed` sentences, `accepted`.
        made: when, for a person.
    """
    return page("batches.html").render(courses=_courses(nights[-_INDEX_DAYS:], {}), rows=rows, made=made)


def masked(text: str) -> str:
    """The text with every letter and digit replaced: its length and signs can be told, and not what it says."""
    return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "0", text))


def _quoted(one: ListedMessage, messages: str) -> dict[str, Any]:
    text = masked(one.text) if one.text is not None and messages == MASK else one.text
    parts, hidden = quoted(text) if text is not None else ((), 0)
    return {
        "id": one.message_id,
        "probability": one.probability,
        "flagged": one.flagged,
        "parts": parts,
        "hidden_characters": hidden,
        "known": text is not None,
    }


def _rate(batch: Batch) -> float | None:
    total = batch.seconds.get("total")
    return batch.counts["read"] / total if total else None


def _times(seconds: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Of each part its name, its seconds, and their share of the whole."""
    total = seconds.get("total")
    order = sorted(seconds, key=lambda name: list(_PARTS).index(name) if name in _PARTS else len(_PARTS))
    return [(_PARTS.get(name, name), seconds[name], seconds[name] / total if total else None) for name in order]


def _missing(batch: Batch) -> list[str]:
    """What is not known, and why, in sentences."""
    reasons = {
        "There are no scores of labelled messages to compare with": batch.validation,
        "There is no batch before to compare with": batch.before,
        "Lengths, scripts and words are not known": batch.wording,
        "Unknown words are not counted": batch.no_words if not isinstance(batch.wording, str) else None,
    }
    return [f"{said}: {why}." for said, why in reasons.items() if isinstance(why, str) and why]


def _courses(nights: Sequence[Night], limits: Mapping[str, tuple[float | None, float | None]]) -> list[tuple[str, str]]:
    """Title and drawing of each small chart."""
    from models.reports.batch_plots import Course, draw_course

    dates = [one.date for one in nights]
    figures = [
        ("Share flagged", "share", "flagged_share"),
        ("Messages", "count", "messages"),
        ("Scores unlike the batch before (PSI)", "index", "psi_before"),
        ("Words not in the vocabulary", "share", "unknown_share"),
    ]
    return [
        (title, draw_course(Course(name, title, kind, dates, _values(nights, name), limits.get(name, (None, None)))))
        for title, kind, name in (figures if nights else [])
    ]


def _values(nights: Sequence[Night], name: str) -> list[float | None]:
    return [getattr(one, name) for one in nights]


def _plots(batch: Batch) -> list[tuple[str, str, str]]:
    """Title, caption and drawing of each large plot."""
    from models.reports.batch_plots import draw_lengths, draw_score_shares

    others = [None if isinstance(one, str) else np.asarray(one) for one in (batch.validation, batch.before)]
    drawn = [
        (
            "Spam probabilities",
            "Where bars and lines part, the messages are others than those the model was tested on, or those before.",
            draw_score_shares(batch.scores, others[0], others[1], batch.threshold),
        )
    ]
    if not isinstance(batch.wording, str):
        said = f"Of {batch.sampled}. 160 characters are one short message."
        drawn.append(("Lengths", said, draw_lengths(batch.wording.lengths)))
    return drawn


def _shares(wording: TextStatistics | str) -> list[tuple[str, int, float]]:
    """Of each script its name, messages and their share."""
    if isinstance(wording, str) or not wording.messages:
        return []
    return [(name, count, count / wording.messages) for name, count in wording.scripts.items()]
