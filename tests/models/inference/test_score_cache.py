"""Scores that are known: found by message, never another message's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.inference.score_cache import ScoreCache, find_duplicates, hash_messages
from models.text.arrow_tensors import as_arrow


def hashes(texts: list[str]) -> np.ndarray:
    return hash_messages(as_arrow(texts))


@given(
    parts=st.lists(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=9), max_size=6),
    places=st.integers(1, 8),
)
def test_a_score_that_is_found_is_the_messages_own_however_few_places_there_are(
    parts: list[dict[str, float]], places: int
) -> None:
    cache, expected = ScoreCache(places), {}
    for part in parts:
        scores = [expected.setdefault(text, score) for text, score in part.items()]
        cache.put(hashes(list(part)), np.array(scores))
        found = cache.get(hashes(list(expected)))
        for text, score in zip(expected, found.tolist(), strict=True):
            assert np.isnan(score) or score == expected[text]
        assert np.isfinite(found).any()


def test_with_twice_the_room_few_are_forgotten_and_with_less_the_newest_are_there() -> None:
    texts = [f"message {number}" for number in range(4096)]
    for places, least in ((8192, 0.9), (1024, 0.15)):
        cache = ScoreCache(places)
        for at in range(0, 4096, 64):
            cache.put(hashes(texts[at : at + 64]), np.arange(at, at + 64) / 4096)
            assert np.isfinite(cache.get(hashes(texts[at : at + 64]))).mean() > 0.8
        assert np.isfinite(cache.get(hashes(texts))).mean() > least


def test_with_room_for_all_nothing_is_forgotten() -> None:
    texts = [f"message {number}" for number in range(1000)]
    cache = ScoreCache(2**20)
    cache.put(hashes(texts), np.arange(1000) / 1000)
    assert np.isfinite(cache.get(hashes(texts))).mean() > 0.99
    assert np.isnan(cache.get(hashes(["another"]))).all()


@given(texts=st.lists(st.text(max_size=2)))
def test_each_message_is_the_first_of_those_that_are_equal(texts: list[str]) -> None:
    duplicates = find_duplicates(hashes(texts))
    assert [texts[place] for place in duplicates.firsts[duplicates.inverse]] == as_arrow(texts).to_pylist()
    assert [texts[place] for place in duplicates.firsts] == list(dict.fromkeys(texts))
