"""An array that grows at its end. What was handed out before stays valid: values that are there are never moved or
written over, so that other threads may go on reading them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class GrowingArray:
    """Rows of one shape and kind, in room that grows by half when it is full."""

    def __init__(self, kind: npt.DTypeLike, shape: tuple[int, ...] = ()) -> None:
        self._room: npt.NDArray[Any] = np.empty((1024, *shape), kind)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, values: npt.NDArray[Any]) -> None:
        """Adds rows behind those that are there."""
        end = self._length + len(values)
        if end > len(self._room):
            room = np.empty((max(len(self._room) * 3 // 2, end), *self._room.shape[1:]), self._room.dtype)
            room[: self._length] = self.values
            self._room = room
        self._room[self._length : end] = values
        self._length = end

    @property
    def values(self) -> npt.NDArray[Any]:
        """What is there now."""
        return self._room[: self._length]
