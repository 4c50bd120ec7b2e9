"""The gate: the compared figures, their intervals, and which models are refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from models.evaluation.gate import (
    Check,
    Comparison,
    Flip,
    FlipCounter,
    Flips,
    Interval,
    Verdict,
    _Ranking,
    _resamples,
    compare,
    judge,
)
from models.settings import GateSettings
from models.statistics.metrics import Metrics, evaluate, recall_at

# A coarse grid in addition to any float gives the ties that ranking figures must handle.
probability = st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]), st.floats(0, 1))
rows_of_both = st.lists(st.tuples(st.booleans(), probability), min_size=2, max_size=40).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)
scored = st.lists(st.tuples(st.booleans(), probability), max_size=40)
no_deadline = settings(deadline=None)
FEW = GateSettings(resamples=200)


def unzip(rows: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in rows], dtype=bool), np.array([score for _, score in rows], dtype=float)


def ranked(correct: int, spam: int = 50, ham: int = 200) -> Metrics:
    """Returns the metrics of a model that finds `correct` of the spam messages and flags no ham."""
    labels = np.array([True] * spam + [False] * ham)
    scores = np.array([0.9] * correct + [0.1] * (spam - correct) + [0.1] * ham)
    return evaluate(labels, scores, 0.5)


@pytest.mark.parametrize(
    ("metrics", "approved", "expected"),
    [
        (ranked(40), True, ["accuracy 96.00 % is above the 80.00 % of calling every message ham", "MCC 0.87"]),
        (ranked(0), False, ["accuracy 80.00 % is not above the 80.00 %", "MCC 0.0000 is not above 0"]),
        (evaluate(np.array([1, 1, 0]), np.array([0.9, 0.1, 0.9]), 0.5), False, ["every message spam", "MCC -0.5"]),
        (evaluate(np.array([], dtype=int), np.array([]), 0.5), False, ["there is no accuracy", "there is no MCC"]),
        (evaluate(np.array([0]), np.array([0.1]), 0.5), False, ["not above the 100.00 %", "received 0 spam and 1 ham"]),
    ],
)
def test_a_first_model_must_beat_the_more_frequent_label_and_chance(metrics, approved, expected) -> None:
    verdict = judge(metrics)
    assert verdict.approved is approved
    assert len(verdict.reasons) == len(expected)
    for reason, part in zip(verdict.reasons, expected, strict=True):
        assert part in reason


@no_deadline
@given(scored)
def test_a_model_that_gives_all_messages_the_same_probability_is_refused(rows: list[tuple[bool, float]]) -> None:
    labels, _ = unzip(rows)
    assert not judge(evaluate(labels, np.full(len(labels), 0.7), 0.5)).approved


def test_a_first_model_is_not_checked_against_a_version_in_service() -> None:
    labels, scores = noisy(0.2)
    compared = compare(labels, scores, None, 0.002, FEW)
    assert [(comparison.in_service, comparison.difference) for comparison in compared] == [(None, None)] * 3
    assert all(
        comparison.new.low <= comparison.new.value <= comparison.new.high
        for comparison in compared[:2]
        if comparison.new
    )
    assert [check.name for check in judge(evaluate(labels, scores, 0.5), compared).checks] == ["majority", "chance"]


def noisy(noise: float, spam: int = 100, ham: int = 500, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels, and probabilities that are wrong more often the more noise there is."""
    labels = np.array([True] * spam + [False] * ham)
    random = np.random.default_rng(seed)
    return labels, np.clip(labels * 0.8 + 0.1 + random.normal(0, noise, len(labels)), 0, 1)


@no_deadline
@given(rows_of_both, st.sampled_from([0.0, 0.002, 0.1, 0.5, 1.0]))
def test_the_figures_equal_those_of_the_metrics(rows: list[tuple[bool, float]], share: float) -> None:
    labels, scores = unzip(rows)
    figures = {
        comparison.name: comparison.new.value
        for comparison in compare(labels, scores, None, share, GateSettings(resamples=100))
        if comparison.new
    }
    metrics = evaluate(labels, scores, 0.5)
    assert figures["pr_auc"] == pytest.approx(metrics.pr_auc, abs=1e-12)
    assert figures["recall"] == pytest.approx(recall_at(labels, scores, share), abs=1e-12)
    assert figures["calibration_error"] == pytest.approx(metrics.expected_calibration_error, abs=1e-12)


@no_deadline
@given(rows_of_both, st.integers(0, 2**32 - 1))
def test_a_weighted_resample_equals_measuring_the_repeated_messages(rows: list[tuple[bool, float]], seed: int) -> None:
    labels, scores = unzip(rows)
    (weights, *_) = _resamples(labels, 3)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    labels, scores, weights = labels[shuffled], scores[shuffled], weights[:, shuffled]
    figures = _Ranking(labels, scores, 0.1).compute_figures(weights)
    for number, counts in enumerate(weights.astype(int)):
        repeated = np.repeat(np.arange(len(labels)), counts)
        metrics = evaluate(labels[repeated], scores[repeated], 0.5)
        by_sklearn = average_precision_score(labels, scores, sample_weight=counts)
        assert figures[0, number] == pytest.approx(by_sklearn, abs=1e-12)
        assert figures[1, number] == pytest.approx(recall_at(labels[repeated], scores[repeated], 0.1), abs=1e-12)
        assert figures[2, number] == pytest.approx(metrics.expected_calibration_error, abs=1e-12)


