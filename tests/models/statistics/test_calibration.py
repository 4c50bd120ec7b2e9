"""Tests of calibration and threshold: the fit, and the share of new ham that is blocked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from models.statistics.calibration import (
    DECIMALS,
    SCALE_RANGE,
    Calibration,
    Threshold,
    find_threshold,
    fit_calibration,
    min_ham_messages,
    to_probabilities,
)

STEP = 10**-DECIMALS
no_deadline = settings(deadline=None)
ham_scores = st.lists(st.integers(0, 10**DECIMALS).map(lambda units: round(units * STEP, DECIMALS)), max_size=60)


def find_for_ham(scores: list[float], share: float) -> Threshold:
    return find_threshold(np.zeros(len(scores), bool), np.array(scores), share)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("bias", [-2.0, 0.0, 1.5])
def test_the_scale_and_bias_that_generated_the_labels_are_recovered(scale: float, bias: float) -> None:
    random = np.random.default_rng(4)
    logits = random.normal(0, 2, 40_000)
    labels = random.random(len(logits)) < expit(scale * logits + bias)
    fitted = fit_calibration(logits, labels)
    assert fitted.scale == pytest.approx(scale, rel=0.05)
    assert fitted.bias == pytest.approx(bias, abs=0.08)


def loss(calibration: Calibration, logits: np.ndarray, targets: np.ndarray) -> float:
    calibrated = calibration.apply(logits)
    return float((np.logaddexp(0, calibrated) - targets * calibrated).mean())


def test_no_nearby_scale_and_bias_have_a_lower_loss() -> None:
    random = np.random.default_rng(5)
    logits = random.normal(0, 3, 300)
    labels = random.random(300) < expit(logits - 1)
    spam = int(labels.sum())
    targets = np.where(labels, (spam + 1) / (spam + 2), 1 / (300 - spam + 2))
    fitted = fit_calibration(logits, labels)
    for scale in (-0.01, 0.0, 0.01):
        for bias in (-0.01, 0.0, 0.01):
            nearby = Calibration(fitted.scale + scale, fitted.bias + bias)
            assert loss(fitted, logits, targets) <= loss(nearby, logits, targets) + 1e-9


CORNER_CASES = {
    "separated": ([-3.0] * 5 + [3.0] * 5, [0] * 5 + [1] * 5),
    "far apart": ([-900.0] * 5 + [900.0] * 5, [0] * 5 + [1] * 5),
    "reversed": ([3.0] * 5 + [-3.0] * 5, [0] * 5 + [1] * 5),
    "all equal": ([1.0] * 10, [0] * 5 + [1] * 5),
    "almost nothing learned": ([-1e-4] * 5 + [1e-4] * 5, [0] * 5 + [1] * 5),
    "one of each": ([0.0, 1.0], [1, 0]),
}


@pytest.mark.parametrize("case", CORNER_CASES)
def test_a_calibration_is_finite_and_never_reverses_the_ranking(case: str) -> None:
    logits, labels = CORNER_CASES[case]
    fitted = fit_calibration(logits, labels)
    assert SCALE_RANGE[0] <= fitted.scale <= SCALE_RANGE[1]
    assert math.isfinite(fitted.bias)
    assert fit_calibration(logits, labels) == fitted
    order = np.argsort(logits, kind="stable")
    assert (np.diff(fitted.apply(logits)[order]) >= 0).all()


@pytest.mark.parametrize(
    ("logits", "labels"),
    [([1.0], [1]), ([], []), ([1.0, 2.0], [0, 0]), ([1.0, np.nan], [0, 1]), ([1.0, np.inf], [0, 1]), ([1.0], [0, 1])],
)
def test_scores_that_cannot_be_calibrated_are_refused(logits: list[float], labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"Expected finite logits of spam and ham.*Received: "):
        fit_calibration(logits, np.array(labels, dtype=int))


@pytest.mark.parametrize(("scale", "bias"), [(0.0, 0.0), (-1.0, 0.0), (11.0, 0.0), (np.nan, 0.0), (1.0, np.inf)])
def test_a_calibration_that_reverses_the_ranking_or_is_not_finite_is_refused(scale: float, bias: float) -> None:
    with pytest.raises(ValueError, match="expected a scale from"):
        Calibration(scale, bias)


def test_probabilities_have_six_decimals_at_any_logit() -> None:
    logits = np.array([-np.inf, -1e300, -800.0, 0.0, 0.3, 40.0, np.inf], np.float64)
    probabilities = to_probabilities(logits)
    np.testing.assert_allclose(probabilities, expit(logits), atol=STEP / 2, rtol=0)
    assert (np.round(probabilities, DECIMALS) == probabilities).all()


@pytest.mark.parametrize(
    ("ham", "share", "value", "blocked", "enough"),
    [
        # 0.002 * 500 = 1.0: rank 1 of 500, so none is blocked.
        ([0.1] * 498 + [0.7], 0.002, 0.700001, 0, True),
        ([0.1] * 498 + [0.7, 0.9], 0.002, 0.900001, 0, True),
        # 0.01 * 300 = 3: the third highest is let through, the two above it are blocked.
        ([0.1] * 296 + [0.5, 0.6, 0.7], 0.01, 0.500001, 2, True),
        # Messages with equal probabilities are all let through or all blocked.
        ([0.1] * 295 + [0.6, 0.6, 0.6, 0.7], 0.01, 0.600001, 1, True),
        # Too few messages: none is blocked, and the threshold is at least one half.
        ([0.1] * 70, 0.002, 0.5, 0, False),
        ([0.1] * 69 + [0.8], 0.002, 0.800001, 0, False),
        ([], 0.002, 0.5, 0, False),
        # A share of 0 is always possible; with a share of 1 all are blocked.
        ([0.1, 0.2], 0.0, 0.200001, 0, True),
        ([0.1, 0.2], 1.0, 0.0, 2, True),
        # No threshold is above 1, so a message with probability 1 is always blocked.
        ([0.1, 1.0], 0.0, 1.0, 1, True),
    ],
)
def test_the_threshold_for_a_share_of_ham(
    ham: list[float], share: float, value: float, blocked: int, enough: bool
) -> None:
    assert find_for_ham(ham, share) == Threshold(value, share, len(ham), blocked, enough)


def test_spam_does_not_affect_the_threshold() -> None:
    labels, scores = np.array([0] * 499 + [1] * 3), np.array([0.2] * 499 + [0.1, 0.9, 1.0])
    assert find_threshold(labels, scores, 0.002).value == 0.200001


@no_deadline
@given(ham_scores, st.floats(0, 1))
def test_the_threshold_blocks_at_most_the_share_of_ham_and_is_the_smallest_for_new_ham(
    ham: list[float], share: float
) -> None:
    threshold = find_for_ham(ham, share)
    assert 0 <= threshold.value <= 1
    assert threshold.blocked == sum(score >= threshold.value for score in ham)
    if 1.0 not in ham and share < 1:
        assert threshold.blocked <= share * len(ham) + 1e-6
    if not threshold.enough or not 0 < threshold.value < 1:
        return
    # One step lower it would block one more ham message, so (blocked + 1) / (n + 1) of new ham, which is too much.
    lower = sum(score >= threshold.value - 1.5 * STEP for score in ham)
    assert share == 0 or lower + 1 > share * (len(ham) + 1) - 1e-6


def test_new_ham_is_blocked_no_more_often_than_the_share_on_average() -> None:
    random = np.random.default_rng(6)
    share, blocked = 0.01, []
    for _ in range(2000):
        scores = np.round(random.random(150), DECIMALS)
        blocked.append(
            1 - find_for_ham(scores.tolist(), share).value
        )  # the probability for a new message, uniform like these
    assert np.mean(blocked) <= share * 1.05
    assert np.mean(blocked) >= share * 0.6


@pytest.mark.parametrize(("share", "needed"), [(0.002, 499), (0.01, 99), (0.5, 1), (1.0, 0), (0.0, 0), (0.003, 333)])
def test_the_number_of_ham_messages_that_a_share_needs(share: float, needed: int) -> None:
    assert min_ham_messages(share) == needed
    assert find_for_ham([0.1] * needed, share).enough
    assert needed == 0 or not find_for_ham([0.1] * (needed - 1), share).enough


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"Expected a share in \[0, 1\]"):
        find_for_ham([0.1], share)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (Threshold(0.5), "The threshold 0.5 was given."),
        (
            Threshold(0.81, 0.002, 1200, 1),
            "at most 0.2 % of the ham; it blocks 1 of 1,200 ham messages that were not trained on.",
        ),
        (Threshold(0.5, 0.002, 70, 0, enough=False), "That is too few for so small a share: 499 are needed."),
    ],
)
def test_a_threshold_describes_how_it_was_found(threshold: Threshold, expected: str) -> None:
    assert threshold.description.endswith(expected)
