"""FarmHash's `Fingerprint64` of short strings, which is what TensorFlow puts strings into buckets with.

After farmhash.cc (Google 2014), `farmhashna::Hash64` for up to sixteen bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.hashing.bits import little_endian, rotated_left
from models.hashing.compiled import compiled

HashArray = npt.NDArray[np.uint64]

MOST_BYTES = 16
_K0, _K2 = np.uint64(0xC3A5C85C97CB3127), np.uint64(0x9AE16A3B2F90404F)
_2, _3, _8, _47 = np.uint64(2), np.uint64(3), np.uint64(8), np.uint64(47)
# Farmhash rotates to the right.
_64_37, _64_25 = np.uint64(64 - 37), np.uint64(64 - 25)


def fingerprints(strings: Sequence[bytes]) -> HashArray:
    """Fingerprints of strings, uint64 [strings].

    Args:
        strings: 1 to 16 bytes each.

    Raises:
        ValueError: one has more bytes, or none.
    """
    for one in strings:
        if not 1 <= len(one) <= MOST_BYTES:
            raise ValueError(f"strings: expected 1 to {MOST_BYTES} bytes each, received {len(one)}")
    return np.array([fingerprint(np.frombuffer(one, np.uint8), 0, len(one)) for one in strings], np.uint64)


@compiled
def fingerprint(content: npt.NDArray[np.uint8], begin: int, size: int) -> np.uint64:
    """The fingerprint of a string of 1 to 16 bytes of some content; nothing looks whether it is that."""
    if size < 4:
        first = np.uint64(content[begin]) + (np.uint64(content[begin + (size >> 1)]) << _8)
        last = np.uint64(size) + (np.uint64(content[begin + size - 1]) << _2)
        mixed = (first * _K2) ^ (last * _K0)
        return (mixed ^ (mixed >> _47)) * _K2
    factor = _K2 + np.uint64(2 * size)
    if size < 8:
        first = (little_endian(content, begin, 4) << _3) + np.uint64(size)
        return _mixed(first, little_endian(content, begin + size - 4, 4), factor)
    first, last = little_endian(content, begin, 8) + _K2, little_endian(content, begin + size - 8, 8)
    return _mixed(rotated_left(last, _64_37) * factor + first, (rotated_left(first, _64_25) + last) * factor, factor)


@compiled
def _mixed(one: np.uint64, other: np.uint64, factor: np.uint64) -> np.uint64:
    one = (one ^ other) * factor
    other = (other ^ one ^ (one >> _47)) * factor
    return (other ^ (other >> _47)) * factor
