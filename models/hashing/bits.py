"""What hashes are made of: bytes as numbers, and bits moved around."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.hashing.compiled import compiled

_BYTE, _ALL = np.uint64(8), np.uint64(64)


@compiled
def little_endian(content: npt.NDArray[np.uint8], begin: int, size: int) -> np.uint64:
    """Up to eight bytes as one number, the least first."""
    number = np.uint64(0)
    for place in range(size - 1, -1, -1):
        number = (number << _BYTE) | np.uint64(content[begin + place])
    return number


@compiled
def rotated_left(value: np.uint64, bits: np.uint64) -> np.uint64:
    """A number with its highest bits, 1 to 63 of them, moved to its other end."""
    return (value << bits) | (value >> (_ALL - bits))
