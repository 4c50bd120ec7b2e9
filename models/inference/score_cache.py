"""Messages that were scored before: their probabilities, found again by a hash, in bounded memory.

Each message has two places, by its hash. It takes a free one or, where neither is, one from whatever was there: with
half as many messages as places, 7 in a hundred are lost (Azar et al. 1994, "Balanced allocations"). A SipHash of 64
bits tells messages apart (Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF"). That one of ten million is
taken for another has a chance of 1e-12, and nobody can make one that is, for each process has a key of its own.
"""

from __future__ import annotations

import secrets
import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.hashing.arrow_strings import bytes_of
from models.hashing.siphash import siphashes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]

PLACES = 2**20  # 16 bytes each
_KEY = secrets.token_bytes(16)


class KnownScores:
    """Probabilities by message. Several threads may use it."""

    def __init__(self, places: int = PLACES) -> None:
        # Hash and probability stand side by side: a look-up of a place at random costs what fetching one line costs.
        self._kept = np.zeros(places, [("hash", np.uint64), ("probability", np.float64)])
        self._kept["probability"] = np.nan
        self._lock = threading.Lock()

    def find(self, hashes: HashArray) -> FloatArray:
        """Probabilities of messages, float64 [messages]; NaN where a message is not known.

        Args:
            hashes: of the messages, as `hashes_of` gives them.
        """
        with self._lock:
            first, second = (self._kept[places] for places in self._places(hashes))
        found = np.where(first["hash"] == hashes, first["probability"], np.nan)
        return np.where(second["hash"] == hashes, second["probability"], found)

    def keep(self, hashes: HashArray, probabilities: FloatArray) -> None:
        """Keeps the probabilities of messages that are not known. Of messages that share places some may be lost.

        Args:
            hashes: of the messages, each once.
            probabilities: float64 [messages].
        """
        kept = np.empty(len(hashes), self._kept.dtype)
        kept["hash"], kept["probability"] = hashes, probabilities
        first, second = self._places(hashes)
        with self._lock:
            taken, free = (~np.isnan(self._kept["probability"][first]), np.isnan(self._kept["probability"][second]))
            other = taken & (free | (hashes % np.uint64(2) == 1))
            self._kept[np.where(other, second, first)] = kept

    def _places(self, hashes: HashArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        first, second = (halves % np.uint64(len(self._kept)) for halves in (hashes >> np.uint64(32), hashes))
        return first.astype(np.int64), second.astype(np.int64)


def hashes_of(texts: pa.Array) -> HashArray:
    """A hash of each message, Arrow strings, uint64 [messages]; another in each process."""
    return siphashes(*bytes_of(texts), _KEY)


class Repeats(NamedTuple):
    """Messages of which some may be there more than once.

    Attributes:
        firsts: the place where each distinct one is first, in this order, int64 [distinct].
        places: which of these each message is, int64 [messages].
    """

    firsts: IntArray
    places: IntArray


def repeats_of(hashes: HashArray) -> Repeats:
    """Which messages are there more than once, by their hashes."""
    in_order = np.sort(hashes)
    if not (in_order[1:] == in_order[:-1]).any():
        return Repeats(np.arange(len(hashes)), np.arange(len(hashes)))
    _, firsts, places = np.unique(hashes, return_index=True, return_inverse=True)
    # Hashes are others in each process, and the order that messages are scored in must not be.
    order = np.argsort(firsts)
    return Repeats(firsts[order], np.argsort(order)[places])
