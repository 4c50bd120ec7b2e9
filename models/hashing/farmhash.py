"""FarmHash's `Fingerprint64` of short strings, the hash with which TensorFlow puts strings into buckets.

Follows farmhash.cc (Google 2014), `farmhashna::Hash64` for up to sixteen bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.hashing.bits import read_little_endian, rotate_left
from models.hashing.compiled import compiled

HashArray = npt.NDArray[np.uint64]

MAX_BYTES = 16
_K0, _K2 = np.uint64(0xC3A5C85C97CB3127), np.uint64(0x9AE16A3B2F90404F)
_2, _3, _8, _47 = np.uint64(2), np.uint64(3), np.uint64(8), np.uint64(47)
# FarmHash rotates to the right.
_64_37, _64_25 = np.uint64(64 - 37), np.uint64(64 - 25)


def fingerprints(strings: Sequence[bytes]) -> HashArray:
    """Computes the fingerprints of strings, uint64 [strings].

    Args:
        strings: 1 to 16 bytes each.

    Raises:
        ValueError: a string is empty or longer than 16 bytes.
    """
    for string in strings:
        if not 1 <= len(string) <= MAX_BYTES:
            raise ValueError(f"strings: expected 1 to {MAX_BYTES} bytes each, received {len(string)}")
    return np.array([fingerprint(np.frombuffer(string, np.uint8), 0, len(string)) for string in strings], np.uint64)


@compiled
def fingerprint(content: npt.NDArray[np.uint8], start: int, size: int) -> np.uint64:
    """Computes the fingerprint of `size` bytes of `content`, from `start` on.

    Requires a size of 1 to 16, inside `content`; neither is checked.
    """
    if size < 4:
        first = np.uint64(content[start]) + (np.uint64(content[start + (size >> 1)]) << _8)
        last = np.uint64(size) + (np.uint64(content[start + size - 1]) << _2)
        mixed = (first * _K2) ^ (last * _K0)
        return (mixed ^ (mixed >> _47)) * _K2
    factor = _K2 + np.uint64(2 * size)
    if size < 8:
        first = (read_little_endian(content, start, 4) << _3) + np.uint64(size)
        return _mix(first, read_little_endian(content, start + size - 4, 4), factor)
    first, last = read_little_endian(content, start, 8) + _K2, read_little_endian(content, start + size - 8, 8)
    return _mix(rotate_left(last, _64_37) * factor + first, (rotate_left(first, _64_25) + last) * factor, factor)


@compiled
def _mix(low: np.uint64, high: np.uint64, factor: np.uint64) -> np.uint64:
    low = (low ^ high) * factor
    high = (high ^ low ^ (low >> _47)) * factor
    return (high ^ (high >> _47)) * factor
