"""Drift of a batch: its figures, the limits of [drift] that they cross, and who accepted that.

The drift is stored in the table `batch_drift`, where later batches, alerts and metrics read it. `tasks.report_batch`
measures a batch. This module never withdraws a batch.
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

from tasks.database.batches import is_final
from tasks.database.connection import read_transaction, run_with_retries
from tasks.database.schema import has_table
from tasks.database.tables import batch_drift, score_batches
from tasks.settings.scoring import DriftSettings

if TYPE_CHECKING:
    from models.statistics.arrays import IntArray
    from models.statistics.stability import Psi

# A flagged share crosses its limit only if its interval with this confidence is completely outside the limit.
CONFIDENCE = 0.999


@dataclass(frozen=True)
class DriftFigures:
    """The figures of a batch that are compared with other batches; a share or an index is None if unknown.

    Attributes:
        batch_id: number of the batch.
        batch_date: date of the batch.
        messages: number of messages read.
        scored: number of messages with a score.
        flagged: number of flagged messages.
        unknown_share: share of the words that are not in the vocabulary.
        psi_validation: population stability index against labelled messages that were not trained on.
        psi_validation_by_chance: index that chance alone rarely exceeds for this number of messages.
        psi_before: population stability index against the previous batch.
        psi_before_by_chance: as above, for `psi_before`.
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
        """Share of the scored messages that are flagged; None if no message was scored."""
        return self.flagged / self.scored if self.scored else None


@dataclass(frozen=True)
class Crossing:
    """A crossed limit: its key in [drift], the value, the allowed value, and a sentence (stored as ``said``)."""

    limit: str
    value: float
    allowed: float
    said: str


