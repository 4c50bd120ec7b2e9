"""Loops are compiled with or without a writable cache, and the tests check array bounds."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from models.hashing.compiled import compiled


@compiled
def third(values: np.ndarray) -> int:
    return values[2]


def test_an_index_out_of_bounds_is_an_error_in_the_tests() -> None:
    assert third(np.arange(3)) == 2
    with pytest.raises(IndexError):
        third(np.arange(2))


def test_a_function_that_cannot_be_cached_is_compiled(caplog: pytest.LogCaptureFixture) -> None:
    namespace: dict[str, object] = {}
    exec("def add(left, right):\n    return left + right\n", namespace)  # has no file, so its code cannot be cached
    with caplog.at_level(logging.INFO, "spamscore"):
        add = compiled(namespace["add"])
    assert add(2, 3) == 5
    assert "the compiled code of add cannot be cached" in caplog.text
