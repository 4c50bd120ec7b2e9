"""Messages that were scored before: their probabilities, found again by a hash, in bounded memory.

A direct-mapped cache: each message has one place, by its hash, and takes it from whatever was there. Two SipHashes of
64 bits tell messages apart; that two of ten million share both has a chance of 1e-25.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
from pandas.util import hash_array

FloatArray = npt.NDArray[np.float64]
HashArray = npt.NDArray[np.uint64]

PLACES = 2**20  # 24 bytes each
_KEYS = ("spamscore text 1", "spamscore text 2")  # pandas wants sixteen characters


class KnownScores:
    """Probabilities by message. Several threads may use it."""

    def __init__(self, places: int = PLACES) -> None:
        self._hashes = np.zeros((places, len(_KEYS)), np.uint64)
        self._probabilities = np.full(places, np.nan)
        self._lock = threading.Lock()

    def find(self, hashes: HashArray) -> FloatArray:
        """Probabilities of messages, float64 [messages]; NaN where a message is not known.

        Args:
            hashes: of the messages, as `hashes_of` gives them.
        """
        places = self._places(hashes)
        with self._lock:
            there = (self._hashes[places] == hashes).all(axis=1)
            return np.where(there, self._probabilities[places], np.nan)

    def keep(self, hashes: HashArray, probabilities: FloatArray) -> None:
        """Keeps the probabilities of messages. Of messages with one place the last stays."""
        places = self._places(hashes)
        # The last of each place alone, or hash and probability might be of two messages.
        last = len(places) - 1 - np.unique(places[::-1], return_index=True)[1]
        with self._lock:
            self._hashes[places[last]] = hashes[last]
            self._probabilities[places[last]] = probabilities[last]

    def _places(self, hashes: HashArray) -> npt.NDArray[np.int64]:
        return (hashes[:, 0] % np.uint64(len(self._hashes))).astype(np.int64)


def hashes_of(texts: npt.NDArray[np.object_]) -> HashArray:
    """Two hashes of each message, uint64 [messages, 2]."""
    return np.stack([hash_array(texts, hash_key=key, categorize=False) for key in _KEYS], axis=1)
