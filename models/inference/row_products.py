"""Matrix products in which a row has the same bits at any position.

NumPy computes products with OpenBLAS. Its kernels process rows and columns in blocks, and different kinds of block may
sum in different orders. The AVX2 kernel takes rows in blocks of twelve. It sums the first and the last eight columns of
the first six rows of a block in two halves, and likewise all columns when four rows remain. The AVX-512 kernel treats
the columns that remain after blocks of sixteen differently when there are many rows.

The module does not detect the kernel. It multiplies equal rows, and if their products differ it pads the matrices:
columns of zeros on both sides, which are not read, and rows up to a multiple of twelve. This works for products that
are computed by one thread each, which `models.inference.packed_network` ensures. Several threads would divide rows and
columns among them depending on their number.
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
_COLUMN_MULTIPLE = 16  # columns are padded to a multiple of this, so that none remain after blocks of sixteen
_MAX_COLUMNS = 256  # of one product; OpenBLAS itself splits a matrix of more than about three hundred columns
_ROW_MULTIPLE, _ROW_MULTIPLE_WITH_MARGINS = 16, 24


class _Layout(NamedTuple):
    """How rows are multiplied by several kernels.

    Attributes:
        rows: the number of rows is padded to a multiple of this.
        matrices: columns that are multiplied together, float32 [directions, size, columns] each.
        columns: for each kernel, in order, the index of the matrix and the slice of it that hold its columns.
    """

    rows: int
    matrices: list[FloatArray]
    columns: list[list[tuple[int, slice]]]


class RowProducts:
    """Products of rows with several kernels.

    Attributes:
        is_consistent: whether equal rows have equal products. True with all kernels of OpenBLAS that were tried.
    """

    def __init__(self, kernels: Sequence[FloatArray]) -> None:
        """Chooses the layout of the kernels, which takes one or two products of a thousand rows.

        Args:
            kernels: float32 [directions, size, columns], all with the same size.
        """
        layouts = [_plain_layout(kernels), _padded_layout(kernels)]
        consistent = next(filter(_is_consistent, layouts), None)
        self.is_consistent = consistent is not None
        if not self.is_consistent:
            log.info(
                "on this processor matrix products depend on the position of a row: "
                "the last digit of a score may depend on which messages are in its batch"
            )
        self._layout = consistent or layouts[0]

    def pad_count(self, rows: int) -> int:
        """Returns the number of rows after padding."""
        return -(-rows // self._layout.rows) * self._layout.rows

    def allocate(self, rows: int) -> ProductBuffers:
        """Allocates buffers for products of up to `rows` rows, a padded number."""
        return ProductBuffers(self._layout, rows)


class ProductBuffers:
    """Computes products of rows with kernels in buffers that it reuses."""

    def __init__(self, layout: _Layout, rows: int) -> None:
        self._layout = layout
        self._buffers = [np.empty((len(matrix), rows, matrix.shape[-1]), np.float32) for matrix in layout.matrices]

    def multiply(self, rows: FloatArray) -> list[FloatArray]:
        """Returns the product with each kernel, float32 [directions, rows, columns]; the next call overwrites it.

        Args:
            rows: float32 [directions, rows, size], or [rows, size] for all directions.
        """
        count = rows.shape[-2]
        products = [
            np.matmul(rows, matrix, out=buffer[:, :count])
            for matrix, buffer in zip(self._layout.matrices, self._buffers, strict=True)
        ]
        return [_join_columns([products[index][:, :, span] for index, span in spans]) for spans in self._layout.columns]


def _join_columns(columns: list[FloatArray]) -> FloatArray:
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=-1)


def _plain_layout(kernels: Sequence[FloatArray]) -> _Layout:
    """Multiplies each kernel alone."""
    matrices = [np.ascontiguousarray(kernel) for kernel in kernels]
    return _Layout(_ROW_MULTIPLE, matrices, [[(index, slice(None))] for index in range(len(kernels))])


def _padded_layout(kernels: Sequence[FloatArray]) -> _Layout:
    """Joins the kernels, splits them into matrices of bounded width, and adds margins of zeros to each."""
    joined = np.concatenate(kernels, axis=-1)
    bounds = np.cumsum([0, *(kernel.shape[-1] for kernel in kernels)])
    layout = _Layout(_ROW_MULTIPLE_WITH_MARGINS, [], [[] for _ in kernels])
    for index, first in enumerate(range(0, joined.shape[-1], _MAX_COLUMNS)):
        columns = joined[:, :, first : first + _MAX_COLUMNS]
        margins = (_MARGIN, -columns.shape[-1] % _COLUMN_MULTIPLE + _MARGIN)
        layout.matrices.append(np.pad(columns, [(0, 0), (0, 0), margins]))
        within = np.clip(bounds - first, 0, columns.shape[-1]) + _MARGIN
        for spans, (start, stop) in zip(layout.columns, itertools.pairwise(within.tolist()), strict=True):
            if start < stop:
                spans.append((index, slice(start, stop)))
    return layout


def _is_consistent(layout: _Layout) -> bool:
    """Returns whether equal rows have equal products, for several numbers of rows."""
    counts = [factor * layout.rows for factor in (1, 2, 3, 8, 32)]
    for kernel in itertools.chain.from_iterable(layout.matrices):
        row = np.random.default_rng(0).standard_normal(len(kernel)).astype(np.float32)
        is_read = kernel.any(axis=0)  # not the margins
        products = np.concatenate([np.tile(row, (count, 1)) @ kernel for count in counts])[:, is_read]
        if (products != products[0]).any():
            return False
    return True
