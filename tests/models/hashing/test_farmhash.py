"""FarmHash as it is computed here is TensorFlow's."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from models.hashing.farmhash import MAX_BYTES, fingerprints


@given(strings=st.lists(st.binary(min_size=1, max_size=MAX_BYTES), min_size=1))
def test_strings_get_the_fingerprints_that_tensorflow_gives_them(strings: list[bytes]) -> None:
    assert fingerprints(strings).tolist() == [int.from_bytes(one.tobytes(), "little") for one in theirs(strings)]


def theirs(strings: list[bytes]) -> np.ndarray:
    return tf.fingerprint(tf.constant(strings)[:, tf.newaxis], "farmhash64").numpy()


@pytest.mark.parametrize("size", [0, MAX_BYTES + 1])
def test_strings_of_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"received {size}"):
        fingerprints([b"a", b"x" * size])
