"""SipHash-2-4 of many strings (Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF").

Who does not know the key cannot make two strings with one hash.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from models.hashing.bits import little_endian, rotated_left
from models.hashing.compiled import compiled

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
State: TypeAlias = tuple[np.uint64, np.uint64, np.uint64, np.uint64]

_ROUNDS, _LAST_ROUNDS = 2, 4
_BEGIN = tuple(
    np.uint64(one) for one in (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
)
_END = np.uint64(0xFF)
_13, _16, _17, _21, _32 = (np.uint64(one) for one in (13, 16, 17, 21, 32))


def siphashes(content: ByteArray, starts: IntArray, key: bytes) -> HashArray:
    """Hashes of strings, uint64 [strings].

    Args:
        content: bytes of the strings, one behind another.
        starts: where each begins and the last ends, int64 [strings + 1].
        key: sixteen bytes.

    Raises:
        ValueError: the key has more or fewer.
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
        begin, end = starts[string], starts[string + 1]
        state = (first ^ _BEGIN[0], second ^ _BEGIN[1], first ^ _BEGIN[2], second ^ _BEGIN[3])
        rest = begin + (end - begin) // 8 * 8
        for at in range(begin, rest, 8):
            state = _taken(state, little_endian(content, at, 8))
        size = np.uint64(end - begin) << np.uint64(56)
        state = _taken(state, size | little_endian(content, rest, end - rest))
        state = _mixed((state[0], state[1], state[2] ^ _END, state[3]), _LAST_ROUNDS)
        hashes[string] = state[0] ^ state[1] ^ state[2] ^ state[3]


@compiled
def _taken(state: State, word: np.uint64) -> State:
    one, two, three, four = _mixed((state[0], state[1], state[2], state[3] ^ word), _ROUNDS)
    return one ^ word, two, three, four


@compiled
def _mixed(state: State, rounds: int) -> State:
    one, two, three, four = state
    for _ in range(rounds):
        one += two
        three += four
        two = rotated_left(two, _13) ^ one
        four = rotated_left(four, _16) ^ three
        one = rotated_left(one, _32)
        three += two
        one += four
        two = rotated_left(two, _17) ^ three
        four = rotated_left(four, _21) ^ one
        three = rotated_left(three, _32)
    return one, two, three, four
