"""Strings as Arrow has them: to and from bytes, matched and replaced."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def bytes_of(strings: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Bytes of Arrow strings, one behind another, and where each begins and the last ends, int64 [strings + 1]."""
    _, offsets, content = strings.buffers()
    size = np.int64 if strings.type in (pa.large_string(), pa.large_binary()) else np.int32
    starts = np.frombuffer(offsets, size)[strings.offset : strings.offset + len(strings) + 1].astype(np.int64)
    return np.frombuffer(content or b"", np.uint8)[starts[0] : starts[-1]], starts - starts[0]


def strings_of(content: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64]) -> pa.Array:
    """The reverse of `bytes_of`: Arrow strings of bytes, by where each begins; it ends where the next one does."""
    offsets = np.append(begins, len(content)).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(begins), [None, pa.py_buffer(offsets), pa.py_buffer(content)])


def replaced(strings: pa.Array, places: npt.NDArray[np.int64], others: pa.Array) -> pa.Array:
    """Strings with others at some places, each place once."""
    source = np.arange(len(strings))
    source[places] = len(strings) + np.arange(len(places))
    return pa.concat_arrays([strings, others]).take(pa.array(source))


def matches(strings: pa.Array, pattern: str) -> npt.NDArray[np.bool_]:
    """In which strings a regular expression is found, bool [strings]."""
    found: npt.NDArray[np.bool_] = pc.match_substring_regex(strings, pattern).to_numpy(zero_copy_only=False)
    return found


def fully_matches(strings: pa.Array, pattern: str) -> npt.NDArray[np.bool_]:
    """Which strings a regular expression matches as a whole, bool [strings]."""
    return matches(strings, f"^(?:{pattern})$")
