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
import pyarrow as pa

from models.hashing.arrow_strings import to_buffers
from models.hashing.siphash import siphashes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]

SLOTS = 2**20  # 16 bytes each
_KEY = secrets.token_bytes(16)


class ScoreCache:
    """A cache of probabilities by message hash. Safe for use by several threads."""

    def __init__(self, slots: int = SLOTS) -> None:
        # Hash and probability are stored next to each other, so that a look-up at random fetches one cache line.
        self._entries = np.zeros(slots, [("hash", np.uint64), ("probability", np.float64)])
        self._entries["probability"] = np.nan
        self._lock = threading.Lock()

    def get(self, hashes: HashArray) -> FloatArray:
        """Returns the probabilities of messages, float64 [messages]; NaN for a message that is not in the cache.

        Args:
            hashes: of the messages, as `hash_messages` returns them.
        """
        with self._lock:
            first, second = (self._entries[slots] for slots in self._slots(hashes))
        probabilities = np.where(first["hash"] == hashes, first["probability"], np.nan)
        return np.where(second["hash"] == hashes, second["probability"], probabilities)

    def put(self, hashes: HashArray, probabilities: FloatArray) -> None:
        """Stores the probabilities of messages that are not in the cache. Messages that share a slot may be lost.

        Args:
            hashes: of the messages, each once.
            probabilities: float64 [messages].
        """
        entries = np.empty(len(hashes), self._entries.dtype)
        entries["hash"], entries["probability"] = hashes, probabilities
        first, second = self._slots(hashes)
        with self._lock:
            first_used, second_free = (
                ~np.isnan(self._entries["probability"][first]), np.isnan(self._entries["probability"][second]),
            )  # fmt: skip
            use_second = first_used & (second_free | (hashes % np.uint64(2) == 1))
            self._entries[np.where(use_second, second, first)] = entries

    def _slots(self, hashes: HashArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        first, second = (halves % np.uint64(len(self._entries)) for halves in (hashes >> np.uint64(32), hashes))
        return first.astype(np.int64), second.astype(np.int64)


def hash_messages(texts: pa.Array) -> HashArray:
    """Computes the hashes of messages, uint64 [messages]. They differ from process to process.

    Args:
        texts: Arrow strings, [messages].
    """
    return siphashes(*to_buffers(texts), _KEY)


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
    in_order = np.sort(hashes)
    if not (in_order[1:] == in_order[:-1]).any():
        return Duplicates(np.arange(len(hashes)), np.arange(len(hashes)))
    _, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    # Hashes differ from process to process, and the order in which messages are scored must not.
    order = np.argsort(firsts)
    return Duplicates(firsts[order], np.argsort(order)[inverse])
