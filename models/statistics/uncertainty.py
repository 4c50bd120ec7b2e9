"""Uncertainty sampling: selects the messages that are most useful to label.

These are the messages whose score is nearest to the threshold, without near duplicates. Source: Lewis and Gale, "A
Sequential Algorithm for Training Text Classifiers" (SIGIR 1994).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from models.statistics.arrays import FloatArray

# Two messages are similar if they share this part of their tokens, as messages of one campaign that differ in a name.
SIMILARITY_THRESHOLD = 0.6
# Half of the last digit that a probability is stored with: 0 and 1 have no logit.
_MIN_PROBABILITY = 5e-7


def uncertainty_distance(probability: float, threshold: float) -> float:
    """Returns the distance of a score from the threshold in logits: 0.99 and 0.999 are as far apart as 0.5 and 0.91."""
    return abs(_logit(probability) - _logit(threshold))


def uncertainty_distances(probabilities: FloatArray, threshold: float) -> FloatArray:
    """Returns the `uncertainty_distance` of each score: float64 [messages]."""
    clipped = np.clip(probabilities, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    return np.abs(np.log(clipped / (1 - clipped)) - _logit(threshold))


def _logit(probability: float) -> float:
    clipped = min(max(probability, _MIN_PROBABILITY), 1 - _MIN_PROBABILITY)
    return math.log(clipped / (1 - clipped))


def pick_dissimilar(cleaned: Sequence[str], known_texts: Iterable[str], limit: int) -> list[int]:
    """Picks the first messages that are similar neither to each other nor to the known texts.

    Args:
        cleaned: messages as `models.text.cleaning` returns them, in order of preference.
        known_texts: messages, cleaned the same way, that need not be picked again.
        limit: maximum number of messages to pick.

    Returns:
        Indices of the picked messages, in ascending order.
    """
    seen = {frozenset(text.split()) for text in known_texts}
    picked: list[int] = []
    for index, text in enumerate(cleaned):
        if len(picked) == limit:
            break
        tokens = frozenset(text.split())
        if not _is_similar(tokens, seen):
            picked.append(index)
            seen.add(tokens)
    return picked


def _is_similar(tokens: frozenset[str], seen: set[frozenset[str]]) -> bool:
    """Returns whether the Jaccard index of the tokens and one of the sets reaches the threshold.

    Comparing the sizes first rules out most sets without computing the index.
    """
    if tokens in seen:
        return True
    low, high = SIMILARITY_THRESHOLD * len(tokens), len(tokens) / SIMILARITY_THRESHOLD
    return any(
        low <= len(other) <= high and len(tokens & other) >= SIMILARITY_THRESHOLD * len(tokens | other)
        for other in seen
        if other
    )
