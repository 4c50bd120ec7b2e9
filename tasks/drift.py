"""How unlike those before a batch is: its figures, the limits of [drift] that they cross, and who accepted that.

Kept in the table `batch_drift`, so that later batches, alerts and metrics find it there. What measures a batch is
`tasks.report_batch`; nothing here takes a batch back.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from tasks.database import has_schema, reading, retried
from tasks.settings import DriftSettings
from tasks.tables import batch_drift, score_batches

if TYPE_CHECKING:
    from models.metrics import IntArray
    from models.stability import Psi

# A flagged share is held to its limit only if its interval, of this confidence, is beyond it too.
CONFIDENCE = 0.999


@dataclass(frozen=True)
class DriftFigures:
    """What of a batch is compared with others; a share or an index is None where it is not known.

    Attributes:
        batch_id: the batch.
        batch_date: its date.
        messages: messages read.
        scored: of them, those with a score.
        flagged: of these, those flagged.
        unknown_share: share of the words that are not in the vocabulary.
        psi_validation: population stability index against labelled messages that were not trained on.
        psi_validation_by_chance: the index that chance alone rarely exceeds, of so few messages.
        psi_before: population stability index against the batch before.
        psi_before_by_chance: as above.
    """

    batch_id: int
    batch_date: datetime.date
    messages: int
    scored: int
    flagged: int
    unknown_share: float | None = None
    psi_validation: float | None = None
    psi_validation_by_chance: float | None = None
    psi_before: float | None = None
    psi_before_by_chance: float | None = None

    @property
    def flagged_share(self) -> float | None:
        """Share of the scored messages that were flagged; None if none was scored."""
        return self.flagged / self.scored if self.scored else None


@dataclass(frozen=True)
class Crossing:
    """A limit that was crossed: its key in [drift], the figure, where the limit lies, and a sentence for a person."""

    limit: str
    value: float
    allowed: float
    said: str


@dataclass(frozen=True)
class Drift:
    """What is kept of a batch: its figures, its scores as `models.stability.count_scores` counts them, what it crossed.

    `accepted_by` is who said that what it crossed is as it should be; None while nobody did.
    """

    figures: DriftFigures
    score_counts: list[int]
    crossed: list[Crossing]
    measured_at: datetime.datetime
    accepted_at: datetime.datetime | None = None
    accepted_by: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it crossed a limit, and nobody has accepted that."""
        return bool(self.crossed) and self.accepted_at is None

    @property
    def said(self) -> str:
        """What was crossed, in one line."""
        return "; ".join(one.said for one in self.crossed)


def crossed(figures: DriftFigures, before: Sequence[DriftFigures], settings: DriftSettings) -> list[Crossing]:
    """The limits that a batch crosses.

    Args:
        figures: of the batch.
        before: of the latest batches before it; those beyond `settings.batches` do not count.
        settings: the limits.
    """
    found = [
        _index("psi_validation", "those of labelled messages", figures, settings),
        _index("psi_before", "those of the batch before", figures, settings),
    ]
    compared = list(before)[: settings.batches]
    if len(compared) >= settings.least_batches:
        found += [
            _flagged_share(figures, compared, settings.flagged_share),
            _message_count(figures, compared, settings.message_count),
            _unknown_words(figures, compared, settings.unknown_words),
        ]
    return [one for one in found if one is not None]


def _index(limit: str, against: str, figures: DriftFigures, settings: DriftSettings) -> Crossing | None:
    value, allowed = getattr(figures, limit), getattr(settings, limit)
    by_chance = getattr(figures, f"{limit}_by_chance") or 0.0
    if not allowed or value is None or value <= max(allowed, by_chance):
        return None
    said = f"the scores are unlike {against}: a population stability index of {value:.3f}, where {allowed:g} is allowed"
    return Crossing(limit, value, allowed, said)


def _flagged_share(figures: DriftFigures, before: Sequence[DriftFigures], times: float) -> Crossing | None:
    from models.factors import share_interval

    scored = [one for one in before if one.flagged_share is not None]
    interval = share_interval(figures.flagged, figures.scored, CONFIDENCE)
    if not times or interval is None or not scored:
        return None
    # Where nothing was flagged in most of them, as if it had been one message.
    usual = statistics.median(one.flagged_share or 0.0 for one in scored)
    usual = usual or 1 / statistics.median(one.scored for one in scored)
    low, high = usual / times, usual * times
    if interval.low <= high and interval.high >= low:
        return None
    said = (
        f"{interval.value:.2%} of the messages are flagged, where {low:.2%} to {high:.2%} are allowed (the median of "
        f"{len(scored)} batches is {usual:.2%})"
    )
    return Crossing("flagged_share", interval.value, high if interval.value > usual else low, said)


def _message_count(figures: DriftFigures, before: Sequence[DriftFigures], times: float) -> Crossing | None:
    usual = statistics.median(one.messages for one in before)
    if not times or usual / times <= figures.messages <= usual * times:
        return None
    low, high = usual / times, usual * times
    said = (
        f"there are {figures.messages:,} messages, where {low:,.0f} to {high:,.0f} are allowed (the median of "
        f"{len(before)} batches is {usual:,.0f})"
    )
    return Crossing("message_count", figures.messages, high if figures.messages > usual else low, said)


