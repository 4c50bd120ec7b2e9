"""The linear part of the network: a linear support vector machine over the n-grams of a message's tokens and over
pairs of neighbouring tokens.

On short messages it is hard to beat (Wang and Manning 2012, "Baselines and Bigrams"), and it stands beside the
recurrent part as in Cheng et al. 2016, "Wide & Deep Learning". Its problem is convex, so it is solved (liblinear, Fan
et al. 2008), not trained by steps: equal messages give equal weights.
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
    """What the linear part is made of: a message's logit is Σ weights / √(Σ squares) + bias, over its features.

    Attributes:
        weights: float32 [buckets].
        squares: squared inverse document frequencies, float32 [buckets].
        bias: float32 [1].
    """

    weights: FloatArray
    squares: FloatArray
    bias: FloatArray


def fit_linear(messages: EncodedMessages, labels: npt.NDArray[np.int32], buckets: int) -> LinearWeights:
    """Solves for the weights, and scales them so that what comes out is a logit.

    Of each feature that a message has counts the inverse document frequency (Spärck Jones 1972, smoothed as
    scikit-learn has it), divided by the length of the message's vector. The scale is Platt's, fitted to what machines
    say of fifths that they were not shown.

    Args:
        messages: to learn from.
        labels: int32 [messages]; 1 is spam. Two messages of each kind at least.
        buckets: of the encoder's n-grams.
    """
    features = features_of(messages, buckets)
    present = np.bincount(features.indices, minlength=buckets)
    frequencies = np.log((1 + len(labels)) / (1 + present)) + 1
    squares = frequencies**2
    lengths = np.sqrt(np.maximum(features @ squares, 1e-12))
    scaled = sp.diags(1 / lengths) @ features @ sp.diags(frequencies)
    calibration = _held_out_calibration(scaled, labels)
    machine = _machine().fit(scaled, labels)
    return LinearWeights(
        (calibration.scale * machine.coef_[0] * frequencies).astype(np.float32),
        squares.astype(np.float32),
        (calibration.scale * machine.intercept_ + calibration.bias).astype(np.float32),
    )


def _machine() -> Any:
    # Here, for who only scores needs no scikit-learn, which takes a second to import.
    from sklearn.svm import LinearSVC

    return LinearSVC(C=_COST, random_state=0)


def _held_out_calibration(features: sp.csr_matrix, labels: npt.NDArray[np.int32]) -> Calibration:
    from sklearn.model_selection import StratifiedKFold

    folds = min(_FOLDS, int(np.bincount(labels, minlength=2).min()))
    if folds < 2:
        return Calibration()
    said = np.zeros(len(labels))
    for rest, fold in StratifiedKFold(folds, shuffle=True, random_state=0).split(features, labels):
        said[fold] = _machine().fit(features[rest], labels[rest]).decision_function(features[fold])
    return fit_calibration(said, labels)


def features_of(messages: EncodedMessages, buckets: int) -> sp.csr_matrix:
    """Which features each message has, float64 [messages, buckets], one or nought, those of a message in order."""
    features = distinct_features(messages, buckets).astype(np.float64)
    features.sort_indices()
    return features
