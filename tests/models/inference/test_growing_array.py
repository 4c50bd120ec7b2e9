"""An array that grows: what was handed out stays as it was."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.inference.growing_array import GrowingArray


@given(lengths=st.lists(st.integers(0, 900), max_size=8))
def test_what_was_handed_out_is_still_true_after_any_growth(lengths: list[int]) -> None:
    array, whole, seen = GrowingArray(np.int64, (2,)), np.zeros((0, 2), np.int64), []
    for number, length in enumerate(lengths):
        more = np.full((length, 2), number)
        array.append(more)
        whole = np.concatenate([whole, more])
        seen.append((array.values, whole))
    assert len(array) == len(whole)
    for values, expected in seen:
        np.testing.assert_array_equal(values, expected)
