"""FarmHash's `Fingerprint64` of many short strings at once, which is what TensorFlow puts strings into buckets with.

After farmhash.cc (Google 2014), `farmhashna::Hash64` for up to sixteen bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HashArray = npt.NDArray[np.uint64]

MOST_BYTES = 16
_K0, _K2 = np.uint64(0xC3A5C85C97CB3127), np.uint64(0x9AE16A3B2F90404F)


def fingerprints(strings: npt.NDArray[np.uint8]) -> HashArray:
    """Fingerprints of strings of one size, uint64 [strings].

    Args:
        strings: their bytes, uint8 [strings, bytes], 1 to 16 of each.

    Raises:
        ValueError: they have more bytes, or none.
    """
    size = strings.shape[1]
    if not 1 <= size <= MOST_BYTES:
        raise ValueError(f"strings: expected 1 to {MOST_BYTES} bytes each, received {size}")
    if size < 4:
        return _of_three(strings)
    factor = _K2 + np.uint64(2 * size)
    if size < 8:
        first = (_number(strings[:, :4]) << np.uint64(3)) + np.uint64(size)
        return _mixed(first, _number(strings[:, -4:]), factor)
    first, last = _number(strings[:, :8]) + _K2, _number(strings[:, -8:])
    return _mixed(_rotated(last, 37) * factor + first, (_rotated(first, 25) + last) * factor, factor)


def _of_three(strings: npt.NDArray[np.uint8]) -> HashArray:
    size = strings.shape[1]
    first, middle, last = (strings[:, at].astype(np.uint64) for at in (0, size >> 1, size - 1))
    middle <<= np.uint64(8)
    first += middle
    first *= _K2
    last <<= np.uint64(2)
    last += np.uint64(size)
    last *= _K0
    first ^= last
    first ^= first >> np.uint64(47)
    first *= _K2
    return first


def _number(strings: npt.NDArray[np.uint8]) -> HashArray:
    """Bytes as one number, the least first."""
    number = strings[:, -1].astype(np.uint64)
    for at in range(strings.shape[1] - 2, -1, -1):
        number <<= np.uint64(8)
        number |= strings[:, at]
    return number


def _mixed(one: HashArray, other: HashArray, factor: np.uint64) -> HashArray:
    """Takes the room of the first."""
    one ^= other
    one *= factor
    one ^= one >> np.uint64(47)
    one ^= other
    one *= factor
    one ^= one >> np.uint64(47)
    one *= factor
    return one


def _rotated(values: HashArray, bits: int) -> HashArray:
    return (values >> np.uint64(bits)) | (values << np.uint64(64 - bits))
