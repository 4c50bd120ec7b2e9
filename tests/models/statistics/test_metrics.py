from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve as sklearn_calibration_curve

from models.errors import ArtifactError
from models.statistics.curves import calibration_curve, score_histogram
from models.statistics.metrics import Metrics, evaluate, majority_class_accuracy, metric_descriptions, recall_at

# A coarse grid in addition to any float gives the ties that ranking metrics must handle.
probability = st.one_of(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]), st.floats(0, 1))
labelled_scores = st.lists(st.tuples(st.booleans(), probability), max_size=40)
share = st.floats(0, 1)
# The machine is shared, so the duration of an example depends on other load.
no_deadline = settings(deadline=None)

RANKING = {"mcc", "roc_auc", "pr_auc", "recall_at_0_1_percent", "recall_at_0_5_percent"}
COUNTS = {"messages", "spam", "ham", "threshold"} | {
    f"{right}_{side}" for right in ("true", "false") for side in ("positives", "negatives")
}


def unzip(rows: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([label for label, _ in rows], dtype=bool), np.array([score for _, score in rows], dtype=float)


def brute_force_recall_at(labels: np.ndarray, scores: np.ndarray, rate: float) -> float:
    """Tries every threshold, keeps those that flag few enough ham, and takes the lowest."""
    spam, ham = labels.sum(), (~labels).sum()
    allowed = [t for t in [*np.unique(scores), math.inf] if (scores[~labels] >= t).sum() <= rate * ham + 1e-9]
    return float((scores[labels] >= min(allowed)).sum() / spam)


def brute_force_average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    total, previous_recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        flagged = scores >= threshold
        recall = (flagged & labels).sum() / labels.sum()
        total += (recall - previous_recall) * (flagged & labels).sum() / flagged.sum()
        previous_recall = recall
    return total


def brute_force_calibration_error(labels: np.ndarray, scores: np.ndarray, bins: int) -> float:
    total = 0.0
    edges = np.linspace(0, 1, bins + 1)
    for index in range(bins):
        inside = (scores > edges[index]) & (scores <= edges[index + 1])
        if index == 0:
            inside |= scores == 0
        if inside.any():
            total += inside.mean() * abs(labels[inside].mean() - scores[inside].mean())
    return total


def example() -> Metrics:
    return evaluate(
        np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]), np.array([0.9, 0.8, 0.6, 0.2, 0.7, 0.3, 0.1, 0.1, 0.0, 0.4]), 0.5
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("messages", 10),
        ("spam", 4),
        ("ham", 6),
        ("true_positives", 3),
        ("false_negatives", 1),
        ("false_positives", 1),
        ("true_negatives", 5),
        ("accuracy", 0.8),
        ("majority_class_accuracy", 0.6),
        ("precision", 0.75),
        ("recall", 0.75),
        ("f1", 0.75),
        ("ham_wrongly_flagged", 1 / 6),
        ("mcc", (3 * 5 - 1 * 1) / math.sqrt(4 * 4 * 6 * 6)),
        ("roc_auc", (6 + 6 + 5 + 3) / 24),
        ("pr_auc", (1 + 1 + 3 / 4 + 4 / 7) / 4),
        ("recall_at_0_1_percent", 0.5),
        ("recall_at_0_5_percent", 0.5),
        ("brier_score", (0.01 + 0.04 + 0.16 + 0.64 + 0.49 + 0.09 + 0.01 + 0.01 + 0 + 0.16) / 10),
    ],
)
def test_the_metrics_of_ten_messages_equal_those_computed_by_hand(name: str, expected: float) -> None:
    assert getattr(example(), name) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "scores", "undefined"),
    [
        pytest.param([], [], set(metric_descriptions()) - COUNTS, id="no messages"),
        pytest.param([0, 0], [0.1, 0.2], {"precision", "recall", "f1"} | RANKING, id="only ham, none flagged"),
        pytest.param([0, 0], [0.1, 0.9], {"recall"} | RANKING, id="only ham, one flagged"),
        pytest.param([1, 1], [0.1, 0.9], {"ham_wrongly_flagged"} | RANKING, id="only spam"),
        pytest.param([1, 0], [0.1, 0.2], {"precision"}, id="nothing flagged"),
        pytest.param([1, 0], [0.9, 0.8], set(), id="all flagged"),
        pytest.param([1, 0], [0.0, 1.0], set(), id="confident errors"),
    ],
)
def test_undefined_metrics_are_none_and_all_others_are_numbers(
    labels: list[int], scores: list[float], undefined: set[str]
) -> None:
    figures = evaluate(np.array(labels, dtype=int), np.array(scores), 0.5).to_dict()
    assert {name for name, value in figures.items() if value is None} == undefined
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


