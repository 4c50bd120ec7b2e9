"""Messages that were scored before: their probabilities, found again by a hash, in bounded memory.

A direct-mapped cache: each message has one place, by its hash, and takes it from whatever was there. A SipHash of 64
bits tells messages apart (Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF"). That one of ten million is
taken for another has a chance of 1e-12, and nobody can make one that is, for each process has a key of its own.
"""

from __future__ import annotations

import secrets
import threading

import numpy as np
import numpy.typing as npt
from pandas.util import hash_array

FloatArray = npt.NDArray[np.float64]
HashArray = npt.NDArray[np.uint64]

PLACES = 2**20  # 16 bytes each
_KEY = secrets.token_hex(8)  # pandas wants sixteen characters


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
            found = self._kept[self._places(hashes)]
        return np.where(found["hash"] == hashes, found["probability"], np.nan)

    def keep(self, hashes: HashArray, probabilities: FloatArray) -> None:
        """Keeps the probabilities of messages. Of messages with one place one stays."""
        kept = np.empty(len(hashes), self._kept.dtype)
        kept["hash"], kept["probability"] = hashes, probabilities
        with self._lock:
            self._kept[self._places(hashes)] = kept

    def _places(self, hashes: HashArray) -> npt.NDArray[np.int64]:
        return (hashes % np.uint64(len(self._kept))).astype(np.int64)


def hashes_of(texts: npt.NDArray[np.object_]) -> HashArray:
    """A hash of each message, uint64 [messages]; another in each process."""
    hashes: HashArray = hash_array(texts, hash_key=_KEY, categorize=False)
    return hashes