def _unknown_words(figures: DriftFigures, before: Sequence[DriftFigures], above: float) -> Crossing | None:
    known = [one.unknown_share for one in before if one.unknown_share is not None]
    if not above or figures.unknown_share is None or not known:
        return None
    usual = statistics.median(known)
    if figures.unknown_share <= usual + above:
        return None
    said = (
        f"{figures.unknown_share:.1%} of the words are not in the vocabulary, where {usual + above:.1%} is allowed "
        f"(the median of {len(known)} batches is {usual:.1%})"
    )
    return Crossing("unknown_words", figures.unknown_share, usual + above, said)


def with_indexes(figures: DriftFigures, validation: Psi | None, before: Psi | None) -> DriftFigures:
    """The figures with the indexes put in."""
    return dataclasses.replace(
        figures,
        psi_validation=validation.value if validation else None,
        psi_validation_by_chance=validation.by_chance if validation else None,
        psi_before=before.value if before else None,
        psi_before_by_chance=before.by_chance if before else None,
    )


_KEPT = ("unknown_share", "psi_validation", "psi_validation_by_chance", "psi_before", "psi_before_by_chance")
_BATCH = score_batches.c
_COLUMNS = (
    _BATCH.batch_id,
    _BATCH.batch_date,
    _BATCH.messages_read,
    _BATCH.scored,
    _BATCH.flagged,
    *(batch_drift.c[name] for name in _KEPT),
)


def write_drift(engine: Engine, figures: DriftFigures, score_counts: IntArray, found: Sequence[Crossing]) -> Drift:
    """Keeps what was found of a batch; measured again, it takes the place of what was there, but for who accepted it.

    Raises:
        DatabaseError: the database refused or was lost.
    """
    values = {name: getattr(figures, name) for name in _KEPT} | {
        "score_counts": json.dumps(score_counts.tolist()),
        "crossed": json.dumps([dataclasses.asdict(one) for one in found]),
        "measured_at": datetime.datetime.now(datetime.UTC),
    }
    there = batch_drift.c.batch_id == figures.batch_id

    def write(connection: Connection) -> None:
        if connection.scalar(sa.select(batch_drift.c.batch_id).where(there).with_for_update()) is None:
            connection.execute(sa.insert(batch_drift).values(batch_id=figures.batch_id, **values))
        else:
            connection.execute(sa.update(batch_drift).where(there).values(values))

    retried(engine, write)
    (kept,) = _drifts(engine, there)
    return kept


def accept_drift(engine: Engine, batch_id: int, person: str) -> None:
    """Notes that a person looked at what a batch crossed, and says that it is as it should be.

    Raises:
        DatabaseError: the database refused or was lost.
    """
    values = {"accepted_at": datetime.datetime.now(datetime.UTC), "accepted_by": person}
    statement = sa.update(batch_drift).where(batch_drift.c.batch_id == batch_id).values(values)
    retried(engine, lambda connection: connection.execute(statement))


def drift_of(engine: Engine, batch_id: int) -> Drift | None:
    """What is kept of a batch; None before its report was made."""
    found = _drifts(engine, batch_drift.c.batch_id == batch_id)
    return found[0] if found else None


def drifts(engine: Engine) -> list[Drift]:
    """What is kept of the published batches, the newest date first."""
    return _drifts(engine, _BATCH.published_date.is_not(None))


def latest_drift(engine: Engine) -> Drift | None:
    """What is kept of the published batch of the newest date that has a report; None where there is none."""
    found = _drifts(engine, _BATCH.published_date.is_not(None), limit=1)
    return found[0] if found else None


def figures_before(engine: Engine, date: datetime.date, most: int) -> list[DriftFigures]:
    """The figures of the published batches before a date, the newest first; reported or not, for most are counts."""
    if not has_schema(engine):
        return []
    wanted = (
        sa.select(*_COLUMNS)
        .select_from(score_batches.outerjoin(batch_drift))
        .where(_BATCH.published_date < date)
        .order_by(_BATCH.published_date.desc())
        .limit(most)
    )
    with reading(engine) as connection:
        return [DriftFigures(*row) for row in connection.execute(wanted)]


def _drifts(engine: Engine, which: sa.ColumnElement[bool], limit: int | None = None) -> list[Drift]:
    if not has_schema(engine):
        return []
    rest = ("score_counts", "crossed", "measured_at", "accepted_at", "accepted_by")
    wanted = (
        sa.select(*_COLUMNS, *(batch_drift.c[name] for name in rest))
        .select_from(score_batches.join(batch_drift))
        .where(which)
        .order_by(_BATCH.batch_date.desc(), _BATCH.batch_id.desc())
        .limit(limit)
    )
    with reading(engine) as connection:
        return [_drift(row) for row in connection.execute(wanted)]


def _drift(row: Any) -> Drift:
    figures, (counts, found, *rest) = row[: len(_COLUMNS)], row[len(_COLUMNS) :]
    return Drift(DriftFigures(*figures), json.loads(counts), [Crossing(**one) for one in json.loads(found)], *rest)
