"""Which messages are most worth a person's label: those whose score is nearest to the threshold, no two alike.

Uncertainty sampling is from Lewis and Gale, "A Sequential Algorithm for Training Text Classifiers" (SIGIR 1994).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from models.statistics.arrays import FloatArray

# Two messages are alike when they share this part of their tokens: those of one campaign that differ in a name or two.
ALIKE = 0.6
# Half of the last digit that a probability is kept with: 0 and 1 have no logit.
_LEAST = 5e-7


def uncertainty_distance(probability: float, threshold: float) -> float:
    """How far a score is from the threshold, in logits: 0.99 and 0.999 are as far apart as 0.5 and 0.91."""
    return abs(_logit(probability) - _logit(threshold))


def uncertainty_distances(probabilities: FloatArray, threshold: float) -> FloatArray:
    """As `uncertainty_distance`, of many scores: float64 [messages]."""
    kept = np.clip(probabilities, _LEAST, 1 - _LEAST)
    return np.abs(np.log(kept / (1 - kept)) - _logit(threshold))


def _logit(probability: float) -> float:
    kept = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(kept / (1 - kept))


def pick_dissimilar(cleaned: Sequence[str], known: Iterable[str], most: int) -> list[int]:
    """Places of the first messages that are alike neither to one another nor to those known; in order.

    Args:
        cleaned: messages as `models.text.cleaning` leaves them, the most wanted first.
        known: messages, cleaned alike, that need not come again.
        most: how many are wanted.
    """
    seen = {frozenset(text.split()) for text in known}
    picked: list[int] = []
    for place, text in enumerate(cleaned):
        if len(picked) == most:
            break
        tokens = frozenset(text.split())
        if not _is_alike(tokens, seen):
            picked.append(place)
            seen.add(tokens)
    return picked


def _is_alike(tokens: frozenset[str], seen: set[frozenset[str]]) -> bool:
    """Whether some set shares so many tokens; the Jaccard index, of which the sizes alone tell most apart."""
    if tokens in seen:
        return True
    low, high = ALIKE * len(tokens), len(tokens) / ALIKE
    return any(
        low <= len(other) <= high and len(tokens & other) >= ALIKE * len(tokens | other) for other in seen if other
    )
