"""Strings are numbered in the order of their first occurrence, whatever their bytes are."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hashing.arrow_strings import to_buffers
from models.inference.interner import Interner

# Any bytes, but few strings, so that strings recur; and sizes at which the buffers grow.
strings = st.lists(st.binary(max_size=3) | st.sampled_from([b"\0", b"\0\0", b"x" * 40_000, b"x" * 39_999 + b"y"]))


def numbers(interner: Interner, texts: list[bytes]) -> list[int]:
    return interner.intern(*to_buffers(pa.array(texts, pa.binary()))).tolist()


@settings(deadline=None)
@given(parts=st.lists(strings, max_size=4))
def test_each_string_has_one_number_that_leads_back_to_it(parts: list[list[bytes]]) -> None:
    interner, expected = Interner(), dict[bytes, int]()
    for part in parts:
        assert numbers(interner, part) == [expected.setdefault(text, len(expected)) for text in part]
        assert interner.strings().cast(pa.binary()).to_pylist() == list(expected)
    assert len(interner) == len(expected)


@settings(deadline=None)
@given(texts=st.lists(st.text(st.sampled_from("ab \t\n\v\f\r\x1c\x85\u00a0\u3000é"), max_size=12)))
def test_words_are_separated_by_ascii_white_space(texts: list[str]) -> None:
    interner = Interner()
    words, firsts = interner.intern_words(*to_buffers(pa.array(texts, pa.string())))
    stored = interner.strings().cast(pa.binary()).to_pylist()
    found = [[stored[word] for word in words[start:stop]] for start, stop in itertools.pairwise(firsts)]
    assert found == [text.encode().split() for text in texts]  # for bytes, Python splits at ASCII white space only


def test_many_strings_keep_their_numbers_while_the_buffers_grow() -> None:
    interner, texts = Interner(), [b"%d" % number for number in range(20_000)]
    assert numbers(interner, texts) == list(range(20_000))
    assert numbers(interner, texts[::-1]) == list(range(20_000))[::-1]
    assert interner.strings(19_998).to_pylist() == ["19998", "19999"]


def test_strings_that_were_handed_out_do_not_change_while_the_buffers_grow() -> None:
    interner = Interner()
    numbers(interner, [b"first", b"second"])
    handed_out = interner.strings()
    numbers(interner, [b"%d" % number for number in range(20_000)])
    assert handed_out.to_pylist() == ["first", "second"]


def test_a_subset_of_the_strings_gets_new_numbers() -> None:
    interner = Interner()
    numbers(interner, [b"a", b"b", b"", b"c"])
    subset = interner.subset(np.array([3, 2]))
    assert subset.strings().to_pylist() == ["c", ""]
    assert numbers(subset, [b"a", b"c"]) == [2, 0]


def test_new_strings_are_removed_after_an_error() -> None:
    interner = Interner()
    numbers(interner, [b"a"])

    def intern_and_fail() -> None:
        with interner.undo_on_error():
            numbers(interner, [b"b", b"a", b"c"])
            raise KeyError

    with pytest.raises(KeyError):
        intern_and_fail()
    assert len(interner) == 1
    assert numbers(interner, [b"c", b"a", b"b"]) == [1, 0, 2]
