"""Array types for labels and scores, and the validation that every statistic starts with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def validate_scores(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Validates labels and probabilities and converts them to arrays.

    Args:
        labels: bool or int [messages]; 1 is spam, 0 is ham.
        probabilities: float [messages] in [0, 1].

    Returns:
        The labels as bool [messages] and the probabilities as float64 [messages].

    Raises:
        ValueError: the shapes differ or are not [messages], a label is not 0 or 1, or a probability is NaN or outside
            [0, 1].
    """
    spam, scores = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if spam.ndim != 1 or spam.shape != scores.shape:
        raise ValueError(
            "Expected labels and probabilities of the same length [messages]. "
            f"Received: {spam.shape} and {scores.shape}"
        )
    if len(spam) and (spam.dtype.kind not in "biu" or not np.isin(spam, (0, 1)).all()):
        raise ValueError(
            f"Expected labels 1 (spam) and 0 (ham), bool or int. Received: {spam.dtype} {np.unique(spam)[:5]}"
        )
    outside = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if len(outside):
        raise ValueError(
            f"Expected probabilities in [0, 1]. Received: {scores[outside[0]]} at index {outside[0]}, "
            f"{len(outside)} outside"
        )
    return spam.astype(np.bool_), scores
