"""Arithmetic on vectors: a row has the same bits in any company, and tanh and sums are NumPy's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.hashing.compiled import compiled
from models.inference.vectors import apply_loop, find_loop, multiply_rows

# Numbers of rows of a matrix, and of its columns: the default, small and odd ones.
SHAPES = [(32, 96), (48, 96), (5, 15), (1, 1), (9, 9), (25, 75), (100, 300), (150, 450)]


def product(rows: npt.NDArray[np.float32], matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    products = np.full((len(rows), matrix.shape[1]), np.nan, np.float32)
    multiply_rows(rows, matrix, products)
    return products


@compiled
def apply(loop: int, values: npt.NDArray[np.float32], count: int) -> None:
    apply_loop(loop, values, count)


@pytest.mark.parametrize(("size", "width"), SHAPES)
def test_products_equal_those_of_numpy(size: int, width: int) -> None:
    random = np.random.default_rng(0)
    matrix = random.standard_normal((size, width)).astype(np.float32)
    for count in (0, 1, 4, 7, 70):
        rows = random.standard_normal((count, size)).astype(np.float32)
        np.testing.assert_allclose(product(rows, matrix), rows @ matrix, rtol=0, atol=1e-4)


@given(shape=st.sampled_from(SHAPES), order=st.permutations(range(23)), count=st.integers(0, 23))
def test_the_product_of_a_row_has_the_same_bits_in_any_company(
    shape: tuple[int, int], order: list[int], count: int
) -> None:
    random = np.random.default_rng(1)
    matrix, rows = (random.standard_normal((size, width)).astype(np.float32) for size, width in (shape, (23, shape[0])))
    chosen = order[:count]
    np.testing.assert_array_equal(product(rows[chosen], matrix), product(rows, matrix)[chosen])


def test_each_multiplication_and_addition_is_rounded_once() -> None:
    tiny = np.float32(2**-12)
    rows = np.array([[1, 1 + tiny]], np.float32)
    # (1 + 2⁻¹²)² is 1 + 2⁻¹¹ + 2⁻²⁴. Rounded alone it loses the last part, of which the sum would keep nothing.
    matrix = np.array([[-1 - 2 * tiny], [1 + tiny]], np.float32)
    assert product(rows, matrix).tolist() == [[2.0**-24]]


@given(values=hnp.arrays(np.float32, st.integers(0, 70), elements=st.floats(width=32)), count=st.integers(0, 70))
def test_tanh_has_the_bits_of_numpy_and_stops_at_the_count(values: npt.NDArray[np.float32], count: int) -> None:
    count = min(count, len(values))
    expected = np.concatenate([np.tanh(values[:count]), values[count:]])
    apply(find_loop(np.tanh), values, count)
    np.testing.assert_array_equal(values, expected)


def test_a_loop_that_numpy_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="f->f"):
        find_loop(np.bitwise_count)
