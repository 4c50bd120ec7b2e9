"""SipHash-2-4 of many strings (Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF").

Without the key, nobody can construct two strings that have the same hash.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from models.hashing.bits import read_little_endian, rotate_left
from models.hashing.compiled import compiled

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
State: TypeAlias = tuple[np.uint64, np.uint64, np.uint64, np.uint64]

_ROUNDS, _FINAL_ROUNDS = 2, 4
_INIT = tuple(
    np.uint64(word) for word in (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
)
_FINAL_MARK = np.uint64(0xFF)
_13, _16, _17, _21, _32 = (np.uint64(bits) for bits in (13, 16, 17, 21, 32))


def siphashes(content: ByteArray, starts: IntArray, key: bytes) -> HashArray:
    """Computes the hashes of strings, uint64 [strings].

    Args:
        content: concatenated bytes of the strings.
        starts: offset of each string followed by the end of the last one, int64 [strings + 1].
        key: sixteen bytes.

    Raises:
        ValueError: the key does not have sixteen bytes.
    """
    if len(key) != 16:
        raise ValueError(f"key: expected 16 bytes, received {len(key)}")
    hashes = np.empty(len(starts) - 1, np.uint64)
    first, second = np.frombuffer(key, "<u8")
    _hash(content, starts, first, second, hashes)
    return hashes


@compiled
def _hash(content: ByteArray, starts: IntArray, first: np.uint64, second: np.uint64, hashes: HashArray) -> None:
    for string in range(len(starts) - 1):
        start, stop = starts[string], starts[string + 1]
        state = (first ^ _INIT[0], second ^ _INIT[1], first ^ _INIT[2], second ^ _INIT[3])
        tail = start + (stop - start) // 8 * 8
        for offset in range(start, tail, 8):
            state = _absorb(state, read_little_endian(content, offset, 8))
        size = np.uint64(stop - start) << np.uint64(56)
        state = _absorb(state, size | read_little_endian(content, tail, stop - tail))
        state = _mix((state[0], state[1], state[2] ^ _FINAL_MARK, state[3]), _FINAL_ROUNDS)
        hashes[string] = state[0] ^ state[1] ^ state[2] ^ state[3]


@compiled
def _absorb(state: State, word: np.uint64) -> State:
    v0, v1, v2, v3 = _mix((state[0], state[1], state[2], state[3] ^ word), _ROUNDS)
    return v0 ^ word, v1, v2, v3


@compiled
def _mix(state: State, rounds: int) -> State:
    v0, v1, v2, v3 = state
    for _ in range(rounds):
        v0 += v1
        v2 += v3
        v1 = rotate_left(v1, _13) ^ v0
        v3 = rotate_left(v3, _16) ^ v2
        v0 = rotate_left(v0, _32)
        v2 += v1
        v0 += v3
        v1 = rotate_left(v1, _17) ^ v2
        v3 = rotate_left(v3, _21) ^ v0
        v2 = rotate_left(v2, _32)
    return v0, v1, v2, v3
