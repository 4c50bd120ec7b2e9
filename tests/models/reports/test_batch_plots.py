"""The drawings of the batch reports: what they say to who cannot see them, and what they do without figures."""

from __future__ import annotations

import datetime
from xml.etree import ElementTree

import numpy as np
import pytest

from models.evaluation.text_statistics import LENGTHS
from models.reports.batch_plots import Course, draw_course, draw_lengths, draw_score_shares
from models.statistics.stability import count_scores

DATE = datetime.date(2026, 1, 31)


def label(svg: str) -> str:
    return ElementTree.fromstring(svg).attrib["aria-label"]


def course(*values: float | None, kind: str = "share", limits: tuple[float | None, float | None] = (None, None)) -> str:
    dates = [DATE + datetime.timedelta(days=number) for number in range(len(values))]
    return draw_course(Course("flagged", "Share flagged", kind, dates, values, limits))


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("share", (0.1, None, 0.125), "share by date of 3 batches, 2026-01-31 to 2026-02-02: 10.00 % to 12.50 %"),
        ("count", (1000, 2_000_000), "number by date of 2 batches, 2026-01-31 to 2026-02-01: 1,000 to 2,000,000"),
        ("index", (0.5,), "index by date of 1 batches, 2026-01-31 to 2026-01-31: 0.500 to 0.500"),
    ],
)
def test_a_course_says_its_figures(kind: str, values: tuple[float | None, ...], said: str) -> None:
    assert label(course(*values, kind=kind)) == f"Share flagged, {said}"


@pytest.mark.parametrize("values", [(None, None), ()])
def test_a_course_without_figures_says_so(values: tuple[None, ...]) -> None:
    assert label(course(*values)) == "Share flagged. Not known of any batch."


@pytest.mark.parametrize(("limit", "dashed"), [((0.05, 0.2), 2), ((None, 0.2), 1), ((None, None), 0)])
def test_limits_are_dashed(limit: tuple[float | None, float | None], dashed: int) -> None:
    assert course(0.1, 0.12, limits=limit).count("stroke-dasharray") == dashed


def test_a_figure_of_nought_alone_is_drawn_too() -> None:
    assert "0.00 % to 0.00 %" in label(course(0.0, 0.0))


def test_the_scores_are_beside_what_there_is_to_compare_with() -> None:
    scores = count_scores(np.linspace(0, 1, 100))
    alone, both = draw_score_shares(scores, None, None, 0.5), draw_score_shares(scores, scores, scores, 0.5)
    assert label(alone) == "Shares of 100 scores by spam probability; threshold 0.5"
    assert "beside labelled messages and batch before" in label(both)
    assert label(draw_score_shares(count_scores([]), scores, None, 0.5)).endswith("there are no messages.")


def test_lengths_are_named_from_the_first_character_to_the_last() -> None:
    said = label(draw_lengths([1, *[0] * (len(LENGTHS) - 2), 3]))
    assert "1 to 10: 25.0 %" in said
    assert "1,281 and more: 75.0 %" in said
    assert label(draw_lengths([0] * len(LENGTHS))).endswith("there are no messages.")
