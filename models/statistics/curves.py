"""Curves and histograms of scores: ROC, precision and recall, calibration, and the data of their plots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.statistics.arrays import FloatArray, IntArray, validate_scores

CALIBRATION_BINS = 15


HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class RocPoints:
    """Each threshold's two shares, from nothing flagged to all: float64 [thresholds] each."""

    false_positive_rate: FloatArray
    recall: FloatArray


def roc_points(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> RocPoints | None:
    """The ROC curve, no point left out; None when all messages are of one kind."""
    from sklearn.metrics import roc_curve

    spam, scores = validate_scores(labels, probabilities)
    if spam.all() or not spam.any():
        return None
    false_positive_rate, recall, _ = roc_curve(spam, scores, drop_intermediate=False)
    return RocPoints(false_positive_rate, recall)


@dataclass(frozen=True)
class PrecisionRecallPoints:
    """Each threshold's precision and recall, from all flagged to nothing: float64 [thresholds] each."""

    precision: FloatArray
    recall: FloatArray


def precision_recall_points(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> PrecisionRecallPoints | None:
    """The precision-recall curve; None when all messages are of one kind."""
    from sklearn.metrics import precision_recall_curve

    spam, scores = validate_scores(labels, probabilities)
    if spam.all() or not spam.any():
        return None
    precision, recall, _ = precision_recall_curve(spam, scores)
    return PrecisionRecallPoints(precision, recall)


@dataclass(frozen=True)
class CalibrationCurve:
    """What was said and what came true, one value a bin that holds messages, lowest bin first.

    `low`, `high`: the bin's edges; `mean_probability`, `spam_share`: shares in [0, 1]; all float64 [filled bins].
    `messages`: int64 [filled bins].
    """

    low: FloatArray
    high: FloatArray
    messages: IntArray
    mean_probability: FloatArray
    spam_share: FloatArray

    @property
    def expected_error(self) -> float | None:
        """The gap between what was said and what came true, averaged over the messages; None without messages."""
        if not len(self.messages):
            return None
        gaps = np.abs(self.spam_share - self.mean_probability)
        return float((self.messages * gaps).sum() / self.messages.sum())


def calibration_curve(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = CALIBRATION_BINS
) -> CalibrationCurve:
    """Groups the messages by probability into bins of equal width and compares each bin with its labels.

    Bins are open below and closed above, the first one closed on both sides. The expected calibration error of Naeini,
    Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015, which takes the
    probability of the positive class as here; 15 bins as in table 1 of Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017, whose own error is over the confidence in the predicted class.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        bins: how many, at least 1.
    """
    spam, scores = validate_scores(labels, probabilities)
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = calibration_bins(scores, bins)
    messages = np.bincount(place, minlength=bins)
    filled = messages > 0
    return CalibrationCurve(
        low=edges[:-1][filled],
        high=edges[1:][filled],
        messages=messages[filled],
        mean_probability=np.bincount(place, weights=scores, minlength=bins)[filled] / messages[filled],
        spam_share=np.bincount(place, weights=spam, minlength=bins)[filled] / messages[filled],
    )


def calibration_bins(probabilities: FloatArray, bins: int = CALIBRATION_BINS) -> IntArray:
    """The bin that each probability is in, int64 [messages]: open below and closed above, the first closed on both."""
    return np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], probabilities)


@dataclass(frozen=True)
class ScoreHistogram:
    """How many messages of each kind got which probability.

    `edges`: float64 [bins + 1]; `spam`, `ham`: int64 [bins].
    """

    edges: FloatArray
    spam: IntArray
    ham: IntArray


def score_histogram(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = HISTOGRAM_BINS) -> ScoreHistogram:
    """Counts the messages of each kind in bins of equal width, closed below, the last one closed on both sides."""
    spam, scores = validate_scores(labels, probabilities)
    of_spam, edges = np.histogram(scores[spam], bins=bins, range=(0.0, 1.0))
    of_ham, _ = np.histogram(scores[~spam], bins=bins, range=(0.0, 1.0))
    return ScoreHistogram(edges, of_spam, of_ham)
