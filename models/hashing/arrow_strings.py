"""Strings as concatenated bytes: conversion from and to Arrow strings, joining and replacing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.hashing.compiled import compiled

# Strings: their concatenated bytes, uint8; and the offset of each followed by the end of the last one, int64.
Buffers: TypeAlias = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def to_buffers(strings: pa.Array) -> Buffers:
    """Returns the concatenated bytes of Arrow strings and their offsets.

    Returns:
        The bytes, uint8; and the offset of each string followed by the end of the last one, int64 [strings + 1].
    """
    _, offsets, content = strings.buffers()
    size = np.int64 if strings.type in (pa.large_string(), pa.large_binary()) else np.int32
    starts = np.frombuffer(offsets, size)[strings.offset : strings.offset + len(strings) + 1].astype(np.int64)
    return np.frombuffer(content or b"", np.uint8)[starts[0] : starts[-1]], starts - starts[0]


def from_buffers(content: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> pa.Array:
    """Builds Arrow strings from concatenated bytes; the reverse of `to_buffers`.

    Args:
        content: bytes of the strings.
        starts: offset of each string, int64 [strings]. A string ends where the next one starts.
    """
    offsets = np.append(starts, len(content)).astype(np.int32)
    return pa.Array.from_buffers(pa.string(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(content)])


def join_strings(strings: Sequence[bytes]) -> Buffers:
    """Concatenates strings. Returns what `to_buffers` returns."""
    starts = np.zeros(len(strings) + 1, np.int64)
    np.cumsum([len(string) for string in strings], out=starts[1:])
    return np.frombuffer(b"".join(strings), np.uint8), starts


def replace_at(strings: Buffers, indices: npt.NDArray[np.int64], replacements: Sequence[bytes]) -> Buffers:
    """Returns strings with those at `indices`, in ascending order, replaced."""
    content, starts = strings
    new_content, new_starts = join_strings(replacements)
    replaced = np.empty(len(content) + len(new_content), np.uint8)
    replaced_starts = np.zeros_like(starts)
    _replace(content, starts, indices, new_content, new_starts, replaced, replaced_starts)
    return replaced[: replaced_starts[-1]], replaced_starts


@compiled
def _replace(
    content: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    indices: npt.NDArray[np.int64],
    new_content: npt.NDArray[np.uint8],
    new_starts: npt.NDArray[np.int64],
    output: npt.NDArray[np.uint8],
    output_starts: npt.NDArray[np.int64],
) -> None:
    position = replacement = 0
    for string in range(len(starts) - 1):
        source, start, stop = content, starts[string], starts[string + 1]
        if replacement < len(indices) and indices[replacement] == string:
            source, start, stop = new_content, new_starts[replacement], new_starts[replacement + 1]
            replacement += 1
        for index in range(start, stop):
            output[position] = source[index]
            position += 1
        output_starts[string + 1] = position
