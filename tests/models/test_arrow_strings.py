"""Strings of Arrow's, as others have them."""

from __future__ import annotations

import itertools

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from models.arrow_strings import arrow_of, as_arrow, bytes_of, matches, tensor_of

strings = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=8)


@given(texts=strings, first=st.integers(0, 8))
def test_bytes_of_any_part_are_those_of_its_strings(texts: list[str], first: int) -> None:
    content, starts = bytes_of(pa.array(texts, pa.string()).slice(min(first, len(texts))))
    found = [content[begin:end].tobytes().decode() for begin, end in itertools.pairwise(starts)]
    assert found == texts[first:]


@given(texts=strings)
def test_a_tensor_of_strings_and_back_is_the_same(texts: list[str]) -> None:
    assert arrow_of(tensor_of(as_arrow(texts))).to_pylist() == [text.encode() for text in texts]


def test_half_a_character_becomes_the_sign_for_what_is_none() -> None:
    assert as_arrow(["a\ud800b"]).to_pylist() == ["a\ufffdb"]


def test_an_expression_is_found_anywhere_in_text_or_bytes() -> None:
    texts = pa.array(["win a prize", "é", ""])
    for strings in (texts, texts.cast(pa.binary())):
        assert matches(strings, "a|é").tolist() == [True, True, False]
