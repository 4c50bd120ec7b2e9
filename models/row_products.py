"""Matrix products whose rows come out the same to the last bit wherever they stand.

NumPy's products are OpenBLAS's, whose kernels take rows and columns by blocks, and may sum in another order from one
kind of block to another. That for AVX2 takes rows by twelves; it sums the first and the last eight columns of the
first six of them in two halves, and so all columns of four rows that are left over. That for AVX-512 takes columns
that are left over from sixteens in another way where there are many rows.

Which of them is there is not asked: equal rows are multiplied, and where their products differ the kernels get columns
of nought on both sides, which nobody reads, and rows are filled up to twelves. This holds of products that are computed
by one thread each, which `models.packed` sees to; several share out rows and columns by how many there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_MARGIN = 8  # columns
_FILLED_UP_TO = 16  # columns, so that none are left over
_TOGETHER = 256  # columns; OpenBLAS cuts a kernel itself if it has more than some three hundred
_ROWS, _ROWS_WITH_MARGINS = 16, 24


class _Piece(NamedTuple):
    """Columns of one or several kernels that are multiplied together.

    Attributes:
        values: float32 [directions, size, columns].
        places: where columns of each kernel are, in the order of the kernels.
    """

    values: FloatArray
    places: dict[int, slice]


class RowProducts:
    """Products of rows with several kernels.

    Attributes:
        alike: whether equal rows have equal products; no kernel of OpenBLAS is known where they have not.
    """

    def __init__(self, kernels: Sequence[FloatArray]) -> None:
        """Finds out how the kernels are best laid out, which takes a product of a thousand rows, or two.

        Args:
            kernels: float32 [directions, size, columns], all of one size.
        """
        self.alike = False
        for self._rows, self._pieces in ((_ROWS, _apart(kernels)), (_ROWS_WITH_MARGINS, _with_margins(kernels))):
            self.alike = all(_alike(one, self._rows) for piece in self._pieces for one in piece.values)
            if self.alike:
                break

    def filled_up(self, rows: int) -> int:
        """The number of rows that so many are to be filled up to."""
        return -(-rows // self._rows) * self._rows

    def room(self, rows: int) -> Products:
        """Room for products of so many rows, filled up, or fewer."""
        return Products(self._pieces, rows)


class Products:
    """Products of rows with kernels, in room that is used again."""

    def __init__(self, pieces: Sequence[_Piece], rows: int) -> None:
        self._values = [piece.values for piece in pieces]
        self._room = [np.empty((len(one), rows, one.shape[-1]), np.float32) for one in self._values]
        kernels = max(max(piece.places) for piece in pieces) + 1
        self._places = [
            [(number, piece.places[kernel]) for number, piece in enumerate(pieces) if kernel in piece.places]
            for kernel in range(kernels)
        ]

    def of(self, rows: FloatArray) -> list[FloatArray]:
        """The product with each kernel, float32 [directions, rows, columns]; to be used before the next are asked for.

        Args:
            rows: float32 [directions, rows, size], or [rows, size] for all directions.
        """
        count = rows.shape[-2]
        products = [
            np.matmul(rows, values, out=room[:, :count]) for values, room in zip(self._values, self._room, strict=True)
        ]
        return [_together([products[piece][:, :, place] for piece, place in places]) for places in self._places]


def _together(columns: list[FloatArray]) -> FloatArray:
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=-1)


def _apart(kernels: Sequence[FloatArray]) -> list[_Piece]:
    return [_Piece(np.ascontiguousarray(kernel), {number: slice(None)}) for number, kernel in enumerate(kernels)]


def _with_margins(kernels: Sequence[FloatArray]) -> list[_Piece]:
    joined = np.concatenate(kernels, axis=-1)
    bounds = np.cumsum([0, *(kernel.shape[-1] for kernel in kernels)]).tolist()
    pieces = []
    for first in range(0, bounds[-1], _TOGETHER):
        columns = joined[:, :, first : first + _TOGETHER]
        margins = (_MARGIN, -columns.shape[-1] % _FILLED_UP_TO + _MARGIN)
        within = np.clip(np.array(bounds) - first, 0, columns.shape[-1]) + _MARGIN
        places = {
            number: slice(int(begin), int(end))
            for number, (begin, end) in enumerate(itertools.pairwise(within))
            if begin < end
        }
        pieces.append(_Piece(np.pad(columns, [(0, 0), (0, 0), margins]), places))
    return pieces


def _alike(kernel: FloatArray, rows: int) -> bool:
    """Whether equal rows have equal products with a kernel, [size, columns], of whose columns some may be nought."""
    read = kernel.any(axis=0)
    row = np.random.default_rng(0).standard_normal(len(kernel)).astype(np.float32)
    counts = [rows, 2 * rows, 3 * rows, 8 * rows, 32 * rows]
    products = np.concatenate([np.tile(row, (count, 1)) @ kernel for count in counts])[:, read]
    return bool((products == products[0]).all())
