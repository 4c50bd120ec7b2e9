"""The products of a row have the same bits at any position, with each kernel that OpenBLAS may choose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.inference import row_products
from models.inference.row_products import RowProducts

ROOT = Path(__file__).parents[3]
# Numbers of rows and columns of kernels: the default, small and odd ones, and ones that must be split.
SHAPES = [(32, [64, 32]), (48, [64, 32]), (5, [10, 5]), (9, [9]), (25, [50, 25]), (100, [200, 100]), (150, [300, 150])]
# OpenBLAS kernels by the name of their processor, and the CPU feature that they need.
OPENBLAS_KERNELS = [("Nehalem", "sse4_2"), ("Sandybridge", "avx"), ("Haswell", "avx2"), ("SkylakeX", "avx512f")]
SCRIPT = """
import json, sys
import numpy as np
from threadpoolctl import threadpool_info
from models.inference.row_products import RowProducts

random = np.random.default_rng(1)
differing = []
for size, widths in json.loads(sys.argv[1]):
    kernels = [random.standard_normal((2, size, width)).astype(np.float32) for width in widths]
    products = RowProducts(kernels)
    rows = random.standard_normal((2, products.pad_count(700), size)).astype(np.float32)
    expected = [product.copy() for product in products.allocate(rows.shape[1]).multiply(rows)]
    buffers = products.allocate(rows.shape[1])
    for count in (1, 2, 5, 13, 30, 49, 64, 100, 333, 500, 700):
        chosen = random.permutation(rows.shape[1])[:products.pad_count(count)]
        found = buffers.multiply(rows[:, chosen])
        if not all(np.array_equal(product, full[:, chosen]) for product, full in zip(found, expected, strict=True)):
            differing.append([size, widths, count])
    if not products.is_consistent:
        differing.append([size, widths, "not alike"])
cores = {pool.get("architecture") for pool in threadpool_info() if pool["user_api"] == "blas"}
print(json.dumps([differing, sorted(cores)]))
"""


@pytest.mark.parametrize(("size", "widths"), SHAPES)
def test_products_equal_those_of_numpy(size: int, widths: list[int]) -> None:
    random = np.random.default_rng(0)
    kernels = [random.standard_normal((2, size, width)).astype(np.float32) for width in widths]
    products = RowProducts(kernels)
    for count in (0, products.pad_count(1), products.pad_count(70)):
        rows = random.standard_normal((2, count, size)).astype(np.float32)
        for product, kernel in zip(products.allocate(count).multiply(rows), kernels, strict=True):
            np.testing.assert_allclose(product, rows @ kernel, rtol=0, atol=1e-4)
            assert product.shape == (2, count, kernel.shape[-1])


@pytest.mark.parametrize(("kernel_name", "feature"), OPENBLAS_KERNELS)
def test_a_row_has_the_same_bits_in_any_batch_with_each_openblas_kernel(kernel_name: str, feature: str) -> None:
    cpu = Path("/proc/cpuinfo")
    if not (cpu.exists() and feature in cpu.read_text().split()):
        pytest.skip(f"the processor has no {feature}")
    assert find_differing(OPENBLAS_CORETYPE=kernel_name) == [[], [kernel_name]]


def test_a_row_has_the_same_bits_in_any_batch_with_the_default_kernel() -> None:
    assert find_differing()[0] == []


def find_differing(**variables: str) -> list[list[object]]:
    """Runs the script in a new process with one thread.

    Returns:
        Shapes whose products differed, and the kernels that computed them.
    """
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(SHAPES)],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **variables},
    )  # fmt: skip
    return json.loads(process.stdout)


def test_without_a_consistent_layout_products_are_correct_and_a_line_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(row_products, "_is_consistent", lambda _: False)
    with caplog.at_level("INFO", "spamscore"):
        products = RowProducts([np.full((1, 3, 2), 2, np.float32)])
    assert not products.is_consistent
    assert "the last digit of a score may depend on" in caplog.text
    (product,) = products.allocate(16).multiply(np.ones((1, 16, 3), np.float32))
    np.testing.assert_array_equal(product, np.full((1, 16, 2), 6))


def test_rows_are_padded_by_less_than_24() -> None:
    products = RowProducts([np.ones((1, 3, 2), np.float32)])
    for rows in range(100):
        assert rows <= products.pad_count(rows) < rows + 24
