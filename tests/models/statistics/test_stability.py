"""The counts of scores, and the index that tells how far those of two batches are apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.statistics.curves import score_histogram
from models.statistics.stability import SIGNIFICANCE_LEVEL, GRID, Psi, bin_starts, count_scores, population_stability, rebin_counts

SCORES = st.lists(st.integers(0, 10**6).map(lambda value: value / 10**6), max_size=200)


def some_scores(seed: int, messages: int, spam: float = 0.1) -> np.ndarray:
    random = np.random.default_rng(seed)
    logits = np.where(random.random(messages) < spam, random.normal(5, 2, messages), random.normal(-6, 2, messages))
    return np.round(1 / (1 + np.exp(-logits)), 6)


def found(expected: np.ndarray, observed: np.ndarray) -> Psi:
    psi = population_stability(expected, observed)
    assert psi is not None
    return psi


@given(scores=SCORES)
def test_every_score_is_counted_once_and_the_counts_give_the_histogram_of_the_evaluation(scores: list[float]) -> None:
    counts = count_scores(scores)
    assert (counts.sum(), len(counts)) == (len(scores), len(GRID) - 1)
    assert rebin_counts(counts).tolist() == score_histogram([False] * len(scores), scores).ham.tolist()


def test_the_index_is_the_sum_that_its_source_gives() -> None:
    expected, observed = np.zeros(len(GRID) - 1, np.int64), np.zeros(len(GRID) - 1, np.int64)
    expected[[0, -1]], observed[[0, -1]] = (899, 99), (799, 199)
    # The middle is beyond what is expected on neither side, so the two lumps are the two bins.
    shares = ((899.5 / 999, 99.5 / 999), (799.5 / 999, 199.5 / 999))
    by_hand = sum((o - e) * math.log(o / e) for e, o in zip(*shares, strict=True))
    assert found(expected, observed).value == pytest.approx(by_hand, rel=1e-12)


def test_a_batch_is_at_no_distance_from_itself_and_one_without_scores_at_none_known() -> None:
    counts = count_scores(some_scores(1, 1000))
    assert found(counts, counts).value == 0
    assert population_stability(counts, np.zeros_like(counts)) is None
    assert population_stability(np.zeros_like(counts), counts) is None


@pytest.mark.parametrize(("changed", "low", "high"), [(0.1, 0.0, 0.01), (0.13, 0.005, 0.1), (0.5, 0.5, 5.0)])
def test_the_index_grows_with_the_share_of_spam(changed: float, low: float, high: float) -> None:
    psi = found(count_scores(some_scores(1, 50_000)), count_scores(some_scores(2, 50_000, changed)))
    assert low <= psi.value <= high


def test_chance_alone_exceeds_what_it_is_said_to_no_more_often_than_that() -> None:
    reference = count_scores(some_scores(1, 2000))
    psis = [found(reference, count_scores(some_scores(seed, 300))) for seed in range(2, 1002)]
    assert sum(psi.value > psi.by_chance for psi in psis) <= 1000 * SIGNIFICANCE_LEVEL * 5
    assert max(psi.value for psi in psis) > 0.05


def test_bins_begin_at_each_tenth_of_what_is_expected_and_beyond_it() -> None:
    counts = count_scores(some_scores(1, 10_000))
    held = np.add.reduceat(counts, bin_starts(counts, 10))
    assert held.sum() == 10_000
    assert 5 < len(held) <= 12
    lumped = count_scores([0.5] * 1000)
    assert np.add.reduceat(lumped, bin_starts(lumped, 10)).tolist() == [0, 1000, 0]


def test_scores_of_one_bin_alone_have_an_index_too() -> None:
    counts = count_scores([0.5] * 100)
    assert found(counts, counts).value == 0
    assert found(counts, count_scores([0.9] * 100)).value > 1
    assert found(counts, count_scores([0.1] * 100)).value > 1
