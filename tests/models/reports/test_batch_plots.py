"""The plots of the batch reports: their text descriptions, and plots without figures."""

from __future__ import annotations

import datetime
from xml.etree import ElementTree

import numpy as np
import pytest

from models.evaluation.text_statistics import LENGTH_BOUNDS
from models.reports.batch_plots import Trend, draw_lengths, draw_score_shares, draw_trend
from models.statistics.stability import count_scores

DATE = datetime.date(2026, 1, 31)


def label(svg: str) -> str:
    return ElementTree.fromstring(svg).attrib["aria-label"]


def trend_svg(
    *values: float | None, kind: str = "share", limits: tuple[float | None, float | None] = (None, None)
) -> str:
    dates = [DATE + datetime.timedelta(days=number) for number in range(len(values))]
    return draw_trend(Trend("flagged", "Share flagged", kind, dates, values, limits))


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("share", (0.1, None, 0.125), "share by date of 3 batches, 2026-01-31 to 2026-02-02: 10.00 % to 12.50 %"),
        ("count", (1000, 2_000_000), "number by date of 2 batches, 2026-01-31 to 2026-02-01: 1,000 to 2,000,000"),
        ("index", (0.5,), "index by date of 1 batches, 2026-01-31 to 2026-01-31: 0.500 to 0.500"),
    ],
)
def test_a_trend_describes_its_values(kind: str, values: tuple[float | None, ...], expected: str) -> None:
    assert label(trend_svg(*values, kind=kind)) == f"Share flagged, {expected}"


@pytest.mark.parametrize("values", [(None, None), ()])
def test_a_trend_without_values_is_a_note(values: tuple[None, ...]) -> None:
    assert label(trend_svg(*values)) == "Share flagged. No batch has this figure."


@pytest.mark.parametrize(("limits", "dashed"), [((0.05, 0.2), 2), ((None, 0.2), 1), ((None, None), 0)])
def test_limits_are_dashed(limits: tuple[float | None, float | None], dashed: int) -> None:
    assert trend_svg(0.1, 0.12, limits=limits).count("stroke-dasharray") == dashed


def test_a_trend_of_zeros_is_drawn() -> None:
    assert "0.00 % to 0.00 %" in label(trend_svg(0.0, 0.0))


def test_the_scores_are_drawn_with_the_available_references() -> None:
    scores = count_scores(np.linspace(0, 1, 100))
    alone, both = draw_score_shares(scores, None, None, 0.5), draw_score_shares(scores, scores, scores, 0.5)
    assert label(alone) == "Shares of 100 scores by spam probability; threshold 0.5"
    assert "compared with labelled messages and previous batch" in label(both)
    assert label(draw_score_shares(count_scores([]), scores, None, 0.5)).endswith("no message has a score.")


def test_length_bins_are_labelled_with_their_bounds() -> None:
    description = label(draw_lengths([1, *[0] * (len(LENGTH_BOUNDS) - 2), 3]))
    assert "1 to 10: 25.0 %" in description
    assert "1,281 and more: 75.0 %" in description
    assert label(draw_lengths([0] * len(LENGTH_BOUNDS))).endswith("there are no messages.")
