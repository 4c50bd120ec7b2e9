"""Tests of augmentation: results depend only on the arguments, and a message never becomes empty."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.settings import TextSettings
from models.text.cleaning import clean_texts
from models.training import augmentation
from models.training.augmentation import (
    add_typos,
    apply_leet,
    augment_texts,
    change_case,
    drop_punctuation,
    drop_words,
    fill_placeholders,
    replace_addresses,
    replace_numbers,
    space_out_words,
)

KINDS = [kind for kind, _ in augmentation._KINDS]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
SPAM = "WINNER!! Call 08712345678 now, quote 4839: you have won <DECIMAL> pounds, free entry &lt;#&gt; 2 win in 2009..."
texts_of_any_kind = st.lists(
    st.text() | st.text("!?. ,*", min_size=1) | st.sampled_from([SPAM, "", "!!!", " ", "a !", "call me later"]),
    max_size=6,
)
shares, seeds, epochs = st.floats(0.01, 1.0), st.integers(0, 2**31 - 1), st.integers(0, 99)


@settings(deadline=None, max_examples=200)
@given(texts=texts_of_any_kind, share=shares, seed=seeds, epoch=epochs)
@example(texts=["!!!", "a !", "-"] * 200, share=1.0, seed=0, epoch=0)
def test_a_message_with_content_never_becomes_empty(texts: list[str], share: float, seed: int, epoch: int) -> None:
    augmented = augment_texts(texts, share, seed, epoch)
    assert len(augmented) == len(texts)
    assert all(bool(new.strip()) == bool(text.strip()) for text, new in zip(texts, augmented, strict=True))


@settings(deadline=None)
@given(texts=texts_of_any_kind, share=shares, seed=seeds, epoch=epochs, others=st.lists(st.text(), max_size=3))
def test_the_result_depends_only_on_message_share_seed_epoch_and_index(
    texts: list[str], share: float, seed: int, epoch: int, others: list[str]
) -> None:
    first = augment_texts(texts, share, seed, epoch)
    random.random()  # other random numbers must not matter
    assert augment_texts(list(texts), share, seed, epoch) == first
    assert augment_texts([*texts, *others], share, seed, epoch)[: len(texts)] == first
    for index, text in enumerate(texts):
        assert augment_texts([*others, *[""] * index, text][len(others) :], share, seed, epoch)[index] == first[index]


def test_another_seed_epoch_or_index_gives_another_result() -> None:
    results = [tuple(augment_texts([SPAM] * 8, 1.0, seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len(set(results)) == 4
    assert all(len(set(texts)) > 4 for texts in results)


@settings(deadline=None)
@given(texts=texts_of_any_kind, seed=seeds, epoch=epochs)
def test_a_share_of_0_changes_nothing(texts: list[str], seed: int, epoch: int) -> None:
    original = list(texts)
    assert augment_texts(texts, 0.0, seed, epoch) == original == texts


def test_a_larger_share_rewrites_more_messages() -> None:
    changed = [sum(new != SPAM for new in augment_texts([SPAM] * 300, share, 1, 1)) for share in (0.1, 0.4, 1.0)]
    assert changed == sorted(changed)
    assert 0 < changed[0] < changed[2] <= 300


@every_kind
@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=60), seed=seeds)
def test_every_kind_accepts_any_text(kind: Callable[[str, random.Random], str], text: str, seed: int) -> None:
    assert kind(text, random.Random(seed)) == kind(text, random.Random(seed))


def apply_200_times(kind: Callable[[str, random.Random], str], text: str) -> list[str]:
    return [kind(text, random.Random(seed)) for seed in range(200)]


def test_replaced_numbers_are_similar() -> None:
    for text in apply_200_times(replace_numbers, "call 08712345678, code 4830, in 2009, 5 left"):
        assert re.fullmatch(r"call \d{10,12}, code [1-9]{3}0, in 20[1-3]\d, 5 left", text)
    assert len(set(apply_200_times(replace_numbers, "4839"))) > 100


def test_placeholders_become_numbers() -> None:
    for text in apply_200_times(fill_placeholders, "at &lt;TIME&gt; or <#>, <DECIMAL> but <b>"):
        assert re.fullmatch(r"at \d{1,4} or \d{1,4}, \d{1,4} but <b>", text)


def test_leet_can_be_mapped_back_to_letters() -> None:
    letters = {sign: letter for letter, signs in augmentation._LEET_SIGNS.items() for sign in signs}
    letters["1"] = "[il]"
    for text in apply_200_times(apply_leet, "Win a big glass of ales"):
        assert re.fullmatch(
            "".join(letters.get(sign, re.escape(sign)) for sign in text), "Win a big glass of ales", re.IGNORECASE
        )
    assert "h3ll0, 70457" in apply_200_times(apply_leet, "hello, toast")


def test_only_words_of_four_or_more_letters_are_spaced_out() -> None:
    for text in apply_200_times(space_out_words, "win free entry 12345 now"):
        assert re.sub(r"(?<=\w)[ .*_-](?=\w)", "", text) == "winfreeentry12345now"
        assert text.startswith("win ")
        assert text.endswith(" 12345 now")
    assert "win f r e e e n t r y 12345 now" in apply_200_times(space_out_words, "win free entry 12345 now")


def test_change_case_changes_only_the_case() -> None:
    assert {text.lower() for text in apply_200_times(change_case, "Call ME now")} == {"call me now"}
    assert set(apply_200_times(change_case, "Call ME now")) == {
        "call me now", "CALL ME NOW", "Call me now", "cALL me NOW", "Call Me Now",
    }  # fmt: skip


def test_there_is_one_typo_in_25_characters() -> None:
    for text in apply_200_times(add_typos, "call me now"):
        assert abs(len(text) - 11) <= 1
    assert apply_200_times(add_typos, "abc") == ["abc"] * 200


def test_dropped_words_keep_the_order_and_never_include_all() -> None:
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    for text in apply_200_times(drop_words, " ".join(words)):
        remaining = iter(words)
        assert all(word in remaining for word in text.split())
        assert text
    assert set(apply_200_times(drop_words, "one")) == {"one"}


def test_punctuation_is_dropped_after_words_but_not_inside() -> None:
    results = set(apply_200_times(drop_punctuation, "it's ok, now!"))
    assert results == {"it's ok, now!", "it's ok now!", "it's ok, now", "it's ok now"}


def test_replaced_addresses_are_still_addresses() -> None:
    texts = apply_200_times(replace_addresses, "see http://x.test/a or www.win.com now, a.later")
    for text, cleaned in zip(texts, clean_texts(texts, TextSettings()), strict=True):
        assert re.fullmatch(r"see (?:\S+\.[a-z.]+(?:/\w+)?) or (?:\S+\.[a-z.]+(?:/\w+)?) now, a\.later", text)
        assert len(cleaned.split()) == 9
