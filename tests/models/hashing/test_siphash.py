"""SipHash gives the hashes of its authors' example, and those that pandas computes with it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.util import hash_array

from models.hashing.arrow_strings import to_buffers
from models.hashing.siphash import siphashes


def test_the_hash_of_the_authors_example_is_correct() -> None:
    content, starts = to_buffers(pa.array([bytes(range(15))]))
    assert siphashes(content, starts, bytes(range(16))).tolist() == [0xA129CA6149BE45E5]


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
    key=st.text(st.characters(max_codepoint=127), min_size=16, max_size=16),
)
def test_hashes_equal_those_of_pandas_after_its_last_mixing_step(texts: list[str], key: str) -> None:
    expected = hash_array(np.array(texts, dtype=object), hash_key=key, categorize=False)
    hashes = siphashes(*to_buffers(pa.array(texts, pa.string())), key.encode())
    assert hash_array(hashes, categorize=False).tolist() == expected.tolist()


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_key_of_another_size_is_rejected(size: int) -> None:
    with pytest.raises(ValueError, match=f"received {size}"):
        siphashes(np.zeros(0, np.uint8), np.zeros(1, np.int64), bytes(size))
