"""Near copies of messages: which texts share a key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.training.self_training.near_copies import (
    collect_keys,
    find_copies,
    find_first_copies,
    mask_text,
    near_copy_keys,
)

ADVERTISEMENT = "Congratulations! You have won a £500 voucher. Claim it at http://win.example.com/a before 6pm, ref 12"
NEAR_COPIES = [
    "CONGRATULATIONS you have won a £900 voucher claim it at http://other.example.org before 7pm ref 99",
    "Congratulations! You have w0n a £500 voucher. Claim it at http://win.example.com/a before 6pm, ref 1234",
    "Anna, congratulations! You have won a £500 voucher. Claim it at www.win.example.com before 6pm, ref 77",
    "Сongratulations! Yоu have won a £500 voucher. Claim it at http://win.example.com/a before 6pm, ref 1234",
]
OTHERS = [
    "Are you coming home for dinner tonight? I cook at 7",
    "Your parcel is waiting, pay the fee at http://post.example.com/x today",
    "You have a new voicemail, call 08712345678 now",
]


@pytest.mark.parametrize("text", NEAR_COPIES)
def test_texts_that_differ_in_a_few_words_numbers_addresses_or_look_alikes_are_near_copies(text: str) -> None:
    assert near_copy_keys(ADVERTISEMENT) & near_copy_keys(text)


@pytest.mark.parametrize("text", OTHERS)
def test_other_texts_are_no_near_copies(text: str) -> None:
    assert not near_copy_keys(ADVERTISEMENT) & near_copy_keys(text)


def test_a_thousand_copies_of_an_advertisement_with_other_numbers_are_one() -> None:
    night = [f"{ADVERTISEMENT}{number}" for number in range(1000)]
    assert find_first_copies(night).sum() == 1
    assert find_copies(night, collect_keys([ADVERTISEMENT])).all()


@given(st.lists(st.text(max_size=40), max_size=20))
@example(["😀", "😀 ", "!!", ""])
def test_every_text_is_a_near_copy_of_itself_and_of_one_that_is_kept(texts: list[str]) -> None:
    first = find_first_copies(texts)
    kept = collect_keys(text for text, is_first in zip(texts, first, strict=True) if is_first)
    assert not find_copies(texts, collect_keys([])).any()
    assert find_copies(texts, collect_keys(texts)).all()
    assert find_first_copies([*texts, *texts])[len(texts) :].sum() == 0
    assert bool(kept) == bool(texts)


@given(st.text(max_size=60))
def test_a_masked_text_has_no_capitals_and_digits_and_stays_the_same_when_masked_again(text: str) -> None:
    masked = mask_text(text)
    assert not any(letter.isascii() and letter.isdigit() for letter in masked)
    assert masked == " ".join(masked.split()) or masked == text.strip()


def test_the_keys_do_not_depend_on_the_process() -> None:
    assert near_copy_keys("one two three four") == near_copy_keys("One  two, THREE four!")
    assert len(near_copy_keys("one two three four")) == 5
    assert isinstance(find_first_copies([]), np.ndarray)
