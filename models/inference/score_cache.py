"""A cache of the probabilities of messages, bounded in size, and the detection of duplicate messages.

A message has two slots, which its hash determines. It takes the one that is free or, if neither is, overwrites one of
them. With half as many messages as slots, 7 in a hundred are lost (Azar et al. 1994, "Balanced allocations"). Messages
are identified by a 64-bit SipHash (Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF"). The probability
that one of ten million messages is mistaken for another is 1e-12. Nobody can construct such a message, because each
process has its own key.
"""

from __future__ import annotations

import secrets
import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.hashing.compiled import compiled
from models.hashing.siphash import siphashes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]

SLOTS = 2**20  # 16 bytes each
_KEY = secrets.token_bytes(16)
_ODD, _HALF = np.uint64(1), np.uint64(32)


class ScoreCache:
    """A cache of probabilities by message hash. Safe for use by several threads."""

    def __init__(self, slots: int = SLOTS) -> None:
        # Hash and probability are stored next to each other, so that a look-up at random fetches one cache line.
        self._hashes = np.zeros((slots, 2), np.uint64)
        self._probabilities = self._hashes.view(np.float64)
        self._probabilities[:, 1] = np.nan
        self._lock = threading.Lock()

    def get(self, hashes: HashArray) -> FloatArray:
        """Returns the probabilities of messages, float64 [messages]; NaN for a message that is not in the cache.

        Args:
            hashes: of the messages, as `hash_messages` returns them.
        """
        probabilities = np.empty(len(hashes))
        with self._lock:
            _get(self._hashes, self._probabilities, hashes, probabilities)
        return probabilities

    def put(self, hashes: HashArray, probabilities: FloatArray) -> None:
        """Stores the probabilities of messages that are not in the cache. Messages that share a slot may be lost.

        Args:
            hashes: of the messages, each once.
            probabilities: float64 [messages].
        """
        with self._lock:
            _put(self._hashes, self._probabilities, hashes, probabilities)


@compiled
def _get(cached_hashes: HashArray, cached: FloatArray, hashes: HashArray, probabilities: FloatArray) -> None:
    for message in range(len(hashes)):
        first, second = _slots(hashes[message], len(cached))
        probabilities[message] = np.nan
        for slot in (first, second):
            if cached_hashes[slot, 0] == hashes[message]:
                probabilities[message] = cached[slot, 1]


@compiled
def _put(cached_hashes: HashArray, cached: FloatArray, hashes: HashArray, probabilities: FloatArray) -> None:
    for message in range(len(hashes)):
        first, second = _slots(hashes[message], len(cached))
        first_used, second_free = not np.isnan(cached[first, 1]), np.isnan(cached[second, 1])
        slot = second if first_used and (second_free or hashes[message] & _ODD) else first
        cached_hashes[slot, 0], cached[slot, 1] = hashes[message], probabilities[message]


@compiled
def _slots(hashed: np.uint64, slots: int) -> tuple[int, int]:
    return int((hashed >> _HALF) % np.uint64(slots)), int(hashed % np.uint64(slots))


def hash_messages(content: npt.NDArray[np.uint8], starts: IntArray) -> HashArray:
    """Computes the hashes of messages, uint64 [messages]. They differ from process to process.

    Args:
        content: concatenated bytes of the messages.
        starts: offset of each message followed by the end of the last one, int64 [messages + 1].
    """
    return siphashes(content, starts, _KEY)


class Duplicates(NamedTuple):
    """The distinct messages among messages with duplicates.

    Attributes:
        firsts: index of the first occurrence of each distinct message, in the order of occurrence, int64 [distinct].
        inverse: index in `firsts` for each message, int64 [messages].
    """

    firsts: IntArray
    inverse: IntArray


def find_duplicates(hashes: HashArray) -> Duplicates:
    """Finds messages that occur more than once, by their hashes."""
    in_order = np.sort(hashes) if len(hashes) > 1 else hashes
    if not (in_order[1:] == in_order[:-1]).any():
        return Duplicates(np.arange(len(hashes)), np.arange(len(hashes)))
    _, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    # Hashes differ from process to process, and the order in which messages are scored must not.
    order = np.argsort(firsts)
    return Duplicates(firsts[order], np.argsort(order)[inverse])