def test_a_resample_keeps_the_counts_of_spam_and_ham_and_all_resamples_are_drawn() -> None:
    labels, _ = noisy(0.2)
    for weights in (blocks := list(_resamples(labels, 250))):
        assert (weights[:, labels].sum(axis=1) == 100).all()
        assert (weights[:, ~labels].sum(axis=1) == 500).all()
    assert sum(map(len, blocks)) == 250


def test_memory_does_not_grow_with_the_resamples_and_the_result_does_not_depend_on_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, scores = noisy(0.2)
    first = compare(labels, scores, scores[::-1], 0.002, FEW)
    assert compare(labels, scores, scores[::-1], 0.002, FEW) == first
    monkeypatch.setattr("models.evaluation.gate._BLOCK_CELLS", 6000)
    assert [weights.shape for weights in _resamples(labels, 25)] == [(10, 600), (10, 600), (5, 600)]


def test_an_interval_covers_the_true_value_about_as_often_as_its_confidence() -> None:
    true = average_precision_score(*noisy(0.35, 20_000, 100_000, seed=1))
    covered = 0
    for seed in range(100, 160):
        (pr_auc, *_) = compare(*noisy(0.35, seed=seed), None, 0.002, GateSettings(resamples=300, confidence=0.9))
        assert pr_auc.new
        covered += pr_auc.new.low <= true <= pr_auc.new.high
    assert 46 <= covered <= 60


def verdict_on(new: float, in_service: float, **values: Any) -> Verdict:
    labels, scores = noisy(new)
    gate = GateSettings(resamples=300, **values)
    compared = compare(labels, scores, noisy(in_service)[1], 0.01, gate)
    return judge(evaluate(labels, scores, 0.5), compared, None, gate)


def failed(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.checks if check.passed is False}


def test_the_same_model_is_approved_without_any_allowance() -> None:
    none = {"pr_auc_allowance": 0.0, "recall_allowance": 0.0, "calibration_allowance": 0.0}
    verdict = verdict_on(0.3, 0.3, **none)
    assert verdict.approved
    assert [check.name for check in verdict.checks] == ["majority", "chance", "pr_auc", "recall", "calibration_error"]
    assert "difference +0.0000, 90 % interval +0.0000 to +0.0000" in verdict.reasons[2]


def test_a_better_model_is_approved() -> None:
    assert verdict_on(0.1, 0.4, calibration_allowance=1.0).approved


def test_a_model_worse_than_allowed_is_refused_with_the_size_of_the_loss() -> None:
    verdict = verdict_on(0.3, 0.1)
    assert {"pr_auc", "recall"} <= failed(verdict)
    assert any("PR AUC" in reason and "is more than 0.01 below the 1.0000" in reason for reason in verdict.reasons)
    assert all("and not by chance" in reason for reason in verdict.reasons)


def test_a_loss_within_the_allowance_is_approved() -> None:
    allowed = {"pr_auc_allowance": 1.0, "recall_allowance": 1.0, "calibration_allowance": 1.0}
    assert failed(verdict_on(0.3, 0.1, **allowed)) == set()


def test_a_worse_calibration_is_refused_although_the_ranking_is_the_same() -> None:
    labels, scores = noisy(0.1)
    compared = compare(labels, scores * 0.5, scores, 0.01, FEW)
    assert failed(judge(evaluate(labels, scores, 0.5), compared)) == {"calibration_error"}


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("lower_is_better", "low", "high", "shows_loss", "by_chance"),
    [
        (False, -0.21, -0.01, True, False),
        (False, -0.5, 0.0, False, True),  # a loss is possible, but not shown
        (False, -0.5, 0.1, False, True),
        (False, -0.15, -0.05, False, False),  # shown, but within the allowance
        (False, 0.11, 0.5, False, False),  # better
        (True, 0.01, 0.21, True, False),
        (True, 0.0, 0.5, False, True),
        (True, -0.1, 0.5, False, True),
        (True, 0.05, 0.15, False, False),
        (True, -0.5, -0.11, False, False),
    ],
)
def test_a_figure_fails_if_the_loss_exceeds_the_allowance_and_is_not_by_chance(
    lower_is_better: bool, low: float, high: float, shows_loss: bool, by_chance: bool
) -> None:
    same = interval(0.4, 0.6)
    comparison = Comparison("figure", "Figure", lower_is_better, 0.1, same, same, interval(low, high))
    assert comparison.shows_loss is shows_loss
    verdict = judge(ranked(40), [comparison])
    assert verdict.approved is not shows_loss
    assert ("and not by chance" in "".join(verdict.reasons)) is shows_loss
    assert ("which may be chance" in "".join(verdict.reasons)) is by_chance


