"""What is counted of messages: their lengths, their scripts, the words that the vocabulary lacks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.text_statistics import LENGTHS, NO_LETTERS, WordingCount, count_scripts
from models.settings import TextSettings
from models.text.vocabulary import SPECIAL_TOKENS, Vocabulary

TEXTS = st.lists(st.text(min_size=1, max_size=200), max_size=20)


def scripts(*texts: str) -> dict[str, int]:
    return count_scripts(texts, np.array([len(text) for text in texts], np.int64))


@pytest.mark.parametrize(
    ("texts", "found"),
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
def test_a_message_counts_once_for_each_script_that_it_has_a_letter_of(texts: list[str], found: dict[str, int]) -> None:
    assert scripts(*texts) == found


@given(texts=TEXTS)
def test_each_message_has_a_script_or_none_and_one_length(texts: list[str]) -> None:
    counted = WordingCount(None)
    counted.add(texts)
    found = counted.wording()
    assert (found.messages, sum(found.lengths)) == (len(texts), len(texts))
    assert sum(found.scripts.values()) >= len(texts)
    assert all(count <= len(texts) for count in found.scripts.values())
    assert found.most_characters == max(map(len, texts), default=0)


@given(texts=TEXTS, cut=st.integers(0, 20))
def test_counting_in_parts_is_counting_at_once(texts: list[str], cut: int) -> None:
    parts, whole = WordingCount(None), WordingCount(None)
    for some in (texts[:cut], texts[cut:]):
        parts.add(some)
    whole.add(texts)
    assert parts.wording() == whole.wording()


@pytest.mark.parametrize(("length", "place"), [(1, 0), (10, 0), (11, 1), (160, 4), (161, 5), (1280, 7), (10_000, 8)])
def test_a_length_belongs_to_the_last_that_it_reaches(length: int, place: int) -> None:
    counted = WordingCount(None)
    counted.add(["x" * length])
    assert counted.wording().lengths[place] == 1
    assert len(counted.wording().lengths) == len(LENGTHS)


def test_words_are_looked_up_as_the_network_reads_them() -> None:
    vocabulary = Vocabulary((*SPECIAL_TOKENS, "win", "prize", "!"), (0, 0, 3, 2, 1), TextSettings(max_tokens=4))
    counted = WordingCount(vocabulary)
    counted.add(["WIN a prize!", "win win win win zebra", "zebra"])
    found = counted.wording()
    assert (found.words, found.unknown) == (9, 2)  # the fifth word of the second message is cut
    assert found.unknown_share == pytest.approx(2 / 9)
    without = WordingCount(None).wording()
    assert (without.words, without.unknown, without.unknown_share, without.mean_characters) == (None, None, None, None)
