"""Selects texts of a sample that a teacher is sure of, as weakly labelled messages.

Self-training (Yarowsky 1995, "Unsupervised word sense disambiguation rivaling supervised methods") may confirm the
teacher's mistakes (Arazo et al. 2020, "Pseudo-labeling and confirmation bias in deep semi-supervised learning"). So the
selection bounds what the weak labels can do: one text of near copies, none that is labelled, a bounded share of each
class, and a total weight of at most that of the labelled messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.training.self_training.near_copies import find_copies, find_first_copies

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]
MAX_CLASS_RATIO = 5  # messages of one class for one of the other
_HAM, _SPAM, _UNSURE = 0, 1, -1
Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Limits:
    """The limits of a selection.

    Attributes:
        spam_from: probability from which a message is labelled spam.
        ham_to: probability up to which a message is labelled ham.
        weight: largest weight of a message; a labelled one has 1.
        labelled: number of labelled messages, which the total weight does not exceed.
    """

    spam_from: float
    ham_to: float
    weight: float
    labelled: int


@dataclass(frozen=True)
class Selection:
    """The selected texts.

    Attributes:
        rows: their indices in the sample, int64 [texts], ascending.
        labels: int32 [texts]; 1 is spam.
        weight: weight of each.
        counts: number of spam, ham and unsure texts that are left after each step.
    """

    rows: npt.NDArray[np.int64]
    labels: IntArray
    weight: float
    counts: Counts


def select_texts(
    texts: Sequence[str], probabilities: FloatArray, labelled_keys: set[str | int], limits: Limits
) -> Selection:
    """Selects texts.

    Args:
        texts: a sample, in random order.
        probabilities: by the teacher, float64 [texts]; NaN for a text that it cannot score.
        labelled_keys: result of `near_copies.collect_keys` for all labelled messages.
        limits: thresholds and weights.
    """
    labels = label_texts(probabilities, limits)
    kept = np.ones(len(texts), np.bool_)
    counts = {"sampled": _count(labels, kept)}
    for step, passed in (
        ("without_near_copies", find_first_copies(texts)),
        ("without_labelled_texts", ~find_copies(texts, labelled_keys)),
        ("sure", labels != _UNSURE),
    ):
        kept &= passed
        counts[step] = _count(labels, kept)
    kept &= balance_classes(labels, kept)
    counts["balanced"] = _count(labels, kept)
    rows = np.flatnonzero(kept)
    return Selection(rows, labels[rows], bound_weight(len(rows), limits), counts)


def label_texts(probabilities: FloatArray, limits: Limits) -> IntArray:
    """Returns the weak labels, int32 [texts]: 1 for spam, 0 for ham, -1 if the teacher is not sure."""
    labels = np.full(len(probabilities), _UNSURE, np.int32)
    labels[probabilities >= limits.spam_from] = _SPAM
    labels[probabilities <= limits.ham_to] = _HAM
    return labels


def balance_classes(labels: IntArray, kept: BoolArray) -> BoolArray:
    """Returns the texts to keep so that no class has more than `MAX_CLASS_RATIO` times the other, bool [texts].

    The first ones of a class are kept. Without any of a class, none is kept.
    """
    classes = [np.flatnonzero(kept & (labels == label)) for label in (_HAM, _SPAM)]
    most = MAX_CLASS_RATIO * min(map(len, classes))
    balanced = np.zeros(len(labels), np.bool_)
    for rows in classes:
        balanced[rows[:most]] = True
    return balanced


def bound_weight(texts: int, limits: Limits) -> float:
    """Returns the weight of each of so many texts: at most the limit, and in total at most the labelled messages."""
    return min(limits.weight, limits.labelled / texts) if texts else limits.weight


def _count(labels: IntArray, kept: BoolArray) -> dict[str, int]:
    names = {"spam": _SPAM, "ham": _HAM, "unsure": _UNSURE}
    return {name: int((kept & (labels == label)).sum()) for name, label in names.items()}
