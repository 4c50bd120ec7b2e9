"""`make bench-serve`: its rows and its table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[1] / "benchmarks" / "serving"


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Imports the benchmark's modules by their bare names."""
    names = ("bench", "in_process")
    monkeypatch.syspath_prepend(str(HERE))
    yield
    for name in names:
        sys.modules.pop(name, None)


def test_the_table_shows_the_spread_the_aim_and_whether_it_was_reached() -> None:
    from bench import Row, table

    rows = [Row("times as fast", [2.0, 4.0, 3.0], 3.0, True), Row("median", [1.25, 1200.0, 1.5], 1.4, False, "ms")]
    assert table(rows)[2:] == [
        "| times as fast | **3** (2 to 4) | ≥ 3 | reached |",
        "| median | **1.5** (1.25 to 1,200) ms | ≤ 1.4 ms | not reached |",
    ]


def test_the_rows_compare_the_packed_scorer_with_the_signature_at_every_size() -> None:
    import in_process
    from bench import Bench

    class MeasuredBench(Bench):
        def job(self, script: str, *arguments: object) -> Any:
            """Returns seconds of two calls of each, of which the signature takes four times as long."""
            figures = {
                str(size): {"packed": [0.001, 0.002], "signature": [0.004, 0.008]} for size, *_ in in_process.SIZES
            }
            return {"warm": figures, "cold": figures}

    *compared, median, spread = in_process.rows(MeasuredBench(Path(), Path(), 3))
    assert len(compared) == 2 * len(in_process.SIZES)
    assert all(row.values == [4.0, 4.0, 4.0] and row.reached for row in compared)
    assert median.values == [1.5, 1.5, 1.5]
    assert spread.values[0] > 1
