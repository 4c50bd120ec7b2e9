"""FarmHash computed with NumPy is TensorFlow's."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from models.farmhash import MOST_BYTES, fingerprints

sizes = st.integers(1, MOST_BYTES)


@given(strings=sizes.flatmap(lambda size: st.lists(st.binary(min_size=size, max_size=size), min_size=1)))
def test_strings_get_the_fingerprints_that_tensorflow_gives_them(strings: list[bytes]) -> None:
    ours = fingerprints(np.array([list(one) for one in strings], np.uint8))
    assert ours.tolist() == [int.from_bytes(one.tobytes(), "little") for one in theirs(strings)]


def theirs(strings: list[bytes]) -> np.ndarray:
    return tf.fingerprint(tf.constant(strings)[:, tf.newaxis], "farmhash64").numpy()


@pytest.mark.parametrize("size", [0, MOST_BYTES + 1])
def test_strings_of_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"received {size}"):
        fingerprints(np.zeros((2, size), np.uint8))
