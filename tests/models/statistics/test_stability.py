"""Tests of score counts and of the population stability index."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.statistics.curves import score_histogram
from models.statistics.stability import (
    GRID,
    SIGNIFICANCE_LEVEL,
    Psi,
    bin_starts,
    count_scores,
    population_stability,
    rebin_counts,
)

SCORES = st.lists(st.integers(0, 10**6).map(lambda value: value / 10**6), max_size=200)


def random_scores(seed: int, messages: int, spam: float = 0.1) -> np.ndarray:
    random = np.random.default_rng(seed)
    logits = np.where(random.random(messages) < spam, random.normal(5, 2, messages), random.normal(-6, 2, messages))
    return np.round(1 / (1 + np.exp(-logits)), 6)


def compute_psi(expected: np.ndarray, observed: np.ndarray) -> Psi:
    psi = population_stability(expected, observed)
    assert psi is not None
    return psi


@given(scores=SCORES)
def test_every_score_is_counted_once_and_the_counts_give_the_evaluation_histogram(scores: list[float]) -> None:
    counts = count_scores(scores)
    assert (counts.sum(), len(counts)) == (len(scores), len(GRID) - 1)
    assert rebin_counts(counts).tolist() == score_histogram([False] * len(scores), scores).ham.tolist()


def test_the_index_equals_the_sum_in_its_source() -> None:
    expected, observed = np.zeros(len(GRID) - 1, np.int64), np.zeros(len(GRID) - 1, np.int64)
    expected[[0, -1]], observed[[0, -1]] = (899, 99), (799, 199)
    # No score is outside the expected range, so each of the two groups of scores is one bin.
    shares = ((899.5 / 999, 99.5 / 999), (799.5 / 999, 199.5 / 999))
    expected_value = sum((o - e) * math.log(o / e) for e, o in zip(*shares, strict=True))
    assert compute_psi(expected, observed).value == pytest.approx(expected_value, rel=1e-12)


def test_the_index_of_a_batch_and_itself_is_0_and_without_scores_it_is_none() -> None:
    counts = count_scores(random_scores(1, 1000))
    assert compute_psi(counts, counts).value == 0
    assert population_stability(counts, np.zeros_like(counts)) is None
    assert population_stability(np.zeros_like(counts), counts) is None


@pytest.mark.parametrize(("changed", "low", "high"), [(0.1, 0.0, 0.01), (0.13, 0.005, 0.1), (0.5, 0.5, 5.0)])
def test_the_index_grows_with_the_share_of_spam(changed: float, low: float, high: float) -> None:
    psi = compute_psi(count_scores(random_scores(1, 50_000)), count_scores(random_scores(2, 50_000, changed)))
    assert low <= psi.value <= high


def test_chance_alone_rarely_exceeds_the_critical_value() -> None:
    reference = count_scores(random_scores(1, 2000))
    psis = [compute_psi(reference, count_scores(random_scores(seed, 300))) for seed in range(2, 1002)]
    assert sum(psi.value > psi.critical_value for psi in psis) <= 1000 * SIGNIFICANCE_LEVEL * 5
    assert max(psi.value for psi in psis) > 0.05


def test_bins_start_at_each_tenth_of_the_expected_scores_and_outside_their_range() -> None:
    counts = count_scores(random_scores(1, 10_000))
    binned = np.add.reduceat(counts, bin_starts(counts, 10))
    assert binned.sum() == 10_000
    assert 5 < len(binned) <= 12
    single_value = count_scores([0.5] * 1000)
    assert np.add.reduceat(single_value, bin_starts(single_value, 10)).tolist() == [0, 1000, 0]


def test_scores_in_a_single_bin_have_an_index() -> None:
    counts = count_scores([0.5] * 100)
    assert compute_psi(counts, counts).value == 0
    assert compute_psi(counts, count_scores([0.9] * 100)).value > 1
    assert compute_psi(counts, count_scores([0.1] * 100)).value > 1
