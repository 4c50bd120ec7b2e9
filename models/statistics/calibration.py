"""What is fitted once the weights are, on messages that were not trained on
(`models.training.trained_model.unseen_scores`):
probabilities that come true, and the threshold for the share of ham that one is willing to block.

No test message is looked at. `models.network.network.calibrate` puts a calibration into the network's last layer, so
that
whoever has the network has its calibrated logits: the batch, `spamscore text`, the evaluation and the export alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.statistics.arrays import FloatArray, validate_scores

UNSEEN_SCORES = "unseen_scores.parquet"
DECIMALS = 6  # of a probability, wherever it is stored
UNFITTED_THRESHOLD = 0.5
# With a smaller scale the network ranks no better than chance, and a turned sign would turn its ranking; with a larger
# one the differences between devices, in the seventh digit of a logit, would be seen in the scores.
SCALES = (0.01, 10.0)
# Shares are decimal fractions: 0.002 * 500 must be 1.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Calibration:
    """What turns a logit into one whose probability comes true: `scale` times the logit, plus `bias`."""

    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not (SCALES[0] <= self.scale <= SCALES[1] and np.isfinite(self.bias)):
            raise ValueError(
                f"expected a scale from {SCALES[0]:g} to {SCALES[1]:g} and a finite bias, received {self.scale!r} and "
                f"{self.bias!r}"
            )

    def apply(self, logits: npt.ArrayLike) -> FloatArray:
        """Calibrated logits, float64, of the shape given."""
        return self.scale * np.asarray(logits, np.float64) + self.bias


def to_probabilities(logits: npt.ArrayLike) -> FloatArray:
    """Probabilities of spam as they are stored: float64 of the shape given, rounded to six decimals."""
    with np.errstate(over="ignore"):  # beyond any exponent the probability is 0, which is right
        return np.round(1.0 / (1.0 + np.exp(-np.asarray(logits, np.float64))), DECIMALS)


def fit_calibration(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Calibration:
    """The scale and bias under which the labels are most likely.

    Platt, "Probabilistic Outputs for Support Vector Machines", 1999, section 2.2, with its targets: (n₊ + 1)/(n₊ + 2)
    for spam and 1/(n₋ + 2) for ham instead of 1 and 0, without which a part that the network separates would ask for an
    endless scale. Convex, so there is one optimum; it is found by L-BFGS-B within `SCALES`, from the same start, and
    rounded to six decimals.

    Args:
        logits: float [messages], of the network as it was trained.
        labels: bool or int [messages]; 1 is spam. Both kinds must be there.

    Raises:
        ValueError: another shape, a label but 0 and 1, a logit that is no number, labels of one kind alone.
    """
    from scipy.optimize import minimize

    spam, _ = validate_scores(labels, np.zeros(np.shape(labels)))
    values = np.asarray(logits, np.float64)
    if values.shape != spam.shape or not np.isfinite(values).all() or spam.all() or not spam.any():
        raise ValueError(
            f"Expected finite logits of spam and ham, one a label. Received: {values.shape} logits, "
            f"{int(np.isfinite(values).sum())} finite, {int(spam.sum())} spam and {int((~spam).sum())} ham"
        )
    targets = np.where(spam, (spam.sum() + 1) / (spam.sum() + 2), 1 / ((~spam).sum() + 2))

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        calibrated = parameters[0] * values + parameters[1]
        over = 1 / (1 + np.exp(-np.clip(calibrated, -700, 700))) - targets
        entropy = np.logaddexp(0, calibrated) - targets * calibrated
        return float(entropy.mean()), np.array([(over * values).mean(), over.mean()])

    found = minimize(
        loss,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[SCALES, (None, None)],
        options={"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-10},
    )
    scale, bias = (round(float(one), 6) for one in found.x)
    return Calibration(scale, bias)


@dataclass(frozen=True)
class Threshold:
    """The probability from which a message is flagged, and how it was come by.

    Attributes:
        value: in [0, 1].
        share: of ham that may be blocked; None where the value was given, or there was nothing to find it with.
        ham: messages of ham that it was found with.
        blocked: how many of them it blocks.
        enough: whether there was ham enough to know so small a share.
    """

    value: float
    share: float | None = None
    ham: int = 0
    blocked: int = 0
    enough: bool = True

    @property
    def said(self) -> str:
        """How it was come by, in a sentence."""
        if self.share is None:
            return f"The threshold {self.value:g} was given."
        found = (
            f"The threshold {self.value:g} was found for blocking at most {self.share * 100:g} % of the ham; it blocks "
            f"{self.blocked:,} of {self.ham:,} ham messages that were not trained on."
        )
        if self.enough:
            return found
        return f"{found} These are too few to know so small a share: {min_ham_messages(self.share):,} are needed."


def min_ham_messages(share: float) -> int:
    """The ham messages from which on `find_threshold` can keep to a share of new ham; 0 for a share of nought."""
    return int(np.ceil(1 / share - ROUNDING)) - 1 if share else 0


def find_threshold(labels: npt.ArrayLike, probabilities: npt.ArrayLike, share: float) -> Threshold:
    """The smallest threshold that is to be expected to block at most a share of new ham.

    Of n ham messages, sorted by probability, it lies one millionth, the smallest step between stored probabilities,
    above the one that r = ⌊share · (n + 1)⌋ reach, that one included: r - 1 of them are blocked. A new ham message that
    comes from where these came from is as likely to stand at any of the n + 1 places among them, so it is blocked with
    a probability of at most r / (n + 1) ≤ share. That is the quantile of split conformal prediction (Angelopoulos and
    Bates, "A Gentle Introduction to Conformal Prediction", 2021, section 1); the plain one, which blocks ⌊share · n⌋,
    would block up to one more in n + 1. Of equal probabilities all are let through or none: fewer may be blocked, never
    more. 500 ham messages and a share of 0.2 % give r = 1: none of the 500 is blocked.

    Fewer than `min_ham_messages` cannot tell: r would be 0. Then none of them is blocked, and the threshold is not below one
    half, for a low one would rest on too little.

    Early stopping and calibration saw the same messages, so new ham may be blocked a little more often than that.

    Args:
        labels: bool or int [messages]; 1 is spam. Of messages that were not trained on.
        probabilities: float [messages], calibrated, with six decimals.
        share: of ham that may be blocked, in [0, 1].

    Raises:
        ValueError: another shape, a label but 0 and 1, a probability or share outside [0, 1].
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
