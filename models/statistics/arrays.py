"""Array types of labels and scores, and the check that every statistic makes of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]


FloatArray = npt.NDArray[np.float64]


IntArray = npt.NDArray[np.int64]


def checked(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    """The labels as bool [messages] and the probabilities as float64 [messages].

    Raises:
        ValueError: another shape, a label but 0 and 1, a probability that is NaN or outside [0, 1].
    """
    spam, scores = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if spam.ndim != 1 or spam.shape != scores.shape:
        raise ValueError(
            f"Expected labels and probabilities of one length [messages]. Received: {spam.shape} and {scores.shape}"
        )
    if len(spam) and (spam.dtype.kind not in "biu" or not np.isin(spam, (0, 1)).all()):
        raise ValueError(
            f"Expected labels 1 (spam) and 0 (ham), bool or int. Received: {spam.dtype} {np.unique(spam)[:5]}"
        )
    outside = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if len(outside):
        raise ValueError(
            f"Expected probabilities in [0, 1]. Received: {scores[outside[0]]} at index {outside[0]}, "
            f"{len(outside)} such in all"
        )
    return spam.astype(np.bool_), scores
