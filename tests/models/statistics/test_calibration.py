"""Calibration and threshold: what is fitted on messages not trained on, and what may be promised of new messages."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from models.statistics.calibration import (
    DECIMALS,
    SCALES,
    Calibration,
    Threshold,
    find_threshold,
    fit_calibration,
    min_ham_messages,
    to_probabilities,
)

STEP = 10**-DECIMALS
unhurried = settings(deadline=None)
ham_scores = st.lists(st.integers(0, 10**DECIMALS).map(lambda one: round(one * STEP, DECIMALS)), max_size=60)


def of_ham(scores: list[float], share: float) -> Threshold:
    return find_threshold(np.zeros(len(scores), bool), np.array(scores), share)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("bias", [-2.0, 0.0, 1.5])
def test_a_scale_and_a_bias_that_are_in_the_labels_are_found(scale: float, bias: float) -> None:
    random = np.random.default_rng(4)
    logits = random.normal(0, 2, 40_000)
    labels = random.random(len(logits)) < expit(scale * logits + bias)
    found = fit_calibration(logits, labels)
    assert found.scale == pytest.approx(scale, rel=0.05)
    assert found.bias == pytest.approx(bias, abs=0.08)


def loss(calibration: Calibration, logits: np.ndarray, targets: np.ndarray) -> float:
    calibrated = calibration.apply(logits)
    return float((np.logaddexp(0, calibrated) - targets * calibrated).mean())


def test_no_other_scale_and_bias_near_by_make_the_labels_likelier() -> None:
    random = np.random.default_rng(5)
    logits = random.normal(0, 3, 300)
    labels = random.random(300) < expit(logits - 1)
    spam = int(labels.sum())
    targets = np.where(labels, (spam + 1) / (spam + 2), 1 / (300 - spam + 2))
    found = fit_calibration(logits, labels)
    for scale in (-0.01, 0.0, 0.01):
        for bias in (-0.01, 0.0, 0.01):
            near = Calibration(found.scale + scale, found.bias + bias)
            assert loss(found, logits, targets) <= loss(near, logits, targets) + 1e-9


CORNERS = {
    "separated": ([-3.0] * 5 + [3.0] * 5, [0] * 5 + [1] * 5),
    "far apart": ([-900.0] * 5 + [900.0] * 5, [0] * 5 + [1] * 5),
    "turned round": ([3.0] * 5 + [-3.0] * 5, [0] * 5 + [1] * 5),
    "all alike": ([1.0] * 10, [0] * 5 + [1] * 5),
    "next to nothing learned": ([-1e-4] * 5 + [1e-4] * 5, [0] * 5 + [1] * 5),
    "one of each": ([0.0, 1.0], [1, 0]),
}


@pytest.mark.parametrize("corner", CORNERS)
def test_a_calibration_is_finite_and_never_turns_the_ranking(corner: str) -> None:
    logits, labels = CORNERS[corner]
    found = fit_calibration(logits, labels)
    assert SCALES[0] <= found.scale <= SCALES[1]
    assert math.isfinite(found.bias)
    assert fit_calibration(logits, labels) == found
    order = np.argsort(logits, kind="stable")
    assert (np.diff(found.apply(logits)[order]) >= 0).all()


@pytest.mark.parametrize(
    ("logits", "labels"),
    [([1.0], [1]), ([], []), ([1.0, 2.0], [0, 0]), ([1.0, np.nan], [0, 1]), ([1.0, np.inf], [0, 1]), ([1.0], [0, 1])],
)
def test_what_cannot_be_calibrated_on_is_refused(logits: list[float], labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"Expected finite logits of spam and ham.*Received: "):
        fit_calibration(logits, np.array(labels, dtype=int))


@pytest.mark.parametrize(("scale", "bias"), [(0.0, 0.0), (-1.0, 0.0), (11.0, 0.0), (np.nan, 0.0), (1.0, np.inf)])
def test_no_calibration_is_made_that_would_turn_the_ranking_or_is_no_number(scale: float, bias: float) -> None:
    with pytest.raises(ValueError, match="expected a scale from"):
        Calibration(scale, bias)


def test_probabilities_have_six_decimals_at_any_logit() -> None:
    logits = np.array([-np.inf, -1e300, -800.0, 0.0, 0.3, 40.0, np.inf], np.float64)
    found = to_probabilities(logits)
    np.testing.assert_allclose(found, expit(logits), atol=STEP / 2, rtol=0)
    assert (np.round(found, DECIMALS) == found).all()


@pytest.mark.parametrize(
    ("ham", "share", "value", "blocked", "enough"),
    [
        # 0.002 * 500 = 1.0: rank 1 of 500, so none is blocked.
        ([0.1] * 498 + [0.7], 0.002, 0.700001, 0, True),
        ([0.1] * 498 + [0.7, 0.9], 0.002, 0.900001, 0, True),
        # 0.01 * 300 = 3: the third from above is let through, the two above it are blocked.
        ([0.1] * 296 + [0.5, 0.6, 0.7], 0.01, 0.500001, 2, True),
        # All of one probability are let through, or none.
        ([0.1] * 295 + [0.6, 0.6, 0.6, 0.7], 0.01, 0.600001, 1, True),
        # Too few to know: none is blocked, and it is at least one half.
        ([0.1] * 70, 0.002, 0.5, 0, False),
        ([0.1] * 69 + [0.8], 0.002, 0.800001, 0, False),
        ([], 0.002, 0.5, 0, False),
        # A share of nought is always kept to, one of all means all.
        ([0.1, 0.2], 0.0, 0.200001, 0, True),
        ([0.1, 0.2], 1.0, 0.0, 2, True),
        # There is no probability above 1: what has it cannot be let through.
        ([0.1, 1.0], 0.0, 1.0, 1, True),
    ],
)
def test_the_threshold_by_the_share_of_ham(
    ham: list[float], share: float, value: float, blocked: int, enough: bool
) -> None:
    assert of_ham(ham, share) == Threshold(value, share, len(ham), blocked, enough)


def test_spam_has_no_say_in_the_threshold() -> None:
    labels, scores = np.array([0] * 499 + [1] * 3), np.array([0.2] * 499 + [0.1, 0.9, 1.0])
    assert find_threshold(labels, scores, 0.002).value == 0.200001


@unhurried
@given(ham_scores, st.floats(0, 1))
def test_it_blocks_no_more_of_the_ham_than_the_share_and_is_the_smallest_for_new_ham(
    ham: list[float], share: float
) -> None:
    found = of_ham(ham, share)
    assert 0 <= found.value <= 1
    assert found.blocked == sum(one >= found.value for one in ham)
    if 1.0 not in ham and share < 1:
        assert found.blocked <= share * len(ham) + 1e-6
    if not found.enough or not 0 < found.value < 1:
        return
    # A step lower it would block a ham message more, and with that (blocked + 1) / (n + 1) of new ham, too much.
    lower = sum(one >= found.value - 1.5 * STEP for one in ham)
    assert share == 0 or lower + 1 > share * (len(ham) + 1) - 1e-6


def test_new_ham_is_blocked_no_more_often_than_the_share_on_average() -> None:
    random = np.random.default_rng(6)
    share, blocked = 0.01, []
    for _ in range(2000):
        scores = np.round(random.random(150), DECIMALS)
        blocked.append(1 - of_ham(scores.tolist(), share).value)  # the chance of a new one, uniform like these
    assert np.mean(blocked) <= share * 1.05
    assert np.mean(blocked) >= share * 0.6


@pytest.mark.parametrize(("share", "needed"), [(0.002, 499), (0.01, 99), (0.5, 1), (1.0, 0), (0.0, 0), (0.003, 333)])
def test_so_many_ham_messages_are_needed_for_a_share(share: float, needed: int) -> None:
    assert min_ham_messages(share) == needed
    assert of_ham([0.1] * needed, share).enough
    assert needed == 0 or not of_ham([0.1] * (needed - 1), share).enough


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"Expected a share in \[0, 1\]"):
        of_ham([0.1], share)


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        (Threshold(0.5), "The threshold 0.5 was given."),
        (
            Threshold(0.81, 0.002, 1200, 1),
            "at most 0.2 % of the ham; it blocks 1 of 1,200 ham messages that were not trained on.",
        ),
        (Threshold(0.5, 0.002, 70, 0, enough=False), "These are too few to know so small a share: 499 are needed."),
    ],
)
def test_how_a_threshold_was_come_by_is_said(threshold: Threshold, said: str) -> None:
    assert threshold.said.endswith(said)
