"""FarmHash gives the same hashes as TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from models.hashing.farmhash import MAX_BYTES, fingerprints


@given(strings=st.lists(st.binary(min_size=1, max_size=MAX_BYTES), min_size=1))
def test_fingerprints_equal_those_of_tensorflow(strings: list[bytes]) -> None:
    assert fingerprints(strings).tolist() == [
        int.from_bytes(row.tobytes(), "little") for row in tensorflow_fingerprints(strings)
    ]


def tensorflow_fingerprints(strings: list[bytes]) -> np.ndarray:
    return tf.fingerprint(tf.constant(strings)[:, tf.newaxis], "farmhash64").numpy()


@pytest.mark.parametrize("size", [0, MAX_BYTES + 1])
def test_strings_of_other_sizes_are_rejected(size: int) -> None:
    with pytest.raises(ValueError, match=f"received {size}"):
        fingerprints([b"a", b"x" * size])
