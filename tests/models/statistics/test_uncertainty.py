"""Tests of uncertainty sampling: the distance to the threshold, and the choice of dissimilar messages."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.statistics.uncertainty import (
    SIMILARITY_THRESHOLD,
    pick_dissimilar,
    uncertainty_distance,
    uncertainty_distances,
)

probabilities = st.floats(0, 1)
texts = st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=8).map(" ".join), max_size=12)


@given(probability=probabilities, threshold=probabilities)
def test_the_distance_is_finite_and_0_at_the_threshold(probability: float, threshold: float) -> None:
    distance = uncertainty_distance(probability, threshold)
    assert math.isfinite(distance)
    assert distance >= 0
    assert uncertainty_distance(threshold, threshold) == 0


@given(threshold=st.floats(0.001, 0.999), first=st.floats(0.001, 0.999), second=st.floats(0.001, 0.999))
def test_on_each_side_of_the_threshold_a_nearer_probability_has_a_smaller_distance(
    threshold: float, first: float, second: float
) -> None:
    if (first >= threshold) == (second >= threshold) and abs(first - threshold) <= abs(second - threshold):
        assert uncertainty_distance(first, threshold) <= uncertainty_distance(second, threshold)


def test_the_distance_is_in_logits() -> None:
    assert uncertainty_distance(0.9, 0.5) == pytest.approx(math.log(9))
    # In probabilities 0.999 is nearer to 0.99 than 0.6 is to 0.5; in logits it is farther.
    assert uncertainty_distance(0.999, 0.99) > uncertainty_distance(0.6, 0.5)


@given(cleaned=texts, known_texts=texts, limit=st.integers(0, 5))
def test_picked_messages_are_similar_neither_to_each_other_nor_to_known_texts(
    cleaned: list[str], known_texts: list[str], limit: int
) -> None:
    picked = pick_dissimilar(cleaned, known_texts, limit)
    assert picked == sorted(set(picked))
    assert len(picked) <= limit
    picked_sets = [frozenset(cleaned[index].split()) for index in picked]
    known_sets = [frozenset(text.split()) for text in known_texts]
    for number, tokens in enumerate(picked_sets):
        assert all(jaccard(tokens, other) < SIMILARITY_THRESHOLD for other in [*picked_sets[:number], *known_sets])
    if len(picked) < limit:  # then every message is similar to a picked or known one
        assert all(
            any(
                jaccard(frozenset(text.split()), tokens) >= SIMILARITY_THRESHOLD
                for tokens in [*picked_sets, *known_sets]
            )
            for text in cleaned
        )


def jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second) if first | second else 1.0


def test_one_message_of_a_campaign_is_picked() -> None:
    copies = [f"dear {name} you won a prize call PHONE now !" for name in ("ann", "bob", "eve")]
    assert pick_dissimilar([*copies, "see you at lunch"], [], 5) == [0, 3]
    assert pick_dissimilar([*copies, "see you at lunch"], ["dear joe you won a prize call PHONE now !"], 5) == [3]


@given(scores=st.lists(probabilities, min_size=1), threshold=probabilities)
def test_the_distances_of_several_scores_equal_the_distance_of_each(scores: list[float], threshold: float) -> None:
    distances = uncertainty_distances(np.array(scores), threshold)
    assert distances.tolist() == pytest.approx([uncertainty_distance(score, threshold) for score in scores])