@dataclass(frozen=True)
class Drift:
    """The stored drift of a batch: its figures, its crossed limits, and who accepted them.

    `score_counts` are its scores, counted by `models.statistics.stability.count_scores`. `accepted_by` is None until a
    person accepts the crossed limits.
    """

    figures: DriftFigures
    score_counts: list[int]
    crossed: list[Crossing]
    measured_at: datetime.datetime
    accepted_at: datetime.datetime | None = None
    accepted_by: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the batch crossed a limit and nobody has accepted that."""
        return bool(self.crossed) and self.accepted_at is None

    @property
    def summary(self) -> str:
        """The crossed limits in one line."""
        return "; ".join(crossing.said for crossing in self.crossed)


@dataclass(frozen=True)
class AllowedRange:
    """The allowed range of a figure, from `low` to `high`; a bound is None if there is no limit on that side.

    `usual` is the median of the last `batches` batches; None if the range does not depend on earlier batches.
    """

    low: float | None
    high: float | None
    usual: float | None = None
    batches: int = 0


def compute_limits(earlier: Sequence[DriftFigures], settings: DriftSettings) -> dict[str, AllowedRange]:
    """Computes the limits in force, by their keys in [drift].

    Args:
        earlier: figures of earlier batches, newest first; only the first `settings.batches` are used.
        settings: the settings of [drift].
    """
    psi_keys = [key for key in ("psi_before", "psi_validation") if getattr(settings, key)]
    limits = {key: AllowedRange(None, getattr(settings, key)) for key in psi_keys}
    compared = list(earlier)[: settings.batches]
    if len(compared) < settings.least_batches:
        return limits
    shares = [figures.flagged_share for figures in compared if figures.flagged_share is not None]
    if settings.flagged_share and shares:
        # If most batches have no flagged message, the usual share is that of one message.
        usual = statistics.median(shares) or 1 / statistics.median(batch.scored for batch in compared if batch.scored)
        limits["flagged_share"] = _range_around(usual, settings.flagged_share, len(shares))
    if settings.message_count:
        usual = statistics.median(figures.messages for figures in compared)
        limits["message_count"] = _range_around(usual, settings.message_count, len(compared))
    unknown = [figures.unknown_share for figures in compared if figures.unknown_share is not None]
    if settings.unknown_words and unknown:
        usual = statistics.median(unknown)
        limits["unknown_words"] = AllowedRange(None, usual + settings.unknown_words, usual, len(unknown))
    return limits


def _range_around(usual: float, factor: float, batches: int) -> AllowedRange:
    return AllowedRange(usual / factor, usual * factor, usual, batches)


def find_crossings(figures: DriftFigures, limits: Mapping[str, AllowedRange]) -> list[Crossing]:
    """Returns the limits that a batch crosses. A figure that chance can explain crosses no limit.

    Args:
        figures: figures of the batch.
        limits: result of `compute_limits`.
    """
    crossings = []
    for key, limit in limits.items():
        value = limited_figure(figures, key)
        if value is not None and _is_outside(key, figures, limit):
            bound = limit.high if limit.high is not None and value > limit.high else limit.low
            sentence = f"{_SENTENCES[key].format(FORMATS[key](value))}, where {_describe_limit(key, limit)}"
            crossings.append(Crossing(key, value, float(bound or 0), sentence))
    return crossings


def limited_figure(figures: DriftFigures, limit: str) -> Any:
    """Returns the figure that a limit of [drift] applies to; None if unknown."""
    return getattr(figures, _FIGURE_NAMES[limit])


def _is_outside(key: str, figures: DriftFigures, limit: AllowedRange) -> bool:
    if key == "flagged_share":
        from models.evaluation.factors import share_interval

        interval = share_interval(figures.flagged, figures.scored, CONFIDENCE)
        low, high = (interval.high, interval.low) if interval else (0.0, 0.0)
    else:
        low = high = limited_figure(figures, key)
    by_chance = getattr(figures, f"{key}_by_chance", None) or 0.0
    too_low = limit.low is not None and low < limit.low
    return bool(too_low or (limit.high is not None and high > max(limit.high, by_chance)))


def _describe_limit(key: str, limit: AllowedRange) -> str:
    show = FORMATS[key]
    low = "" if limit.low is None else f"{show(limit.low)} to "
    usual = f" (the median of {limit.batches} batches is {show(limit.usual)})" if limit.usual is not None else ""
    return f"{low}{show(limit.high)} is allowed{usual}"


# By limit: the name of its figure, the format of the figure, and the start of a sentence about it.
_FIGURE_NAMES = {
    "flagged_share": "flagged_share",
    "message_count": "messages",
    "unknown_words": "unknown_share",
    "psi_before": "psi_before",
    "psi_validation": "psi_validation",
}
FORMATS: dict[str, Callable[[Any], str]] = {
    "flagged_share": lambda value: f"{value * 100:.2f} %",
    "message_count": "{:,.0f}".format,
    "unknown_words": lambda value: f"{value * 100:.1f} %",
    "psi_before": "{:.3f}".format,
    "psi_validation": "{:.3f}".format,
}
_SENTENCES = {
    "flagged_share": "{} of the messages are flagged",
    "message_count": "there are {} messages",
    "unknown_words": "{} of the words are not in the vocabulary",
    "psi_before": "the scores differ from the previous batch by an index (PSI) of {}",
    "psi_validation": "the scores differ from labelled messages by an index (PSI) of {}",
}


def with_indexes(figures: DriftFigures, validation: Psi | None, before: Psi | None) -> DriftFigures:
    """Returns a copy of the figures with the indexes set."""
    return dataclasses.replace(
        figures,
        psi_validation=validation.value if validation else None,
        psi_validation_by_chance=validation.critical_value if validation else None,
        psi_before=before.value if before else None,
        psi_before_by_chance=before.critical_value if before else None,
    )


_STORED_FIGURES = ("unknown_share", "psi_validation", "psi_validation_by_chance", "psi_before", "psi_before_by_chance")
_BATCH = score_batches.c
_COLUMNS = (
    _BATCH.batch_id,
    _BATCH.batch_date,
    _BATCH.messages_read,
    _BATCH.scored,
    _BATCH.flagged,
    *(batch_drift.c[name] for name in _STORED_FIGURES),
)


def write_drift(engine: Engine, figures: DriftFigures, score_counts: IntArray, crossings: Sequence[Crossing]) -> Drift:
    """Stores the drift of a batch. A repeated measurement replaces the earlier one, except who accepted it.

    Raises:
        DatabaseError: the database refused the write, or the connection was lost.
    """
    values = {name: getattr(figures, name) for name in _STORED_FIGURES} | {
        "score_counts": json.dumps(score_counts.tolist()),
        "crossed": json.dumps([dataclasses.asdict(crossing) for crossing in crossings]),
        "measured_at": datetime.datetime.now(datetime.UTC),
    }
    same_batch = batch_drift.c.batch_id == figures.batch_id

    def write(connection: Connection) -> None:
        if connection.scalar(sa.select(batch_drift.c.batch_id).where(same_batch).with_for_update()) is None:
            connection.execute(sa.insert(batch_drift).values(batch_id=figures.batch_id, **values))
        else:
            connection.execute(sa.update(batch_drift).where(same_batch).values(values))

    run_with_retries(engine, write)
    (stored,) = _select_drifts(engine, same_batch)
    return stored


def accept_drift(engine: Engine, batch_id: int, person: str) -> None:
    """Records that a person accepted the crossed limits of a batch.

    Raises:
        DatabaseError: the database refused the write, or the connection was lost.
    """
    values = {"accepted_at": datetime.datetime.now(datetime.UTC), "accepted_by": person}
    statement = sa.update(batch_drift).where(batch_drift.c.batch_id == batch_id).values(values)
    run_with_retries(engine, lambda connection: connection.execute(statement))


def read_drift(engine: Engine, batch_id: int) -> Drift | None:
    """Reads the drift of a batch; None if the batch was not measured yet."""
    drifts = _select_drifts(engine, batch_drift.c.batch_id == batch_id)
    return drifts[0] if drifts else None


def read_drifts(engine: Engine, limit: int | None = None) -> list[Drift]:
    """Reads the drift of the published batches, newest date first; at most `limit` of them if given."""
    return _select_drifts(engine, _BATCH.published_date.is_not(None), limit)


def read_drifts_between(engine: Engine, first: datetime.date, last: datetime.date) -> list[Drift]:
    """Reads the drift of the published batches of the dates from `first` to `last`, newest date first."""
    return _select_drifts(engine, _BATCH.published_date.between(first, last))


def read_latest_drift(engine: Engine) -> Drift | None:
    """Reads the drift of the newest published batch that was measured; None if there is none."""
    drifts = read_drifts(engine, 1)
    return drifts[0] if drifts else None


def read_earlier_figures(engine: Engine, date: datetime.date, limit: int) -> list[DriftFigures]:
    """Reads the figures of the published batches before a date, newest first, including batches without a report.

    Provisional batches are left out: they have the messages of a part of their date.
    """
    if not has_table(engine, batch_drift.name):
        return []
    query = (
        sa.select(*_COLUMNS)
        .select_from(score_batches.outerjoin(batch_drift))
        .where(_BATCH.published_date < date, is_final(engine))
        .order_by(_BATCH.published_date.desc())
        .limit(limit)
    )
    with read_transaction(engine) as connection:
        return [DriftFigures(*row) for row in connection.execute(query)]


def _select_drifts(engine: Engine, condition: sa.ColumnElement[bool], limit: int | None = None) -> list[Drift]:
    if not has_table(engine, batch_drift.name):
        return []
    columns = ("score_counts", "crossed", "measured_at", "accepted_at", "accepted_by")
    query = (
        sa.select(*_COLUMNS, *(batch_drift.c[name] for name in columns))
        .select_from(score_batches.join(batch_drift))
        .where(condition)
        .order_by(_BATCH.batch_date.desc(), _BATCH.batch_id.desc())
        .limit(limit)
    )
    with read_transaction(engine) as connection:
        return [_to_drift(row) for row in connection.execute(query)]


def _to_drift(row: Any) -> Drift:
    figures, (counts, stored, *others) = row[: len(_COLUMNS)], row[len(_COLUMNS) :]
    crossings = [Crossing(**fields) for fields in json.loads(stored)]
    return Drift(DriftFigures(*figures), json.loads(counts), crossings, *others)
