"""Fits the linear part of the network: a linear SVM over the character n-grams of a message.

Character n-grams are hard to beat on short messages, also on those of other people than the corpus was collected from.
The linear part is combined with the recurrent part as in Cheng et al. 2016, "Wide & Deep Learning". Its problem is
convex, so it is solved by liblinear (Fan et al. 2008), not trained in steps: equal messages give equal weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.network.character_ngrams import MIN_SQUARES, build_feature_matrix
from models.statistics.calibration import Calibration, fit_calibration
from models.text.encoder import Characters

FloatArray = npt.NDArray[np.float32]
_FOLDS = 5
_COST = 1.0
# The logit of the linear part counts twice as much as that of the recurrent part: docs/quality.md.
_SHARE = 2.0


@dataclass(frozen=True)
class LinearWeights:
    """The weights of the linear part: the logit of a message is Σ f·weights / √(Σ f²·squares) + bias.

    The sums are over its features; f is the term frequency of a feature (`models.network.character_ngrams`).

    Attributes:
        weights: float32 [buckets].
        squares: squared inverse document frequencies, float32 [buckets]; 0 for a bucket of no training message.
        bias: float32 [1].
    """

    weights: FloatArray
    squares: FloatArray
    bias: FloatArray


@dataclass(frozen=True)
class WeakLabels:
    """Messages whose labels are less certain than those of the corpus.

    Attributes:
        messages: their characters.
        labels: int32 [messages]; 1 is spam.
        weight: of one of these messages; a labelled one has 1.
    """

    messages: Characters
    labels: npt.NDArray[np.int32]
    weight: float


def fit_linear(
    messages: Characters,
    labels: npt.NDArray[np.int32],
    buckets: int,
    rewritten: Sequence[Characters] = (),
    weaker: WeakLabels | None = None,
) -> LinearWeights:
    """Fits the weights, and scales them so that the output is `_SHARE` times a logit.

    The value of a feature is its term frequency times its inverse document frequency (Spärck Jones 1972, smoothed as in
    scikit-learn), divided by the length of the message's vector. Buckets of no training message are left out. The scale
    is fitted by Platt scaling to the scores of held-out fifths of the messages.

    Args:
        messages: training messages.
        labels: int32 [messages]; 1 is spam. At least two messages of each class.
        buckets: number of buckets that n-grams are hashed to.
        rewritten: the same messages, rewritten, any number of times.
        weaker: messages that are trained on with less weight, and that the scale is not fitted to; none of them is
            among `messages`.
    """
    weaker = weaker or WeakLabels(Characters(np.zeros(0, np.int32), np.zeros(1, np.int64)), np.zeros(0, np.int32), 0.0)
    copies = [build_feature_matrix(characters, buckets) for characters in (messages, *rewritten, weaker.messages)]
    features = sp.vstack(copies, format="csr")
    document_counts = np.bincount(features.indices, minlength=buckets)
    frequencies = np.where(document_counts, np.log((1 + features.shape[0]) / (1 + document_counts)) + 1, 0)
    *scaled, scaled_weaker = (_normalize(copy, frequencies) for copy in copies)
    problem = _Problem(scaled, labels, scaled_weaker, weaker)
    calibration = _held_out_calibration(problem)
    svm = problem.fit(np.arange(len(labels)))
    return LinearWeights(
        (_SHARE * calibration.scale * svm.coef_[0] * frequencies).astype(np.float32),
        (frequencies**2).astype(np.float32),
        (_SHARE * (calibration.scale * svm.intercept_ + calibration.bias)).astype(np.float32),
    )


def _normalize(features: sp.csr_matrix, frequencies: npt.NDArray[np.float64]) -> sp.csr_matrix:
    """Returns the vectors of messages, each of length 1."""
    vectors = features @ sp.diags(frequencies)
    lengths = np.sqrt(np.maximum(vectors.multiply(vectors).sum(axis=1), MIN_SQUARES))
    return sp.diags(1 / np.asarray(lengths).ravel()) @ vectors


@dataclass(frozen=True)
class _Problem:
    """What an SVM is fitted to: vectors of the messages as written and rewritten, and of those with weaker labels."""

    copies: Sequence[sp.csr_matrix]
    labels: npt.NDArray[np.int32]
    weaker_vectors: sp.csr_matrix
    weaker: WeakLabels

    def fit(self, rows: npt.NDArray[np.int64]) -> Any:
        """Fits an SVM to all copies of some messages, and to all messages with weaker labels."""
        # Imported here, because scoring does not need scikit-learn, and its import takes a second.
        from sklearn.svm import LinearSVC

        vectors = sp.vstack([*(copy[rows] for copy in self.copies), self.weaker_vectors], format="csr")
        labels = np.concatenate([np.tile(self.labels[rows], len(self.copies)), self.weaker.labels])
        weights = np.ones(len(labels))
        weights[len(rows) * len(self.copies) :] = self.weaker.weight
        return LinearSVC(C=_COST, random_state=0).fit(vectors, labels, weights)


def _held_out_calibration(problem: _Problem) -> Calibration:
    """Fits the calibration to scores of the messages as they were written, by SVMs that saw no copy of them."""
    from sklearn.model_selection import StratifiedKFold

    labels, as_written = problem.labels, problem.copies[0]
    folds = min(_FOLDS, int(np.bincount(labels, minlength=2).min()))
    if folds < 2:
        return Calibration()
    scores = np.zeros(len(labels))
    for training, held_out in StratifiedKFold(folds, shuffle=True, random_state=0).split(as_written, labels):
        scores[held_out] = problem.fit(training).decision_function(as_written[held_out])
    return fit_calibration(scores, labels)