def test_a_later_model_without_a_pr_auc_is_not_approved() -> None:
    labels, scores = np.array([0, 0]), np.array([0.1, 0.2])
    compared = compare(labels, scores, scores, 0.002, FEW)
    assert all(comparison.new is None for comparison in compared)
    assert "no PR AUC to compare: expected spam and ham, received 0 spam and 2 ham" in "".join(
        judge(evaluate(labels, scores, 0.5), compared).reasons
    )


# Flips


def counted(
    before: list[float], now: list[float], thresholds: tuple[float, float] = (0.5, 0.5), max_examples: int = 10
) -> Flips:
    count = FlipCounter(max_examples)
    ids = [f"m-{number}" for number in range(len(before))]
    count.add(
        ids,
        [f"text {identifier}" for identifier in ids],
        (np.array(before), thresholds[0]),
        (np.array(now), thresholds[1]),
    )
    return count.flips("the messages")


def test_each_model_flags_at_its_own_threshold() -> None:
    found = counted([0.4, 0.6, 0.8, 0.2], [0.4, 0.6, 0.8, 0.2], (0.5, 0.7))
    assert (found.messages, found.newly_flagged, found.newly_passed, found.share) == (4, 0, 1, 0.25)
    assert found.examples == [Flip("m-1", "text m-1", 0.6, 0.6, flagged_now=False)]


def test_the_examples_have_the_largest_changes_for_any_chunk_size() -> None:
    random = np.random.default_rng(8)
    before, now = random.random(300), random.random(300)
    ids, texts = [str(number) for number in range(300)], [f"text {number}" for number in range(300)]
    results = []
    for size in (300, 7):
        count = FlipCounter(5)
        for first in range(0, 300, size):
            part = slice(first, first + size)
            count.add(ids[part], texts[part], (before[part], 0.5), (now[part], 0.5))
        results.append(count.flips("them"))
    assert results[0] == results[1]
    flipped = (before >= 0.5) != (now >= 0.5)
    assert results[0].newly_flagged + results[0].newly_passed == flipped.sum()
    wanted = sorted(np.abs(before - now)[flipped], reverse=True)[:5]
    assert [abs(flip.now - flip.before) for flip in results[0].examples] == pytest.approx(wanted)


@pytest.mark.parametrize(("flipped", "passed"), [(0, True), (5, True), (6, False), (100, False)])
def test_more_flips_than_the_budget_are_refused(flipped: int, passed: bool) -> None:
    flips = counted([0.1] * 100, [0.9] * flipped + [0.1] * (100 - flipped))
    verdict = judge(ranked(40), (), flips, GateSettings(flip_budget=0.05))
    assert verdict.approved is passed
    assert (
        f"{flipped} of 100 verdicts on the messages would change ({flipped} flagged now, 0 no longer)"
        in verdict.reasons[-1]
    )


def test_flips_that_could_not_be_counted_do_not_refuse_a_model_and_are_reported() -> None:
    verdict = judge(ranked(40), (), "no batch is published")
    assert verdict.approved
    assert verdict.checks[-1] == Check("flips", None, "flipped verdicts were not counted: no batch is published")
    refused = judge(ranked(0), (), "no batch is published")
    assert not any("not counted" in reason for reason in refused.reasons)


def test_stored_flips_contain_no_text_of_a_message() -> None:
    written = json.dumps(counted([0.1], [0.9]).to_dict())
    assert "text m-0" not in written
    assert json.loads(written)["examples"] == [
        {"message_id": "m-0", "before": 0.1, "now": 0.9, "flagged_now": True, "spam": None}
    ]


def test_a_verdict_is_read_back_from_metrics_json() -> None:
    verdict = verdict_on(0.3, 0.1)
    assert Verdict.from_dict({"pr_auc": 0.5, **json.loads(json.dumps(verdict.to_dict()))}) == verdict


def test_a_self_trained_model_that_is_worse_than_its_teacher_is_refused_also_without_a_version_in_service() -> None:
    labels = np.array([True] * 60 + [False] * 300)
    good = np.where(labels, 0.9, 0.1) + np.linspace(0, 0.05, 360)
    bad = np.where(np.arange(360) < 30, 0.02, good)
    settings = GateSettings(resamples=200)
    worse, better = (compare(labels, *pair, 0.002, settings) for pair in ((bad, good), (good, bad)))
    refused = judge(evaluate(labels, bad, 0.5), settings=settings, taught=worse)
    assert not refused.approved
    assert {check.name for check in refused.checks if check.passed is False} >= {"pr_auc_teacher", "recall_teacher"}
    assert all("of its teacher" in reason for reason in refused.reasons)
    assert judge(evaluate(labels, good, 0.5), settings=settings, taught=better).approved
    unrelated = judge(evaluate(labels, good, 0.5), better, "no batch", settings, better)
    assert [check.name for check in unrelated.checks if "teacher" in check.name] == [
        "pr_auc_teacher", "recall_teacher", "calibration_error_teacher",
    ]  # fmt: skip
