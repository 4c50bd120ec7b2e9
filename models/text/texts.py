"""Messages as Python strings or Arrow strings, and as concatenated bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.hashing.arrow_strings import Buffers, join_strings, to_buffers
from models.text.cleaning import encode_utf8

# Messages, as Python's strings or an Arrow array of strings without nulls.
Texts: TypeAlias = "Sequence[str] | pa.Array"


def as_buffers(texts: Texts) -> Buffers:
    """Returns the bytes and offsets of messages, in UTF-8, with lone surrogates replaced by U+FFFD."""
    return to_buffers(texts) if isinstance(texts, pa.Array) else join_strings(encode_utf8(texts))


def take(texts: Texts, indices: Sequence[int] | npt.NDArray[np.int64]) -> Texts:
    """Returns some of the messages."""
    return texts.take(pa.array(indices)) if isinstance(texts, pa.Array) else [texts[index] for index in indices]
