"""`make bench`: its generated messages, its table, and its database writers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1] / "benchmarks" / "performance"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Imports the benchmark's modules by their bare names, which other benchmarks use too."""
    names = ("measure", "document", "messages")
    before = {name: sys.modules.pop(name, None) for name in names}
    monkeypatch.syspath_prepend(str(HERE))
    yield
    for name in names:
        sys.modules.pop(name, None)
        if before[name] is not None:
            sys.modules[name] = before[name]


@pytest.mark.usefixtures("modules")
def test_messages_are_distinct_and_the_same_every_time() -> None:
    from messages import distinct_messages

    real = [f"win {number} prizes now and call me back {number}" for number in range(30)]
    texts = list(distinct_messages(real, 500))
    assert len(set(texts)) == 500
    assert texts == list(distinct_messages(real, 500))


@pytest.mark.usefixtures("modules")
def test_the_table_shows_targets_and_whether_they_were_reached() -> None:
    from document import table
    from measure import compare_rates, compare_seconds

    pairs = [({"messages": 100, "seconds": ours}, {"messages": 100, "seconds": 1.0}) for ours in (0.5, 0.4, 1.0)]
    rows = [
        compare_rates("rates", pairs, 1.9),
        compare_rates("rates", pairs, 2.1),
        compare_seconds("times", [(1.0, 2.0)], 0.4),
    ]
    assert table(rows)[2:] == [
        "| rates | 200 /s | 100 /s | **2.00** (1.00 to 2.50) | ≥ 1.9 | reached |",
        "| rates | 200 /s | 100 /s | **2.00** (1.00 to 2.50) | ≥ 2.1 | not reached |",
        "| times | 1 s | 2 s | **0.50** (0.50 to 0.50) | ≤ 0.4 | not reached |",
    ]


@pytest.mark.parametrize("way", ["ours", "ledger", "luigi"])
def test_each_measured_writer_writes_the_rows(way: str, tmp_path: Path) -> None:
    import sqlite3

    command = [sys.executable, str(HERE / "jobs.py"), "write", str(tmp_path), way, "sqlite", "25000"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    completed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(completed.stdout)["messages"] == 25_000
    with sqlite3.connect(tmp_path / "bench.db") as connection:
        assert connection.execute("select count(*), count(distinct message_id) from spam_scores").fetchone() == (
            25_000, 25_000,
        )  # fmt: skip
    connection.close()


@pytest.mark.slow
@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("job", "arguments"), [("batch", ["sqlite"]), ("network", []), ("keras", []), ("script", ["20"]), ("served", [])]
)
def test_each_measured_job_scores_the_messages_of_a_snapshot(
    trained: Path, tmp_path: Path, job: str, arguments: list[str]
) -> None:
    from measure import Bench

    folder = Path(shutil.copytree(trained, tmp_path / "bench"))
    bench = Bench(folder, tmp_path / "none", 1, 20)
    bench.snapshot("few", lambda: (f"win {number} prizes now" for number in range(20)))
    figures = bench.job(job, "few", *arguments)
    assert figures["messages"] == 20
    assert figures["seconds"] > 0
