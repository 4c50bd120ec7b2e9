"""Loops are compiled whether or not that can be kept, and the tests see places outside an array."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from models.hashing.compiled import compiled


@compiled
def third(values: np.ndarray) -> int:
    return values[2]


def test_a_place_outside_its_array_is_an_error_in_the_tests() -> None:
    assert third(np.arange(3)) == 2
    with pytest.raises(IndexError):
        third(np.arange(2))


def test_what_cannot_be_kept_is_compiled_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    names: dict[str, object] = {}
    exec("def added(one, other):\n    return one + other\n", names)  # of no file, beside which it could be kept
    with caplog.at_level(logging.INFO, "spamscore"):
        added = compiled(names["added"])
    assert added(2, 3) == 5
    assert "the compiled code of added cannot be cached" in caplog.text
