"""Strings as Arrow has them: to and from Python and TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import pyarrow as pa
import tensorflow as tf

from models.text.cleaning import encode_utf8

# Messages, as Python's strings or an Arrow array of strings without nulls.
Texts: TypeAlias = "Sequence[str] | pa.Array"


def as_arrow(texts: Texts) -> pa.Array:
    """Messages as an Arrow array of strings; lone surrogates as U+FFFD."""
    return texts if isinstance(texts, pa.Array) else pa.array(encode_utf8(texts), pa.binary()).cast(pa.string())


def arrow_of(strings: tf.Tensor) -> pa.Array:
    """A tensor of strings, [strings], as Arrow binary."""
    return pa.array(strings.numpy(), pa.binary())


def tensor_of(strings: pa.Array) -> tf.Tensor:
    """Arrow strings as a tensor."""
    return tf.constant(strings.cast(pa.binary()).to_pylist(), tf.string)
