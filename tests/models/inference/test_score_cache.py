"""The score cache returns the score of a message, never that of another message."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.inference.score_cache import ScoreCache, find_duplicates, hash_messages
from models.text.cleaning import encode_utf8
from models.text.texts import as_buffers


def hashes(texts: list[str]) -> np.ndarray:
    return hash_messages(*as_buffers(texts))


@given(
    parts=st.lists(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=9), max_size=6),
    slots=st.integers(1, 8),
)
def test_a_cached_score_is_that_of_its_message_with_any_number_of_slots(
    parts: list[dict[str, float]], slots: int
) -> None:
    cache, expected = ScoreCache(slots), {}
    for part in parts:
        scores = [expected.setdefault(text, score) for text, score in part.items()]
        cache.put(hashes(list(part)), np.array(scores))
        cached = cache.get(hashes(list(expected)))
        for text, score in zip(expected, cached.tolist(), strict=True):
            assert np.isnan(score) or score == expected[text]
        assert np.isfinite(cached).any()


def test_few_scores_are_lost_with_enough_slots_and_the_newest_stay_otherwise() -> None:
    texts = [f"message {number}" for number in range(4096)]
    for slots, min_share in ((8192, 0.9), (1024, 0.15)):
        cache = ScoreCache(slots)
        for start in range(0, 4096, 64):
            cache.put(hashes(texts[start : start + 64]), np.arange(start, start + 64) / 4096)
            assert np.isfinite(cache.get(hashes(texts[start : start + 64]))).mean() > 0.8
        assert np.isfinite(cache.get(hashes(texts))).mean() > min_share


def test_almost_no_score_is_lost_with_slots_for_all() -> None:
    texts = [f"message {number}" for number in range(1000)]
    cache = ScoreCache(2**20)
    cache.put(hashes(texts), np.arange(1000) / 1000)
    assert np.isfinite(cache.get(hashes(texts))).mean() > 0.99
    assert np.isnan(cache.get(hashes(["another"]))).all()


@given(texts=st.lists(st.text(max_size=2)))
def test_each_message_maps_to_its_first_occurrence(texts: list[str]) -> None:
    duplicates = find_duplicates(hashes(texts))
    assert [texts[index] for index in duplicates.firsts[duplicates.inverse]] == [
        text.decode() for text in encode_utf8(texts)
    ]
    assert [texts[index] for index in duplicates.firsts] == list(dict.fromkeys(texts))
