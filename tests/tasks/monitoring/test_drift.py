"""What crosses a limit and what does not, and what is kept of it on every database."""

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
    allowed,
    crossed,
    drift_of,
    drifts,
    figures_before,
    latest_drift,
    with_indexes,
    write_drift,
)
from tasks.settings.scoring import DriftSettings

DAY = datetime.timedelta(days=1)
USUAL = DriftFigures(1, DATE, 10_000, 10_000, 500, unknown_share=0.1, psi_validation=0.1, psi_before=0.02)
BEFORE = [dataclasses.replace(USUAL, batch_id=number, batch_date=DATE - number * DAY) for number in range(1, 31)]


def limits_crossed(before: list[DriftFigures] = BEFORE, settings: DriftSettings | None = None, **values: float) -> set:
    found = crossed(dataclasses.replace(USUAL, **values), allowed(before, settings or DriftSettings()))
    return {one.limit for one in found}


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ({}, set()),
        ({"flagged": 1200}, {"flagged_share"}),
        ({"flagged": 950}, set()),
        ({"flagged": 1020}, set()),  # twice as many, and a little more: it may be chance
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


def test_a_limit_of_nought_is_none() -> None:
    none = DriftSettings(flagged_share=0, message_count=0, unknown_words=0, psi_before=0, psi_validation=0)
    wild = {"messages": 10**6, "flagged": 9000, "unknown_share": 0.9, "psi_before": 9.0, "psi_validation": 9.0}
    assert limits_crossed(**wild) == {"message_count", "flagged_share", "unknown_words", "psi_before", "psi_validation"}
    assert limits_crossed(settings=none, **wild) == set()


def test_with_few_batches_before_nothing_is_compared_with_them() -> None:
    assert limits_crossed(BEFORE[:6], flagged=2000) == set()
    assert limits_crossed(BEFORE[:7], flagged=2000) == {"flagged_share"}


def test_batches_beyond_the_latest_thirty_do_not_count() -> None:
    old = [dataclasses.replace(one, messages=10**7) for one in BEFORE * 3]
    assert limits_crossed([*BEFORE, *old]) == set()
    assert limits_crossed(old) == {"message_count"}


def test_one_flagged_message_where_there_was_none_is_no_drift() -> None:
    none = [dataclasses.replace(one, flagged=0) for one in BEFORE]
    assert limits_crossed(none, flagged=0) == set()
    assert limits_crossed(none, flagged=1) == set()
    assert limits_crossed(none, flagged=50) == {"flagged_share"}


def test_what_is_crossed_is_said_with_the_figure_and_what_was_allowed() -> None:
    (found,) = crossed(dataclasses.replace(USUAL, flagged=1200), allowed(BEFORE, DriftSettings()))
    assert found.said == (
        "12.00 % of the messages are flagged, where 2.50 % to 10.00 % is allowed (the median of 30 batches is 5.00 %)"
    )
    assert (found.value, found.allowed) == (0.12, 0.1)


def batch(engine: Engine, date: datetime.date, spam: int = 1) -> DriftFigures:
    scores = {f"m-{number}": 0.9 if number < spam else 0.1 for number in range(4)}
    return DriftFigures(publish(engine, scores, date), date, 4, 4, spam)


def test_what_is_written_comes_back_and_is_measured_again_without_losing_who_accepted_it(engine: Engine) -> None:
    figures = with_indexes(batch(engine, DATE), Psi(0.4, 0.1), None)
    found = [Crossing("psi_validation", 0.4, 0.25, "the scores are unlike those of labelled messages")]
    counts = count_scores([0.9, 0.1, 0.1, 0.1])
    kept = write_drift(engine, figures, counts, found)
    assert (kept.figures, kept.score_counts, kept.crossed) == (figures, counts.tolist(), found)
    assert kept.is_open
    assert kept.measured_at.tzinfo == datetime.UTC
    accept_drift(engine, figures.batch_id, "ann")
    again = write_drift(engine, dataclasses.replace(figures, unknown_share=0.5), counts, found)
    assert (again.accepted_by, again.is_open, again.figures.unknown_share) == ("ann", False, 0.5)
    assert drift_of(engine, figures.batch_id) == again


def test_the_batches_before_a_date_are_the_published_ones_newest_first_reported_or_not(engine: Engine) -> None:
    one, two, three, four = (batch(engine, DATE + number * DAY, spam=number) for number in range(4))
    write_drift(engine, dataclasses.replace(two, unknown_share=0.3), count_scores([]), [])
    withdraw_batch(engine, three.batch_id)
    assert figures_before(engine, four.batch_date, 30) == [dataclasses.replace(two, unknown_share=0.3), one]
    assert figures_before(engine, four.batch_date, 1) == [dataclasses.replace(two, unknown_share=0.3)]
    assert figures_before(engine, one.batch_date, 30) == []


def test_the_latest_is_of_the_newest_published_batch_that_was_measured(engine: Engine) -> None:
    assert latest_drift(engine) is None
    one, two, _ = (batch(engine, DATE + number * DAY) for number in range(3))
    for figures in (one, two):
        write_drift(engine, figures, count_scores([]), [])
    assert [kept.figures.batch_id for kept in drifts(engine)] == [two.batch_id, one.batch_id]
    assert latest_drift(engine) == drifts(engine)[0]
    assert drift_of(engine, 99) is None
