"""Converts Arrow strings from and to Python strings and TensorFlow tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import pyarrow as pa
import tensorflow as tf

from models.text.cleaning import encode_utf8

# Messages, as Python's strings or an Arrow array of strings without nulls.
Texts: TypeAlias = "Sequence[str] | pa.Array"


def as_arrow(texts: Texts) -> pa.Array:
    """Returns messages as an Arrow array of strings, with lone surrogates replaced by U+FFFD."""
    return texts if isinstance(texts, pa.Array) else pa.array(encode_utf8(texts), pa.binary()).cast(pa.string())


def tensor_to_arrow(strings: tf.Tensor) -> pa.Array:
    """Converts a tensor of strings, [strings], to Arrow binary."""
    return pa.array(strings.numpy(), pa.binary())


def arrow_to_tensor(strings: pa.Array) -> tf.Tensor:
    """Converts Arrow strings to a tensor of strings, [strings]."""
    return tf.constant(strings.cast(pa.binary()).to_pylist(), tf.string)
