"""Calibration of probabilities, and the threshold for the share of ham that may be blocked.

Both are fitted after training, on messages that were not trained on
(`models.trained_model.description.collect_unseen_scores`). Test messages are never used.
`models.network.network.calibrate` writes a calibration into the last layers of the network. So the batch,
`spamscore text`, the evaluation and the export all get calibrated logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.statistics.arrays import FloatArray, validate_scores

UNSEEN_SCORES = "unseen_scores.parquet"
DECIMALS = 6  # of a probability, wherever it is stored
UNFITTED_THRESHOLD = 0.5
# With a smaller scale the network ranks no better than chance, and a negative scale would reverse its ranking. With a
# larger scale the differences between devices, in the seventh digit of a logit, would be visible in the scores.
SCALE_RANGE = (0.01, 10.0)
# Tolerance for shares, which are decimal fractions: 0.002 * 500 must be 1.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Calibration:
    """A linear map from logits to calibrated logits: `scale` times the logit, plus `bias`."""

    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (SCALE_RANGE[0] <= self.scale <= SCALE_RANGE[1] and np.isfinite(self.bias)):
            raise ValueError(
                f"expected a scale from {SCALE_RANGE[0]:g} to {SCALE_RANGE[1]:g} and a finite bias, "
                f"received {self.scale!r} and {self.bias!r}"
            )

    def apply(self, logits: npt.ArrayLike) -> FloatArray:
        """Returns the calibrated logits, float64, in the same shape."""
        return self.scale * np.asarray(logits, np.float64) + self.bias


def to_probabilities(logits: npt.ArrayLike) -> FloatArray:
    """Converts logits to spam probabilities as they are stored: float64, the same shape, rounded to six decimals."""
    with np.errstate(over="ignore"):  # where exp overflows, the probability is 0, as it should be
        return np.round(1.0 / (1.0 + np.exp(-np.asarray(logits, np.float64))), DECIMALS)


def fit_calibration(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """Fits the scale and bias that make the labels most likely (Platt scaling).

    Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999, section 2.2. The targets are the paper's:
    (n₊ + 1)/(n₊ + 2) for spam and 1/(n₋ + 2) for ham instead of 1 and 0. With 1 and 0 the scale would have no upper
    bound where the network separates spam and ham completely.

    The loss is convex, so it has one optimum. L-BFGS-B finds it within `SCALE_RANGE`, always from the same start. The
    result is rounded to six decimals.

    Args:
        logits: float [messages], uncalibrated, from the network as it was trained.
        labels: bool or int [messages]; 1 is spam. Both spam and ham are needed.

    Raises:
        ValueError: the shapes differ, a label is not 0 or 1, a logit is not finite, or all labels are equal.
    """
    from scipy.optimize import minimize

    spam, _ = validate_scores(labels, np.zeros(np.shape(labels)))
    values = np.asarray(logits, np.float64)
    if values.shape != spam.shape or not np.isfinite(values).all() or spam.all() or not spam.any():
        raise ValueError(
            f"Expected finite logits of spam and ham, one for each label. Received: {values.shape} logits, "
            f"{int(np.isfinite(values).sum())} finite, {int(spam.sum())} spam and {int((~spam).sum())} ham"
        )
    targets = np.where(spam, (spam.sum() + 1) / (spam.sum() + 2), 1 / ((~spam).sum() + 2))

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        calibrated = parameters[0] * values + parameters[1]
        error = 1 / (1 + np.exp(-np.clip(calibrated, -700, 700))) - targets
        entropy = np.logaddexp(0, calibrated) - targets * calibrated
        return float(entropy.mean()), np.array([(error * values).mean(), error.mean()])

    result = minimize(
        loss,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[SCALE_RANGE, (None, None)],
        options={"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-10},
    )
    scale, bias = (round(float(parameter), 6) for parameter in result.x)
    return Calibration(scale, bias)


@dataclass(frozen=True)
class Threshold:
    """The probability from which a message is flagged, and how it was found.

    Attributes:
        value: in [0, 1].
        share: share of ham that may be blocked; None if the value was given, or if there were no scores to find it
            with.
        ham: number of ham messages that it was found with.
        blocked: number of these that it blocks.
        enough: whether there were enough ham messages for a share this small.
    """

    value: float
    share: float | None = None
    ham: int = 0
    blocked: int = 0
    enough: bool = True

    @property
    def description(self) -> str:
        """Describes in a sentence how the threshold was found."""
        if self.share is None:
            return f"The threshold {self.value:g} was given."
        sentence = (
            f"The threshold {self.value:g} was found for blocking at most {self.share * 100:g} % of the ham; it blocks "
            f"{self.blocked:,} of {self.ham:,} ham messages that were not trained on."
        )
        if self.enough:
            return sentence
        return f"{sentence} That is too few for so small a share: {min_ham_messages(self.share):,} are needed."


def min_ham_messages(share: float) -> int:
    """Returns how many ham messages `find_threshold` needs at least for a share of new ham; 0 for a share of zero."""
    return int(np.ceil(1 / share - ROUNDING)) - 1 if share else 0


def find_threshold(labels: npt.ArrayLike, probabilities: npt.ArrayLike, share: float) -> Threshold:
    """Finds the smallest threshold that is expected to block at most a share of new ham.

    Let n be the number of ham messages, sorted by probability, and r = ⌊share · (n + 1)⌋. The threshold is one
    millionth, the smallest step between stored probabilities, above the r-th highest probability. So r - 1 of the n
    messages are blocked. A new ham message from the same source is equally likely at each of the n + 1 ranks among
    them, so it is blocked with a probability of at most r / (n + 1) ≤ share. This is the quantile of split conformal
    prediction (Angelopoulos and Bates, "A Gentle Introduction to Conformal Prediction", 2021, section 1). The plain
    quantile, which blocks ⌊share · n⌋, would block up to one more in n + 1. Messages with equal probabilities are all
    blocked or all let through, so fewer may be blocked, never more. Example: 500 ham messages and a share of 0.2 % give
    r = 1, so none of the 500 is blocked.

    With fewer than `min_ham_messages`, r would be 0. Then none of them is blocked, and the threshold is at least one
    half, because a lower one would be based on too few messages.

    Early stopping and calibration used the same messages, so new ham may be blocked slightly more often than the share.

    Args:
        labels: bool or int [messages]; 1 is spam. The messages must not have been trained on.
        probabilities: float [messages], calibrated, with six decimals.
        share: share of ham that may be blocked, in [0, 1].

    Raises:
        ValueError: the shapes differ, a label is not 0 or 1, or a probability or the share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"Expected a share in [0, 1]. Received: {share!r}")
    spam, scores = validate_scores(labels, probabilities)
    ham = np.sort(scores[~spam])[::-1]
    rank = int(np.floor(share * (len(ham) + 1) + ROUNDING))
    enough = rank >= 1 or share == 0
    if rank > len(ham):
        value = 0.0
    else:
        highest = ham[max(rank, 1) - 1] if len(ham) else 0.0
        value = min(round(float(highest) + 10**-DECIMALS, DECIMALS), 1.0)
    if not enough:
        value = max(value, UNFITTED_THRESHOLD)
    return Threshold(value, share, len(ham), int((ham >= value).sum()), enough)
