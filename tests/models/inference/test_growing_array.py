"""A growing array: views that were handed out do not change."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.inference.growing_array import GrowingArray


@given(lengths=st.lists(st.integers(0, 900), max_size=8))
def test_views_stay_unchanged_when_the_array_grows(lengths: list[int]) -> None:
    array, expected, views = GrowingArray(np.int64, (2,)), np.zeros((0, 2), np.int64), []
    for number, length in enumerate(lengths):
        rows = np.full((length, 2), number)
        array.append(rows)
        expected = np.concatenate([expected, rows])
        views.append((array.values, expected))
    assert len(array) == len(expected)
    for view, values in views:
        np.testing.assert_array_equal(view, values)
