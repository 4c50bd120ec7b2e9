"""Arithmetic on float32 vectors inside compiled loops: products of rows with a matrix, and NumPy's own tanh.

The result for a row has the same bits whatever the other rows are: each element of a product is summed in the order of
the columns of its row, with one rounding for each multiplication and addition (fused multiply-add). Matrix products of
libraries do not promise that, because they process rows in blocks, and may sum differently in each kind of block.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from models.hashing.compiled import compiled

FloatArray = npt.NDArray[np.float32]
_ZERO = np.float32(0)


def find_loop(ufunc: np.ufunc) -> int:
    """Returns the address of the loop with which a ufunc of one argument computes float32 from float32.

    It reads NumPy's `PyUFuncObject`, whose layout is part of the C interface that all of NumPy 2 keeps: after the
    object's head there are four integers and the pointer to the loops, in the order of `types`.
    """
    loops = ctypes.c_void_p.from_address(id(ufunc) + object.__basicsize__ + 4 * ctypes.sizeof(ctypes.c_int)).value
    addresses = (ctypes.c_void_p * ufunc.ntypes).from_address(loops or 0)
    return int(addresses[ufunc.types.index("f->f")] or 0)


@intrinsic
def apply_loop(_context: Any, _loop: Any, values: Any, _count: Any) -> Any:
    """Applies a loop of `find_loop` to a contiguous array, in place.

    Args of the compiled function: the address of the loop; the array; how many of its first values to change.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, array, size = arguments
        byte_pointer, integer = ir.IntType(8).as_pointer(), ir.IntType(64)
        data = builder.bitcast(context.make_array(signature.args[1])(context, builder, array).data, byte_pointer)
        pointers = cgutils.alloca_once(builder, byte_pointer, size=2)
        strides = cgutils.alloca_once(builder, integer, size=2)
        for index in range(2):  # input and output
            builder.store(data, cgutils.gep_inbounds(builder, pointers, index))
            builder.store(ir.Constant(integer, 4), cgutils.gep_inbounds(builder, strides, index))
        parameters = (byte_pointer.as_pointer(), integer.as_pointer(), integer.as_pointer(), byte_pointer)
        function = builder.inttoptr(address, ir.FunctionType(ir.VoidType(), parameters).as_pointer())
        builder.call(function, [pointers, cgutils.alloca_once_value(builder, size), strides, byte_pointer(None)])
        return context.get_dummy_value()

    return numba.types.void(numba.types.int64, values, numba.types.int64), generate


@intrinsic
def _fma(_context: Any, _left: Any, _right: Any, _total: Any) -> Any:
    """Returns left * right + total, rounded once."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return numba.types.float32(*[numba.types.float32] * 3), generate


@compiled
def multiply_rows(rows: FloatArray, matrix: FloatArray, products: FloatArray) -> None:
    """Computes the product of each row with a matrix, [rows, size] @ [size, columns], into `products`.

    Four rows at a time share what is read of the matrix, which is faster and gives the same bits.
    """
    together = len(rows) - len(rows) % 4
    for row in range(0, together, 4):
        _multiply_four(rows[row : row + 4], matrix, products[row : row + 4])
    for row in range(together, len(rows)):
        _multiply_one(rows[row], matrix, products[row])


@compiled
def _multiply_four(rows: FloatArray, matrix: FloatArray, products: FloatArray) -> None:
    # Names of values are the letter of their row and the number of their column in it. Arrays of four are not kept in
    # registers.
    a, b, c, d = rows[0], rows[1], rows[2], rows[3]
    to_a, to_b, to_c, to_d = products[0], products[1], products[2], products[3]
    products[:] = _ZERO
    together = len(a) - len(a) % 4
    for k in range(0, together, 4):
        a0, a1, a2, a3 = a[k], a[k + 1], a[k + 2], a[k + 3]
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        c0, c1, c2, c3 = c[k], c[k + 1], c[k + 2], c[k + 3]
        d0, d1, d2, d3 = d[k], d[k + 1], d[k + 2], d[k + 3]
        m0, m1, m2, m3 = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        for j in range(len(to_a)):
            x0, x1, x2, x3 = m0[j], m1[j], m2[j], m3[j]
            to_a[j] = _fma(a3, x3, _fma(a2, x2, _fma(a1, x1, _fma(a0, x0, to_a[j]))))
            to_b[j] = _fma(b3, x3, _fma(b2, x2, _fma(b1, x1, _fma(b0, x0, to_b[j]))))
            to_c[j] = _fma(c3, x3, _fma(c2, x2, _fma(c1, x1, _fma(c0, x0, to_c[j]))))
            to_d[j] = _fma(d3, x3, _fma(d2, x2, _fma(d1, x1, _fma(d0, x0, to_d[j]))))
    for k in range(together, len(a)):
        for j in range(len(to_a)):
            x = matrix[k, j]
            to_a[j], to_b[j] = _fma(a[k], x, to_a[j]), _fma(b[k], x, to_b[j])
            to_c[j], to_d[j] = _fma(c[k], x, to_c[j]), _fma(d[k], x, to_d[j])


@compiled
def _multiply_one(row: FloatArray, matrix: FloatArray, product: FloatArray) -> None:
    product[:] = _ZERO
    together = len(row) - len(row) % 4
    for k in range(0, together, 4):
        a0, a1, a2, a3 = row[k], row[k + 1], row[k + 2], row[k + 3]
        m0, m1, m2, m3 = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        for j in range(len(product)):
            product[j] = _fma(a3, m3[j], _fma(a2, m2[j], _fma(a1, m1[j], _fma(a0, m0[j], product[j]))))
    for k in range(together, len(row)):
        for j in range(len(product)):
            product[j] = _fma(row[k], matrix[k, j], product[j])
