"""Bit operations that the hash functions share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.hashing.compiled import compiled

_BYTE, _WORD = np.uint64(8), np.uint64(64)  # bits


@compiled
def read_little_endian(content: npt.NDArray[np.uint8], start: int, size: int) -> np.uint64:
    """Reads up to eight bytes as one number, the least significant byte first."""
    number = np.uint64(0)
    for index in range(size - 1, -1, -1):
        number = (number << _BYTE) | np.uint64(content[start + index])
    return number


@compiled
def rotate_left(value: np.uint64, bits: np.uint64) -> np.uint64:
    """Rotates a number to the left by 1 to 63 bits."""
    return (value << bits) | (value >> (_WORD - bits))
