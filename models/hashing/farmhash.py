"""FarmHash's `Fingerprint64`, the hash with which TensorFlow puts strings into buckets.

Follows farmhash.cc (Google 2014), `farmhashna::Hash64`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from models.hashing.bits import read_little_endian, rotate_left
from models.hashing.compiled import compiled

ByteArray = npt.NDArray[np.uint8]
HashArray = npt.NDArray[np.uint64]
_Pair: TypeAlias = tuple[np.uint64, np.uint64]

_K0, _K1, _K2 = np.uint64(0xC3A5C85C97CB3127), np.uint64(0xB492B66FBE98F273), np.uint64(0x9AE16A3B2F90404F)
_SEED, _113, _0XFF = np.uint64(81), np.uint64(113), np.uint64(0xFF)
_1, _2, _3, _8, _9, _47 = (np.uint64(number) for number in (1, 2, 3, 8, 9, 47))
# FarmHash rotates to the right.
_64_18, _64_21, _64_25, _64_30, _64_33, _64_37, _64_42, _64_43, _64_44 = (
    np.uint64(64 - bits) for bits in (18, 21, 25, 30, 33, 37, 42, 43, 44)
)  # fmt: skip


def fingerprints(strings: Sequence[bytes]) -> HashArray:
    """Computes the fingerprints of strings, uint64 [strings].

    Raises:
        ValueError: a string is empty.
    """
    if not all(strings):
        raise ValueError("strings: expected at least 1 byte each, received 0")
    return np.array([fingerprint(np.frombuffer(string, np.uint8), 0, len(string)) for string in strings], np.uint64)


@compiled
def fingerprint(content: ByteArray, start: int, size: int) -> np.uint64:
    """Computes the fingerprint of `size` bytes of `content`, from `start` on.

    Requires a size of at least 1, inside `content`; neither is checked.
    """
    if size > 64:
        return _fingerprint_long(content, start, size)
    if size > 16:
        return _fingerprint_medium(content, start, size)
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


@compiled
def _fingerprint_medium(content: ByteArray, start: int, size: int) -> np.uint64:
    """Computes the fingerprint of 17 to 64 bytes."""
    factor, end = _K2 + np.uint64(2 * size), start + size
    a = _read(content, start) * (_K1 if size <= 32 else _K2)
    b, c, d = _read(content, start + 8), _read(content, end - 8) * factor, _read(content, end - 16) * _K2
    low = rotate_left(a + b, _64_43) + rotate_left(c, _64_30) + d
    high = a + rotate_left(b + _K2, _64_18) + c
    if size <= 32:
        return _mix(low, high, factor)
    mixed = _mix(low, high, factor)
    e, f = _read(content, start + 16) * factor, _read(content, start + 24)
    g, h = (low + _read(content, end - 32)) * factor, (mixed + _read(content, end - 24)) * factor
    return _mix(rotate_left(e + f, _64_43) + rotate_left(g, _64_30) + h, e + rotate_left(f + a, _64_18) + g, factor)


@compiled
def _fingerprint_long(content: ByteArray, start: int, size: int) -> np.uint64:
    """Computes the fingerprint of more than 64 bytes, in blocks of 64; the last block is that at the end."""
    y = _SEED * _K1 + _113
    z = _shift_mix(y * _K2 + _113) * _K2
    v, w = (np.uint64(0), np.uint64(0)), (np.uint64(0), np.uint64(0))
    x = _SEED * _K2 + _read(content, start)
    last = start + size - 64
    for block in range(start, start + (size - 1) // 64 * 64, 64):
        x = rotate_left(x + y + v[0] + _read(content, block + 8), _64_37) * _K1
        y = rotate_left(y + v[1] + _read(content, block + 48), _64_42) * _K1
        x ^= w[1]
        y += v[0] + _read(content, block + 40)
        z = rotate_left(z + w[0], _64_33) * _K1
        v = _mix_block(content, block, v[1] * _K1, x + w[0])
        w = _mix_block(content, block + 32, z + w[1], y + _read(content, block + 16))
        z, x = x, z
    factor = _K1 + ((z & _0XFF) << _1)
    first = w[0] + np.uint64((size - 1) % 64)
    v = (v[0] + first, v[1])
    w = (first + v[0], w[1])
    x = rotate_left(x + y + v[0] + _read(content, last + 8), _64_37) * factor
    y = rotate_left(y + v[1] + _read(content, last + 48), _64_42) * factor
    x ^= w[1] * _9
    y += v[0] * _9 + _read(content, last + 40)
    z = rotate_left(z + w[0], _64_33) * factor
    v = _mix_block(content, last, v[1] * factor, x + w[0])
    w = _mix_block(content, last + 32, z + w[1], y + _read(content, last + 16))
    return _mix(_mix(v[0], w[0], factor) + _shift_mix(y) * _K0 + x, _mix(v[1], w[1], factor) + z, factor)


@compiled
def _mix_block(content: ByteArray, start: int, first: np.uint64, second: np.uint64) -> _Pair:
    """Mixes 32 bytes into two seeds."""
    a, b = _read(content, start), _read(content, start + 8)
    c, d = _read(content, start + 16), _read(content, start + 24)
    first += a
    second = rotate_left(second + first + d, _64_21)
    total = first + b + c
    return total + d, second + rotate_left(total, _64_44) + first


@compiled
def _shift_mix(value: np.uint64) -> np.uint64:
    return value ^ (value >> _47)


@compiled
def _read(content: ByteArray, start: int) -> np.uint64:
    return read_little_endian(content, start, 8)
