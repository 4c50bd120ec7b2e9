"""Text statistics: lengths, scripts, and words that are not in the vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.text_statistics import LENGTH_BOUNDS, NO_LETTERS, TextStatisticsCounter, count_scripts
from models.settings import TextSettings
from models.text.vocabulary import SPECIAL_TOKENS, Vocabulary

TEXTS = st.lists(st.text(min_size=1, max_size=200), max_size=20)


def scripts(*texts: str) -> dict[str, int]:
    return count_scripts(texts, np.array([len(text) for text in texts], np.int64))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["hello", "Hallo Welt"], {"Latin": 2}),
        (["привет", "hello привет"], {"Cyrillic": 2, "Latin": 1}),
        (["你好", "こんにちは", "カタカナ", "안녕", "שלום", "سلام"],
         {"Han": 1, "Hiragana": 1, "Katakana": 1, "Hangul": 1, "Hebrew": 1, "Arabic": 1}),
        (["123 !? £5", "🎉", "\u0301", "\ud800"], {NO_LETTERS: 4}),
        (["раypal", "12 a"], {"Cyrillic": 1, "Latin": 2}),
        ([], {}),
    ],
)  # fmt: skip
def test_a_message_counts_once_for_each_of_its_scripts(texts: list[str], expected: dict[str, int]) -> None:
    assert scripts(*texts) == expected


@given(texts=TEXTS)
def test_each_message_has_a_script_or_none_and_one_length(texts: list[str]) -> None:
    counter = TextStatisticsCounter(None)
    counter.add(texts)
    statistics = counter.statistics()
    assert (statistics.messages, sum(statistics.lengths)) == (len(texts), len(texts))
    assert sum(statistics.scripts.values()) >= len(texts)
    assert all(count <= len(texts) for count in statistics.scripts.values())
    assert statistics.most_characters == max(map(len, texts), default=0)


@given(texts=TEXTS, cut=st.integers(0, 20))
def test_counting_in_parts_equals_counting_at_once(texts: list[str], cut: int) -> None:
    parts, whole = TextStatisticsCounter(None), TextStatisticsCounter(None)
    for part in (texts[:cut], texts[cut:]):
        parts.add(part)
    whole.add(texts)
    assert parts.statistics() == whole.statistics()


@pytest.mark.parametrize(
    ("length", "bin_index"), [(1, 0), (10, 0), (11, 1), (160, 4), (161, 5), (1280, 7), (10_000, 8)]
)
def test_a_length_belongs_to_the_last_bound_that_it_reaches(length: int, bin_index: int) -> None:
    counter = TextStatisticsCounter(None)
    counter.add(["x" * length])
    assert counter.statistics().lengths[bin_index] == 1
    assert len(counter.statistics().lengths) == len(LENGTH_BOUNDS)


def test_words_are_looked_up_as_the_network_reads_them() -> None:
    vocabulary = Vocabulary((*SPECIAL_TOKENS, "win", "prize", "!"), (0, 0, 3, 2, 1), TextSettings(max_tokens=4))
    counter = TextStatisticsCounter(vocabulary)
    counter.add(["WIN a prize!", "win win win win zebra", "zebra"])
    statistics = counter.statistics()
    assert (statistics.words, statistics.unknown) == (9, 2)  # the fifth word of the second message is cut off
    assert statistics.unknown_share == pytest.approx(2 / 9)
    empty = TextStatisticsCounter(None).statistics()
    assert (empty.words, empty.unknown, empty.unknown_share, empty.mean_characters) == (None, None, None, None)
