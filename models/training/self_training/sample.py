"""Samples distinct texts of any number of messages in bounded memory.

The sample has the texts with the smallest hashes (bottom-k sampling; Cohen and Kaplan 2007, "Summarizing data using
bottom-k sketches"). It depends on the set of texts and the seed, not on the order or number of copies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.hashing.siphash import siphashes
from models.text.texts import Texts, as_buffers, take


class TextSample:
    """A sample of the texts that are added; each text is once in it, with the group of its first occurrence."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._key = size, seed.to_bytes(16, "little")
        self._hashes = np.zeros(0, np.uint64)
        self._groups = np.zeros(0, np.int64)
        self._texts: list[str] = []

    def add(self, texts: Texts, group: int) -> None:
        """Adds messages.

        Args:
            texts: the messages.
            group: a number of the messages, such as that of their night.
        """
        hashes = siphashes(*as_buffers(texts), self._key)
        rows = self._find_candidates(hashes)
        selected = take(texts, rows)
        new = selected.to_pylist() if isinstance(selected, pa.Array) else list(selected)
        hashes = np.concatenate([self._hashes, hashes[rows]])
        groups = np.concatenate([self._groups, np.full(len(rows), group)])
        _, first = np.unique(hashes, return_index=True)
        kept = first[: self._size]
        combined = [*self._texts, *new]
        self._hashes, self._groups = hashes[kept], groups[kept]
        self._texts = [combined[index] for index in kept]

    def _find_candidates(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Returns the first occurrences of the smallest hashes that may enter the sample."""
        distinct, first = np.unique(hashes, return_index=True)
        first = first[: self._size]
        if len(self._hashes) == self._size:
            first = first[distinct[: self._size] < self._hashes[-1]]
        return np.sort(first)

    @property
    def texts(self) -> list[str]:
        """The texts of the sample, in the order of their hashes, which is random."""
        return list(self._texts)

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """The group of each text, int64 [texts]."""
        return self._groups.copy()
