"""Arrow strings: conversion from and to bytes, and replacing."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from models.hashing.arrow_strings import from_buffers, join_strings, replace_at, to_buffers

strings = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=8)


@given(texts=strings, first=st.integers(0, 8))
def test_any_slice_converts_to_the_bytes_of_its_strings_and_back(texts: list[str], first: int) -> None:
    content, starts = to_buffers(pa.array(texts, pa.string()).slice(min(first, len(texts))))
    decoded = [content[start:stop].tobytes().decode() for start, stop in itertools.pairwise(starts)]
    assert decoded == texts[first:]
    assert from_buffers(content, starts[:-1]).to_pylist() == texts[first:]


@given(texts=st.lists(st.binary(max_size=8), max_size=8))
def test_strings_are_joined_to_the_buffers_of_arrow(texts: list[bytes]) -> None:
    for joined, expected in zip(join_strings(texts), to_buffers(pa.array(texts, pa.binary())), strict=True):
        np.testing.assert_array_equal(joined, expected)


@given(texts=st.lists(st.binary(max_size=5), max_size=8), data=st.data())
def test_strings_are_replaced_at_the_given_indices(texts: list[bytes], data: st.DataObject) -> None:
    indices = data.draw(st.sets(st.sampled_from(range(len(texts)))).map(sorted) if texts else st.just([]))
    new = data.draw(st.lists(st.binary(max_size=5), min_size=len(indices), max_size=len(indices)))
    content, starts = replace_at(join_strings(texts), np.array(indices, np.int64), new)
    expected = dict(enumerate(texts)) | dict(zip(indices, new, strict=True))
    replaced = [content[start:stop].tobytes() for start, stop in itertools.pairwise(starts)]
    assert replaced == list(expected.values())
