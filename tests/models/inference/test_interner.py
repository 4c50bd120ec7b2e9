"""Strings get numbers in the order they come in, the same one each time, whatever their bytes are."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hashing.arrow_strings import to_buffers
from models.inference.interner import Interner

# Bytes of any kind, few of them, so that much comes again; and sizes at which the room grows.
strings = st.lists(st.binary(max_size=3) | st.sampled_from([b"\0", b"\0\0", b"x" * 40_000, b"x" * 39_999 + b"y"]))


def numbers(interner: Interner, texts: list[bytes]) -> list[int]:
    return interner.intern(*to_buffers(pa.array(texts, pa.binary()))).tolist()


@settings(deadline=None)
@given(parts=st.lists(strings, max_size=4))
def test_each_string_has_one_number_and_comes_back_by_it(parts: list[list[bytes]]) -> None:
    interner, known = Interner(), dict[bytes, int]()
    for part in parts:
        assert numbers(interner, part) == [known.setdefault(one, len(known)) for one in part]
        assert interner.strings().cast(pa.binary()).to_pylist() == list(known)
    assert len(interner) == len(known)


@settings(deadline=None)
@given(texts=st.lists(st.text(st.sampled_from("ab \t\n\v\f\r\x1c\x85\u00a0\u3000é"), max_size=12)))
def test_words_are_what_the_white_space_of_ascii_sets_apart(texts: list[str]) -> None:
    interner = Interner()
    words, firsts = interner.intern_words(*to_buffers(pa.array(texts, pa.string())))
    there = interner.strings().cast(pa.binary()).to_pylist()
    found = [[there[word] for word in words[begin:end]] for begin, end in itertools.pairwise(firsts)]
    assert found == [text.encode().split() for text in texts]  # of bytes, Python takes ASCII's white space alone


def test_many_strings_keep_their_numbers_while_the_room_grows() -> None:
    interner, texts = Interner(), [b"%d" % number for number in range(20_000)]
    assert numbers(interner, texts) == list(range(20_000))
    assert numbers(interner, texts[::-1]) == list(range(20_000))[::-1]
    assert interner.strings(19_998).to_pylist() == ["19998", "19999"]


def test_what_was_handed_out_stays_while_the_room_grows() -> None:
    interner = Interner()
    numbers(interner, [b"first", b"second"])
    handed_out = interner.strings()
    numbers(interner, [b"%d" % number for number in range(20_000)])
    assert handed_out.to_pylist() == ["first", "second"]


def test_some_of_the_strings_are_numbered_anew() -> None:
    interner = Interner()
    numbers(interner, [b"a", b"b", b"", b"c"])
    few = interner.subset(np.array([3, 2]))
    assert few.strings().to_pylist() == ["c", ""]
    assert numbers(few, [b"a", b"c"]) == [2, 0]


def test_an_error_forgets_the_strings_that_were_new() -> None:
    interner = Interner()
    numbers(interner, [b"a"])

    def learn() -> None:
        with interner.undo_on_error():
            numbers(interner, [b"b", b"a", b"c"])
            raise KeyError

    with pytest.raises(KeyError):
        learn()
    assert len(interner) == 1
    assert numbers(interner, [b"c", b"a", b"b"]) == [1, 0, 2]
