"""Matrix products whose rows come out the same to the last bit wherever they stand.

NumPy's products are OpenBLAS's, whose kernels take rows and columns by blocks, and may sum in another order from one
kind of block to another. That for AVX2 takes rows by twelves; it sums the first and the last eight columns of the
first six of them in two halves, and so all columns of four rows that are left over. That for AVX-512 takes columns
that are left over from sixteens in another way where there are many rows.

Which of them is there is not asked: equal rows are multiplied, and where their products differ the kernels get columns
of nought on both sides, which nobody reads, and rows are filled up to twelves. This holds of products that are computed
by one thread each, which `models.inference.packed_network` sees to; several share out rows and columns by how many
there are.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

log = logging.getLogger("spamscore")

FloatArray = npt.NDArray[np.float32]

_MARGIN = 8  # columns
_FILLED_UP_TO = 16  # columns, so that none are left over
_TOGETHER = 256  # columns; OpenBLAS cuts a kernel itself if it has more than some three hundred
_ROWS, _ROWS_WITH_MARGINS = 16, 24


class _Layout(NamedTuple):
    """How rows are multiplied with several kernels.

    Attributes:
        rows: what the number of rows is filled up to a multiple of.
        values: columns that are multiplied together, float32 [directions, size, columns] each.
        places: for each kernel which values have its columns, and where, in order.
    """

    rows: int
    values: list[FloatArray]
    places: list[list[tuple[int, slice]]]


class RowProducts:
    """Products of rows with several kernels.

    Attributes:
        alike: whether equal rows have equal products, as they have with all kernels of OpenBLAS that were tried.
    """

    def __init__(self, kernels: Sequence[FloatArray]) -> None:
        """Finds out how the kernels are best laid out, which takes a product of a thousand rows, or two.

        Args:
            kernels: float32 [directions, size, columns], all of one size.
        """
        layouts = [_apart(kernels), _with_margins(kernels)]
        found = next(filter(_treats_rows_alike, layouts), None)
        self.alike = found is not None
        if not self.alike:
            log.info(
                "matrix products hang on where a row stands: a score's last digit may, on what is scored beside it"
            )
        self._layout = found or layouts[0]

    def filled_up(self, rows: int) -> int:
        """The number of rows that so many are to be filled up to."""
        return -(-rows // self._layout.rows) * self._layout.rows

    def room(self, rows: int) -> Products:
        """Room for products of so many rows, filled up, or fewer."""
        return Products(self._layout, rows)


class Products:
    """Products of rows with kernels, in room that is used again."""

    def __init__(self, layout: _Layout, rows: int) -> None:
        self._layout = layout
        self._room = [np.empty((len(one), rows, one.shape[-1]), np.float32) for one in layout.values]

    def of(self, rows: FloatArray) -> list[FloatArray]:
        """The product with each kernel, float32 [directions, rows, columns]; to be used before the next are asked for.

        Args:
            rows: float32 [directions, rows, size], or [rows, size] for all directions.
        """
        count = rows.shape[-2]
        products = [
            np.matmul(rows, values, out=room[:, :count])
            for values, room in zip(self._layout.values, self._room, strict=True)
        ]
        return [_together([products[number][:, :, here] for number, here in one]) for one in self._layout.places]


def _together(columns: list[FloatArray]) -> FloatArray:
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=-1)


def _apart(kernels: Sequence[FloatArray]) -> _Layout:
    values = [np.ascontiguousarray(kernel) for kernel in kernels]
    return _Layout(_ROWS, values, [[(number, slice(None))] for number in range(len(kernels))])


def _with_margins(kernels: Sequence[FloatArray]) -> _Layout:
    joined = np.concatenate(kernels, axis=-1)
    bounds = np.cumsum([0, *(kernel.shape[-1] for kernel in kernels)])
    layout = _Layout(_ROWS_WITH_MARGINS, [], [[] for _ in kernels])
    for number, first in enumerate(range(0, joined.shape[-1], _TOGETHER)):
        columns = joined[:, :, first : first + _TOGETHER]
        margins = (_MARGIN, -columns.shape[-1] % _FILLED_UP_TO + _MARGIN)
        layout.values.append(np.pad(columns, [(0, 0), (0, 0), margins]))
        within = np.clip(bounds - first, 0, columns.shape[-1]) + _MARGIN
        for places, (begin, end) in zip(layout.places, itertools.pairwise(within.tolist()), strict=True):
            if begin < end:
                places.append((number, slice(begin, end)))
    return layout


def _treats_rows_alike(layout: _Layout) -> bool:
    """Whether equal rows have equal products, however many of them there are."""
    counts = [many * layout.rows for many in (1, 2, 3, 8, 32)]
    for kernel in itertools.chain.from_iterable(layout.values):
        row = np.random.default_rng(0).standard_normal(len(kernel)).astype(np.float32)
        read = kernel.any(axis=0)  # not the margins
        products = np.concatenate([np.tile(row, (count, 1)) @ kernel for count in counts])[:, read]
        if (products != products[0]).any():
            return False
    return True
