"""An array that grows at its end.

Views that were handed out stay valid: values in the array are never moved or overwritten, so other threads may go on
reading them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MIN_CAPACITY = 1024


class GrowingArray:
    """Rows of one shape and dtype, in a buffer that grows by half when it is full."""

    def __init__(self, dtype: npt.DTypeLike, shape: tuple[int, ...] = (), capacity: int = MIN_CAPACITY) -> None:
        """Starts without rows.

        Args:
            dtype: of the values.
            shape: of a row.
            capacity: rows before the buffer grows for the first time. Rows that are not used take no memory where the
                operating system provides it page by page.
        """
        self._buffer: npt.NDArray[Any] = np.empty((capacity, *shape), dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, values: npt.NDArray[Any]) -> None:
        """Adds rows at the end."""
        stop = self._length + len(values)
        if stop > len(self._buffer):
            buffer = np.empty((max(len(self._buffer) * 3 // 2, stop), *self._buffer.shape[1:]), self._buffer.dtype)
            buffer[: self._length] = self.values
            self._buffer = buffer
        self._buffer[self._length : stop] = values
        self._length = stop

    @property
    def values(self) -> npt.NDArray[Any]:
        """The current rows, as a view of the buffer."""
        return self._buffer[: self._length]
