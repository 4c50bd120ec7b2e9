"""Fits the linear part of the network: a linear SVM over the n-grams of tokens and pairs of neighbouring tokens.

It is hard to beat on short messages (Wang and Manning 2012, "Baselines and Bigrams"). It is combined with the recurrent
part as in Cheng et al. 2016, "Wide & Deep Learning". Its problem is convex, so it is solved by liblinear (Fan et al.
2008), not trained in steps: equal messages give equal weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.network.features import distinct_features
from models.statistics.calibration import Calibration, fit_calibration
from models.text.encoder import EncodedMessages

FloatArray = npt.NDArray[np.float32]
_FOLDS = 5
_COST = 1.0


@dataclass(frozen=True)
class LinearWeights:
    """The weights of the linear part: a message's logit is Σ weights / √(Σ squares) + bias, over its features.

    Attributes:
        weights: float32 [buckets].
        squares: squared inverse document frequencies, float32 [buckets].
        bias: float32 [1].
    """

    weights: FloatArray
    squares: FloatArray
    bias: FloatArray


def fit_linear(messages: EncodedMessages, labels: npt.NDArray[np.int32], buckets: int) -> LinearWeights:
    """Fits the weights, and scales them so that the output is a logit.

    The value of a feature is its inverse document frequency (Spärck Jones 1972, smoothed as in scikit-learn), divided
    by the length of the message's vector. The scale is fitted by Platt scaling to the scores of held-out fifths of the
    messages.

    Args:
        messages: training messages, encoded.
        labels: int32 [messages]; 1 is spam. At least two messages of each class.
        buckets: hash buckets of the encoder's n-grams.
    """
    features = build_feature_matrix(messages, buckets)
    document_counts = np.bincount(features.indices, minlength=buckets)
    frequencies = np.log((1 + len(labels)) / (1 + document_counts)) + 1
    squares = frequencies**2
    lengths = np.sqrt(np.maximum(features @ squares, 1e-12))
    scaled = sp.diags(1 / lengths) @ features @ sp.diags(frequencies)
    calibration = _held_out_calibration(scaled, labels)
    svm = _new_svm().fit(scaled, labels)
    return LinearWeights(
        (calibration.scale * svm.coef_[0] * frequencies).astype(np.float32),
        squares.astype(np.float32),
        (calibration.scale * svm.intercept_ + calibration.bias).astype(np.float32),
    )


def _new_svm() -> Any:
    # Imported here, because scoring does not need scikit-learn, and its import takes a second.
    from sklearn.svm import LinearSVC

    return LinearSVC(C=_COST, random_state=0)


def _held_out_calibration(features: sp.csr_matrix, labels: npt.NDArray[np.int32]) -> Calibration:
    from sklearn.model_selection import StratifiedKFold

    folds = min(_FOLDS, int(np.bincount(labels, minlength=2).min()))
    if folds < 2:
        return Calibration()
    scores = np.zeros(len(labels))
    for training, held_out in StratifiedKFold(folds, shuffle=True, random_state=0).split(features, labels):
        svm = _new_svm().fit(features[training], labels[training])
        scores[held_out] = svm.decision_function(features[held_out])
    return fit_calibration(scores, labels)


def build_feature_matrix(messages: EncodedMessages, buckets: int) -> sp.csr_matrix:
    """Returns which features each message has: float64 [messages, buckets], 1 or 0, the indices of a row sorted."""
    features = distinct_features(messages, buckets).astype(np.float64)
    features.sort_indices()
    return features
