"""A row's products have the same bits wherever it stands, with each of the kernels that OpenBLAS may choose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.row_products import RowProducts

ROOT = Path(__file__).parents[2]
# Sizes of rows and columns of kernels: the default's, small and odd ones, those that must be cut.
SHAPES = [(32, [64, 32]), (48, [64, 32]), (5, [10, 5]), (9, [9]), (25, [50, 25]), (100, [200, 100]), (150, [300, 150])]
# What a processor must have for the kernels of a name.
CORES = {"Nehalem": "sse4_2", "Sandybridge": "avx", "Haswell": "avx2", "SkylakeX": "avx512f", "": ""}
DIFFERING = """
import json, sys
import numpy as np
from models.row_products import RowProducts

random = np.random.default_rng(1)
differing = []
for size, widths in json.loads(sys.argv[1]):
    kernels = [random.standard_normal((2, size, width)).astype(np.float32) for width in widths]
    products = RowProducts(kernels)
    rows = random.standard_normal((2, products.filled_up(700), size)).astype(np.float32)
    alone = [one.copy() for one in products.room(rows.shape[1]).of(rows)]
    room = products.room(rows.shape[1])
    for count in (1, 2, 5, 13, 30, 49, 64, 100, 333, 500, 700):
        chosen = random.permutation(rows.shape[1])[:products.filled_up(count)]
        found = room.of(rows[:, chosen])
        if not all(np.array_equal(one, other[:, chosen]) for one, other in zip(found, alone, strict=True)):
            differing.append([size, widths, count])
    if not products.alike:
        differing.append([size, widths, "not alike"])
print(json.dumps(differing))
"""


@pytest.mark.parametrize(("size", "widths"), SHAPES)
def test_products_are_those_of_numpy(size: int, widths: list[int]) -> None:
    random = np.random.default_rng(0)
    kernels = [random.standard_normal((2, size, width)).astype(np.float32) for width in widths]
    products = RowProducts(kernels)
    for count in (0, products.filled_up(1), products.filled_up(70)):
        rows = random.standard_normal((2, count, size)).astype(np.float32)
        for found, kernel in zip(products.room(count).of(rows), kernels, strict=True):
            np.testing.assert_allclose(found, rows @ kernel, rtol=0, atol=1e-4)
            assert found.shape == (2, count, kernel.shape[-1])


@pytest.mark.parametrize("core", CORES, ids=lambda core: core or "own")
def test_a_row_has_the_same_bits_in_any_company_with_any_kernel(core: str) -> None:
    cpu = Path("/proc/cpuinfo")
    if core and not (cpu.exists() and CORES[core] in cpu.read_text().split()):
        pytest.skip(f"the processor has no {CORES[core]}")
    done = subprocess.run(
        [sys.executable, "-c", DIFFERING, json.dumps(SHAPES)],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **({"OPENBLAS_CORETYPE": core} if core else {})},
    )  # fmt: skip
    assert json.loads(done.stdout) == []


def test_rows_are_filled_up_to_no_less_and_not_far() -> None:
    products = RowProducts([np.ones((1, 3, 2), np.float32)])
    for rows in range(100):
        assert rows <= products.filled_up(rows) < rows + 24
