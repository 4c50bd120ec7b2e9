"""Strings of Arrow's, as Python and TensorFlow have them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.text.arrow_tensors import arrow_to_tensor, as_arrow, tensor_to_arrow

strings = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=8)


@given(texts=strings)
def test_a_tensor_of_strings_and_back_is_the_same(texts: list[str]) -> None:
    assert tensor_to_arrow(arrow_to_tensor(as_arrow(texts))).to_pylist() == [text.encode() for text in texts]


def test_half_a_character_becomes_the_sign_for_what_is_none() -> None:
    assert as_arrow(["a\ud800b"]).to_pylist() == ["a\ufffdb"]