@no_deadline
@given(labelled_scores, share)
def test_no_input_gives_a_warning_or_nan(rows: list[tuple[bool, float]], threshold: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = evaluate(*unzip(rows), threshold).to_dict()
    assert all(value is None or math.isfinite(value) for value in figures.values())


@no_deadline
@given(labelled_scores, share)
def test_the_confusion_matrix_adds_up_to_the_messages(rows: list[tuple[bool, float]], threshold: float) -> None:
    found = evaluate(*unzip(rows), threshold)
    assert found.true_positives + found.false_negatives == found.spam
    assert found.false_positives + found.true_negatives == found.ham
    assert found.spam + found.ham == found.messages == len(rows)


@no_deadline
@given(labelled_scores, share, st.randoms())
def test_the_order_of_the_messages_does_not_matter(rows, threshold, random) -> None:
    shuffled = random.sample(rows, len(rows))
    before, after = evaluate(*unzip(rows), threshold).to_dict(), evaluate(*unzip(shuffled), threshold).to_dict()
    assert {name: value is None for name, value in before.items()} == {n: v is None for n, v in after.items()}
    for name, value in before.items():
        assert value is None or after[name] == pytest.approx(value, abs=1e-12)


@no_deadline
@given(labelled_scores)
def test_shares_are_between_0_and_1(rows: list[tuple[bool, float]]) -> None:
    found = evaluate(*unzip(rows), 0.5)
    for name in ("accuracy", "roc_auc", "pr_auc", "expected_calibration_error", "brier_score", "f1", "precision"):
        assert getattr(found, name) is None or 0 <= getattr(found, name) <= 1, name


@no_deadline
@given(labelled_scores, st.sampled_from([0.001, 0.005, 0.1, 0.25, 0.5, 1.0]))
def test_recall_at_uses_the_lowest_threshold_allowed(rows: list[tuple[bool, float]], rate: float) -> None:
    labels, scores = unzip(rows)
    found = recall_at(labels, scores, rate)
    if labels.all() or not labels.any():
        assert found is None
    else:
        assert found == pytest.approx(brute_force_recall_at(labels, scores, rate))


def test_recall_at_allows_a_share_of_ham_equal_to_the_limit() -> None:
    labels = np.array([True] + [False] * 1000)
    scores = np.array([0.5, 0.9] + [0.1] * 999)
    assert recall_at(labels, scores, 0.001) == 1.0
    assert recall_at(labels[:-1], scores[:-1], 0.001) == 0.0


@no_deadline
@given(labelled_scores)
def test_pr_auc_is_average_precision(rows: list[tuple[bool, float]]) -> None:
    labels, scores = unzip(rows)
    found = evaluate(labels, scores, 0.5).pr_auc
    if labels.any() and not labels.all():
        assert found == pytest.approx(brute_force_average_precision(labels, scores))


@no_deadline
@given(labelled_scores, st.integers(1, 20))
def test_calibration_agrees_with_its_definition_and_with_scikit_learn(rows, bins: int) -> None:
    labels, scores = unzip(rows)
    curve = calibration_curve(labels, scores, bins)
    assert curve.messages.sum() == len(rows)
    if not rows:
        assert curve.expected_error is None
        return
    assert curve.expected_error == pytest.approx(brute_force_calibration_error(labels, scores, bins), abs=1e-12)
    spam_share, mean_probability = sklearn_calibration_curve(labels, scores, n_bins=bins, pos_label=True)
    np.testing.assert_allclose(curve.spam_share, spam_share)
    np.testing.assert_allclose(curve.mean_probability, mean_probability)


@no_deadline
@given(labelled_scores)
def test_the_histogram_counts_each_message_once(rows: list[tuple[bool, float]]) -> None:
    labels, scores = unzip(rows)
    histogram = score_histogram(labels, scores)
    assert (histogram.spam.sum(), histogram.ham.sum()) == (labels.sum(), (~labels).sum())
    assert len(histogram.edges) == len(histogram.spam) + 1 == len(histogram.ham) + 1


@pytest.mark.parametrize(("labels", "expected"), [([], None), ([0], 1.0), ([1, 1, 0], 2 / 3), ([True, False], 0.5)])
def test_the_majority_class_is_the_more_frequent_label(labels: list[int], expected: float | None) -> None:
    assert majority_class_accuracy(np.array(labels, dtype=int)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("score", "threshold", "flagged"),
    [
        pytest.param(0.5, 0.5, 1, id="equal to the threshold"),
        pytest.param(0.0, 0.0, 1, id="threshold 0 flags all"),
        pytest.param(1.0, 1.0, 1, id="threshold 1 flags probability 1"),
        pytest.param(0.4999, 0.5, 0, id="just below"),
        # The float32 nearest to 0.3 is 0.30000001, that nearest to 0.9 is 0.89999998.
        pytest.param(np.float32(0.3), 0.3, 1, id="single precision rounded up"),
        pytest.param(np.float32(0.9), 0.9, 0, id="single precision rounded down"),
    ],
)
def test_a_message_is_flagged_from_the_threshold_on_compared_as_float64(score, threshold, flagged) -> None:
    assert evaluate(np.array([1]), np.array([score]), threshold).true_positives == flagged


@pytest.mark.parametrize(
    ("labels", "scores", "threshold", "message"),
    [
        ([1, 0], [0.5], 0.5, r"the same length.*\(2,\) and \(1,\)"),
        ([[1, 0]], [[0.5, 0.5]], 0.5, r"\[messages\].*\(1, 2\)"),
        ([1, 2], [0.5, 0.5], 0.5, r"labels 1 \(spam\) and 0 \(ham\).*\[1 2\]"),
        ([1.0, 0.0], [0.5, 0.5], 0.5, "float64"),
        (["spam", "ham"], [0.5, 0.5], 0.5, "labels"),
        ([1, 0], [0.5, math.nan], 0.5, r"in \[0, 1\]. Received: nan at index 1, 1 outside"),
        ([1, 0], [-0.1, 1.5], 0.5, r"Received: -0.1 at index 0, 2 outside"),
        ([1, 0], [0.5, 0.5], 1.5, r"threshold in \[0, 1\]. Received: 1.5"),
        ([1, 0], [0.5, 0.5], math.nan, "Received: nan"),
    ],
)
def test_invalid_input_is_refused_and_the_error_says_what_was_expected(labels, scores, threshold, message) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(np.array(labels), np.array(scores), threshold)


def test_metrics_are_the_same_after_a_json_round_trip() -> None:
    assert Metrics.from_dict(json.loads(json.dumps(example().to_dict()))) == example()


@pytest.mark.parametrize("change", [{"mcc": None}, {"new_figure": 1.0}])
def test_metrics_of_another_version_are_refused_and_the_error_names_them(change: dict[str, float | None]) -> None:
    figures = example().to_dict()
    figures = {k: v for k, v in figures.items() if k != "mcc"} if "mcc" in change else figures | change
    with pytest.raises(ArtifactError, match=next(iter(change))):
        Metrics.from_dict(figures)


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        ("share", 0.98765, "98.77 %"),
        ("score", 0.98765, "0.9877"),
        ("count", 12345, "12,345"),
        ("share", None, "not defined"),
    ],
)
def test_a_metric_is_formatted_by_its_form(form: str, value: float | None, expected: str) -> None:
    description = next(description for description in metric_descriptions().values() if description.form == form)
    assert description.format(value) == expected


def test_each_metric_has_a_title_and_a_sentence() -> None:
    assert all(metric.title and metric.sentence.endswith(".") for metric in metric_descriptions().values())
