"""Which messages are most worth a label: those nearest to the threshold, no two alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.statistics.uncertainty import ALIKE, pick_dissimilar, uncertainty_distance, uncertainty_distances

probabilities = st.floats(0, 1)
texts = st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=8).map(" ".join), max_size=12)


@given(probability=probabilities, threshold=probabilities)
def test_the_distance_is_finite_and_nought_at_the_threshold_alone(probability: float, threshold: float) -> None:
    distance = uncertainty_distance(probability, threshold)
    assert math.isfinite(distance)
    assert distance >= 0
    assert uncertainty_distance(threshold, threshold) == 0


@given(threshold=st.floats(0.001, 0.999), one=st.floats(0.001, 0.999), other=st.floats(0.001, 0.999))
def test_on_each_side_of_the_threshold_the_nearer_probability_is_the_nearer_message(
    threshold: float, one: float, other: float
) -> None:
    if (one >= threshold) == (other >= threshold) and abs(one - threshold) <= abs(other - threshold):
        assert uncertainty_distance(one, threshold) <= uncertainty_distance(other, threshold)


def test_the_distance_is_in_logits() -> None:
    assert uncertainty_distance(0.9, 0.5) == pytest.approx(math.log(9))
    # In probability 0.6 is nearer to 0.9 than to 0.2; in logits it is the other way round for 0.99.
    assert uncertainty_distance(0.999, 0.99) > uncertainty_distance(0.6, 0.5)


@given(cleaned=texts, known=texts, most=st.integers(0, 5))
def test_what_is_picked_is_alike_neither_to_another_nor_to_what_is_known(
    cleaned: list[str], known: list[str], most: int
) -> None:
    picked = pick_dissimilar(cleaned, known, most)
    assert picked == sorted(set(picked))
    assert len(picked) <= most
    sets = [frozenset(cleaned[place].split()) for place in picked]
    others = [frozenset(text.split()) for text in known]
    for number, one in enumerate(sets):
        assert all(jaccard(one, other) < ALIKE for other in [*sets[:number], *others])
    if len(picked) < most:  # then every other one is like one that is there
        assert all(any(jaccard(frozenset(text.split()), one) >= ALIKE for one in [*sets, *others]) for text in cleaned)


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0


def test_of_a_campaign_one_is_picked() -> None:
    copies = [f"dear {name} you won a prize call PHONE now !" for name in ("ann", "bob", "eve")]
    assert pick_dissimilar([*copies, "see you at lunch"], [], 5) == [0, 3]
    assert pick_dissimilar([*copies, "see you at lunch"], ["dear joe you won a prize call PHONE now !"], 5) == [3]


@given(some=st.lists(probabilities, min_size=1), threshold=probabilities)
def test_the_distances_of_many_scores_are_those_of_each(some: list[float], threshold: float) -> None:
    together = uncertainty_distances(np.array(some), threshold)
    assert together.tolist() == pytest.approx([uncertainty_distance(one, threshold) for one in some])
