"""Curves and histograms of scores: ROC, precision-recall, calibration.

These are the data of the plots. The drawing is in `models.reports.plots`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.statistics.arrays import FloatArray, IntArray, validate_scores

CALIBRATION_BINS = 15
HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class RocPoints:
    """The points of a ROC curve, from no message flagged to all flagged: both float64 [thresholds]."""

    false_positive_rate: FloatArray
    recall: FloatArray


def roc_points(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> RocPoints | None:
    """Computes the ROC curve with every point.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].

    Returns:
        The points; None if all messages are spam or all are ham.
    """
    from sklearn.metrics import roc_curve

    spam, scores = validate_scores(labels, probabilities)
    if spam.all() or not spam.any():
        return None
    false_positive_rate, recall, _ = roc_curve(spam, scores, drop_intermediate=False)
    return RocPoints(false_positive_rate, recall)


@dataclass(frozen=True)
class PrecisionRecallPoints:
    """The points of a precision-recall curve, from all messages flagged to none flagged: both float64 [thresholds]."""

    precision: FloatArray
    recall: FloatArray


def precision_recall_points(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> PrecisionRecallPoints | None:
    """Computes the precision-recall curve.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].

    Returns:
        The points; None if all messages are spam or all are ham.
    """
    from sklearn.metrics import precision_recall_curve

    spam, scores = validate_scores(labels, probabilities)
    if spam.all() or not spam.any():
        return None
    precision, recall, _ = precision_recall_curve(spam, scores)
    return PrecisionRecallPoints(precision, recall)


@dataclass(frozen=True)
class CalibrationCurve:
    """Predicted probability and observed share of spam in each bin that has messages, lowest bin first.

    Attributes:
        low: lower edges of the bins, float64 [filled bins].
        high: upper edges of the bins, float64 [filled bins].
        messages: messages in each bin, int64 [filled bins].
        mean_probability: mean predicted probability, in [0, 1], float64 [filled bins].
        spam_share: observed share of spam, in [0, 1], float64 [filled bins].
    """

    low: FloatArray
    high: FloatArray
    messages: IntArray
    mean_probability: FloatArray
    spam_share: FloatArray

    @property
    def expected_error(self) -> float | None:
        """The expected calibration error: the gap between prediction and observation, averaged over the messages.

        None without messages.
        """
        if not len(self.messages):
            return None
        gaps = np.abs(self.spam_share - self.mean_probability)
        return float((self.messages * gaps).sum() / self.messages.sum())


def calibration_curve(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = CALIBRATION_BINS
) -> CalibrationCurve:
    """Groups the messages by probability into bins of equal width and compares each bin with its labels.

    Bins are open below and closed above; the first is closed on both sides.

    The expected calibration error is that of Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities
    Using Bayesian Binning", AAAI 2015, which uses the probability of the positive class, as here. The default of 15
    bins is from table 1 of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. The error in that paper
    is a different one: it uses the confidence in the predicted class.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        bins: number of bins, at least 1.
    """
    spam, scores = validate_scores(labels, probabilities)
    edges = np.linspace(0.0, 1.0, bins + 1)
    indices = calibration_bins(scores, bins)
    messages = np.bincount(indices, minlength=bins)
    filled = messages > 0
    return CalibrationCurve(
        low=edges[:-1][filled],
        high=edges[1:][filled],
        messages=messages[filled],
        mean_probability=np.bincount(indices, weights=scores, minlength=bins)[filled] / messages[filled],
        spam_share=np.bincount(indices, weights=spam, minlength=bins)[filled] / messages[filled],
    )


def calibration_bins(probabilities: FloatArray, bins: int = CALIBRATION_BINS) -> IntArray:
    """Returns the index of the bin of each probability, int64 [messages].

    Bins are open below and closed above; the first is closed on both sides.
    """
    return np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], probabilities)


@dataclass(frozen=True)
class ScoreHistogram:
    """Counts of spam and ham by probability.

    Attributes:
        edges: edges of the bins, float64 [bins + 1].
        spam: spam messages in each bin, int64 [bins].
        ham: ham messages in each bin, int64 [bins].
    """

    edges: FloatArray
    spam: IntArray
    ham: IntArray


def score_histogram(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = HISTOGRAM_BINS) -> ScoreHistogram:
    """Counts spam and ham in bins of equal width, which are closed below; the last is closed on both sides."""
    spam, scores = validate_scores(labels, probabilities)
    spam_counts, edges = np.histogram(scores[spam], bins=bins, range=(0.0, 1.0))
    ham_counts, _ = np.histogram(scores[~spam], bins=bins, range=(0.0, 1.0))
    return ScoreHistogram(edges, spam_counts, ham_counts)
