"""How unlike those before a batch is: its figures, the limits of [drift] that they cross, and who accepted that.

Kept in the table `batch_drift`, so that later batches, alerts and metrics find it there. What measures a batch is
`tasks.report_batch`; nothing here takes a batch back.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from tasks.database.connection import reading, retried
from tasks.database.schema import has_table
from tasks.database.tables import batch_drift, score_batches
from tasks.settings.scoring import DriftSettings

if TYPE_CHECKING:
    from models.statistics.arrays import IntArray
    from models.statistics.stability import Psi

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
    """What is kept of a batch: its figures, its scores as `models.statistics.stability.count_scores` counts them,
    what it crossed.

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


@dataclass(frozen=True)
class Allowed:
    """What a figure may be: from `low` to `high`, None where that end is open. `usual`: the median of `batches`."""

    low: float | None
    high: float | None
    usual: float | None = None
    batches: int = 0


def allowed(before: Sequence[DriftFigures], settings: DriftSettings) -> dict[str, Allowed]:
    """The limits in force, by their keys in [drift].

    Args:
        before: the latest batches before, the newest first; those beyond `settings.batches` do not count.
        settings: the limits.
    """
    found = {
        key: Allowed(None, getattr(settings, key)) for key in ("psi_before", "psi_validation") if getattr(settings, key)
    }
    compared = list(before)[: settings.batches]
    if len(compared) < settings.least_batches:
        return found
    shares = [one.flagged_share for one in compared if one.flagged_share is not None]
    if settings.flagged_share and shares:
        # Where nothing was flagged in most of them, as if it had been one message.
        usual = statistics.median(shares) or 1 / statistics.median(one.scored for one in compared if one.scored)
        found["flagged_share"] = _around(usual, settings.flagged_share, len(shares))
    if settings.message_count:
        usual = statistics.median(one.messages for one in compared)
        found["message_count"] = _around(usual, settings.message_count, len(compared))
    unknown = [one.unknown_share for one in compared if one.unknown_share is not None]
    if settings.unknown_words and unknown:
        usual = statistics.median(unknown)
        found["unknown_words"] = Allowed(None, usual + settings.unknown_words, usual, len(unknown))
    return found


def _around(usual: float, times: float, batches: int) -> Allowed:
    return Allowed(usual / times, usual * times, usual, batches)


def crossed(figures: DriftFigures, limits: Mapping[str, Allowed]) -> list[Crossing]:
    """The limits that a batch crosses; none by what may be chance.

    Args:
        figures: of the batch.
        limits: what `allowed` gave.
    """
    found = []
    for key, one in limits.items():
        value = figure_of(figures, key)
        if value is not None and _is_beyond(key, figures, one):
            end = one.high if one.high is not None and value > one.high else one.low
            found.append(
                Crossing(
                    key, value, float(end or 0), f"{_SAID[key].format(SHOWN[key](value))}, where {_said(key, one)}"
                )
            )
    return found


def figure_of(figures: DriftFigures, limit: str) -> Any:
    """The figure that a limit of [drift] is for; None where it is not known."""
    return getattr(figures, _FIGURE[limit])


def _is_beyond(key: str, figures: DriftFigures, one: Allowed) -> bool:
    if key == "flagged_share":
        from models.evaluation.factors import share_interval

        interval = share_interval(figures.flagged, figures.scored, CONFIDENCE)
        low, high = (interval.high, interval.low) if interval else (0.0, 0.0)
    else:
        low = high = figure_of(figures, key)
    by_chance = getattr(figures, f"{key}_by_chance", None) or 0.0
    return bool((one.low is not None and low < one.low) or (one.high is not None and high > max(one.high, by_chance)))


def _said(key: str, one: Allowed) -> str:
    shown = SHOWN[key]
    low = "" if one.low is None else f"{shown(one.low)} to "
    usual = f" (the median of {one.batches} batches is {shown(one.usual)})" if one.usual is not None else ""
    return f"{low}{shown(one.high)} is allowed{usual}"


# By limit the figure it is for, how that is shown, and how a sentence about it begins.
_FIGURE = {
    "flagged_share": "flagged_share",
    "message_count": "messages",
    "unknown_words": "unknown_share",
    "psi_before": "psi_before",
    "psi_validation": "psi_validation",
}
SHOWN: dict[str, Callable[[Any], str]] = {
    "flagged_share": lambda value: f"{value * 100:.2f} %",
    "message_count": "{:,.0f}".format,
    "unknown_words": lambda value: f"{value * 100:.1f} %",
    "psi_before": "{:.3f}".format,
    "psi_validation": "{:.3f}".format,
}
_SAID = {
    "flagged_share": "{} of the messages are flagged",
    "message_count": "there are {} messages",
    "unknown_words": "{} of the words are not in the vocabulary",
    "psi_before": "the scores are unlike the batch before, by an index (PSI) of {}",
    "psi_validation": "the scores are unlike labelled messages, by an index (PSI) of {}",
}


def with_indexes(figures: DriftFigures, validation: Psi | None, before: Psi | None) -> DriftFigures:
    """The figures with the indexes put in."""
    return dataclasses.replace(
        figures,
        psi_validation=validation.value if validation else None,
        psi_validation_by_chance=validation.critical_value if validation else None,
        psi_before=before.value if before else None,
        psi_before_by_chance=before.critical_value if before else None,
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


def drifts(engine: Engine, limit: int | None = None) -> list[Drift]:
    """What is kept of the published batches, the newest date first; of the latest so many, if a limit is given."""
    return _drifts(engine, _BATCH.published_date.is_not(None), limit)


def latest_drift(engine: Engine) -> Drift | None:
    """What is kept of the published batch of the newest date that has a report; None where there is none."""
    found = drifts(engine, 1)
    return found[0] if found else None


def figures_before(engine: Engine, date: datetime.date, most: int) -> list[DriftFigures]:
    """The figures of the published batches before a date, the newest first; reported or not, for most are counts."""
    if not has_table(engine, batch_drift.name):
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
    if not has_table(engine, batch_drift.name):
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
