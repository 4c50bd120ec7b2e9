"""FarmHash gives the same hashes as TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from models.hashing.farmhash import fingerprints


@given(strings=st.lists(st.binary(min_size=1, max_size=300), min_size=1))
def test_fingerprints_equal_those_of_tensorflow(strings: list[bytes]) -> None:
    assert fingerprints(strings).tolist() == tensorflow_fingerprints(strings)


def test_strings_of_every_size_have_the_fingerprints_of_tensorflow() -> None:
    content = np.random.default_rng(0).bytes(300)
    strings = [content[:size] for size in range(1, 300)]
    assert fingerprints(strings).tolist() == tensorflow_fingerprints(strings)


def tensorflow_fingerprints(strings: list[bytes]) -> list[int]:
    rows = tf.fingerprint(tf.constant(strings)[:, tf.newaxis], "farmhash64").numpy()
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


def test_an_empty_string_is_rejected() -> None:
    with pytest.raises(ValueError, match="received 0"):
        fingerprints([b"a", b""])
