"""Drift: which figures cross a limit, and how the drift is stored on every database."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from published_batches import DATE, publish
from sqlalchemy.engine import Engine

from models.statistics.stability import Psi, count_scores
from tasks.database.ledger import withdraw_batch
from tasks.monitoring.drift import (
    Crossing,
    DriftFigures,
    accept_drift,
    compute_limits,
    find_crossings,
    read_drift,
    read_drifts,
    read_earlier_figures,
    read_latest_drift,
    with_indexes,
    write_drift,
)
from tasks.settings.scoring import DriftSettings

DAY = datetime.timedelta(days=1)
USUAL = DriftFigures(1, DATE, 10_000, 10_000, 500, unknown_share=0.1, psi_validation=0.1, psi_before=0.02)
BEFORE = [dataclasses.replace(USUAL, batch_id=number, batch_date=DATE - number * DAY) for number in range(1, 31)]


def limits_crossed(before: list[DriftFigures] = BEFORE, settings: DriftSettings | None = None, **values: float) -> set:
    limits = compute_limits(before, settings or DriftSettings())
    return {crossing.limit for crossing in find_crossings(dataclasses.replace(USUAL, **values), limits)}


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ({}, set()),
        ({"flagged": 1200}, {"flagged_share"}),
        ({"flagged": 950}, set()),
        ({"flagged": 1020}, set()),  # slightly more than twice the usual share may be chance
        ({"flagged": 100}, {"flagged_share"}),
        ({"flagged": 0}, {"flagged_share"}),
        ({"messages": 31_000}, {"message_count"}),
        ({"messages": 30_000}, set()),
        ({"messages": 3000}, {"message_count"}),
        ({"messages": 0, "scored": 0, "flagged": 0}, {"message_count"}),
        ({"messages": 10, "scored": 10, "flagged": 2}, {"message_count"}),
        ({"unknown_share": 0.21}, {"unknown_words"}),
        ({"unknown_share": 0.01}, set()),
        ({"unknown_share": None}, set()),
        ({"psi_before": 0.26}, {"psi_before"}),
        ({"psi_before": 0.26, "psi_before_by_chance": 0.3}, set()),
        ({"psi_validation": 0.51, "psi_before": None}, {"psi_validation"}),
    ],
)
def test_a_figure_beyond_its_limit_crosses_it(values: dict[str, float], limits: set[str]) -> None:
    assert limits_crossed(**values) == limits


def test_a_limit_of_zero_is_off() -> None:
    none = DriftSettings(flagged_share=0, message_count=0, unknown_words=0, psi_before=0, psi_validation=0)
    wild = {"messages": 10**6, "flagged": 9000, "unknown_share": 0.9, "psi_before": 9.0, "psi_validation": 9.0}
    assert limits_crossed(**wild) == {"message_count", "flagged_share", "unknown_words", "psi_before", "psi_validation"}
    assert limits_crossed(settings=none, **wild) == set()


def test_too_few_earlier_batches_give_no_limits() -> None:
    assert limits_crossed(BEFORE[:6], flagged=2000) == set()
    assert limits_crossed(BEFORE[:7], flagged=2000) == {"flagged_share"}


def test_only_the_latest_thirty_batches_count() -> None:
    old = [dataclasses.replace(figures, messages=10**7) for figures in BEFORE * 3]
    assert limits_crossed([*BEFORE, *old]) == set()
    assert limits_crossed(old) == {"message_count"}


def test_one_flagged_message_where_there_was_none_is_no_drift() -> None:
    none = [dataclasses.replace(figures, flagged=0) for figures in BEFORE]
    assert limits_crossed(none, flagged=0) == set()
    assert limits_crossed(none, flagged=1) == set()
    assert limits_crossed(none, flagged=50) == {"flagged_share"}


def test_a_crossing_describes_the_figure_and_the_allowed_range() -> None:
    (found,) = find_crossings(dataclasses.replace(USUAL, flagged=1200), compute_limits(BEFORE, DriftSettings()))
    assert found.said == (
        "12.00 % of the messages are flagged, where 2.50 % to 10.00 % is allowed (the median of 30 batches is 5.00 %)"
    )
    assert (found.value, found.allowed) == (0.12, 0.1)


def batch(engine: Engine, date: datetime.date, spam: int = 1) -> DriftFigures:
    scores = {f"m-{number}": 0.9 if number < spam else 0.1 for number in range(4)}
    return DriftFigures(publish(engine, scores, date), date, 4, 4, spam)


def test_stored_drift_is_read_back_and_a_new_measurement_keeps_the_acceptance(engine: Engine) -> None:
    figures = with_indexes(batch(engine, DATE), Psi(0.4, 0.1), None)
    crossings = [Crossing("psi_validation", 0.4, 0.25, "the scores differ from labelled messages")]
    counts = count_scores([0.9, 0.1, 0.1, 0.1])
    stored = write_drift(engine, figures, counts, crossings)
    assert (stored.figures, stored.score_counts, stored.crossed) == (figures, counts.tolist(), crossings)
    assert stored.is_open
    assert stored.measured_at.tzinfo == datetime.UTC
    accept_drift(engine, figures.batch_id, "ann")
    again = write_drift(engine, dataclasses.replace(figures, unknown_share=0.5), counts, crossings)
    assert (again.accepted_by, again.is_open, again.figures.unknown_share) == ("ann", False, 0.5)
    assert read_drift(engine, figures.batch_id) == again


def test_earlier_figures_are_those_of_published_batches_newest_first_with_or_without_a_report(engine: Engine) -> None:
    first, second, third, fourth = (batch(engine, DATE + number * DAY, spam=number) for number in range(4))
    write_drift(engine, dataclasses.replace(second, unknown_share=0.3), count_scores([]), [])
    withdraw_batch(engine, third.batch_id)
    assert read_earlier_figures(engine, fourth.batch_date, 30) == [
        dataclasses.replace(second, unknown_share=0.3),
        first,
    ]
    assert read_earlier_figures(engine, fourth.batch_date, 1) == [dataclasses.replace(second, unknown_share=0.3)]
    assert read_earlier_figures(engine, first.batch_date, 30) == []


def test_a_provisional_batch_is_not_compared_with(engine: Engine) -> None:
    final = batch(engine, DATE)
    publish(engine, {"m": 0.5}, DATE + DAY, provisional=True)
    assert read_earlier_figures(engine, DATE + 2 * DAY, 30) == [final]


def test_the_latest_drift_is_that_of_the_newest_measured_batch(engine: Engine) -> None:
    assert read_latest_drift(engine) is None
    first, second, _ = (batch(engine, DATE + number * DAY) for number in range(3))
    for figures in (first, second):
        write_drift(engine, figures, count_scores([]), [])
    assert [drift.figures.batch_id for drift in read_drifts(engine)] == [second.batch_id, first.batch_id]
    assert read_latest_drift(engine) == read_drifts(engine)[0]
    assert read_drift(engine, 99) is None
