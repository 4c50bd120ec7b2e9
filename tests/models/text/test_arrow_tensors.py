"""Arrow strings: conversion from and to Python strings and TensorFlow tensors."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.text.arrow_tensors import arrow_to_tensor, as_arrow, tensor_to_arrow

strings = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=8)


@given(texts=strings)
def test_strings_survive_conversion_to_a_tensor_and_back(texts: list[str]) -> None:
    assert tensor_to_arrow(arrow_to_tensor(as_arrow(texts))).to_pylist() == [text.encode() for text in texts]


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert as_arrow(["a\ud800b"]).to_pylist() == ["a\ufffdb"]
