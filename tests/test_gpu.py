"""`make gpu`: its judgements, its jobs on CPUs and on a stand-in driver, its exit codes, a whole run on two CPUs."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cuda_driver import StandInDriver

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks" / "gpu"


@pytest.fixture(autouse=True)
def _benchmark_modules_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run_gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}  # also on a machine that has a GPU
    return subprocess.run(
        [sys.executable, str(FOLDER), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )


def test_a_machine_without_a_gpu_is_named_in_one_line_with_an_exit_code_of_its_own() -> None:
    done = run_gpu()
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert "TensorFlow finds no GPU on this machine" in done.stderr


@pytest.mark.parametrize("devices", ["cpu", "cpu:0;cpu:1", "tpu:0", ""])
def test_malformed_names_are_refused(devices: str) -> None:
    done = run_gpu("--devices", devices)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "expected names such as cpu:0,cpu:1" in done.stderr


@pytest.mark.slow
def test_every_row_runs_on_two_logical_cpus() -> None:
    done = run_gpu("--devices", "cpu:0,cpu:1", "--quick", "--epochs", "2")
    rows = [re.split(r" {2,}", line.replace("skipped ", "skipped  ")) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row[:2] for row in rows] == [
        ["passed", "auto"], ["skipped", "memory"], ["skipped", "memory"], ["passed", "determinism"],
        ["passed", "scores"], ["passed", "epoch time"],
    ]  # fmt: skip
    assert re.search(r"441 scores differ from the CPU's by up to \d", done.stdout)


def test_a_training_that_fails_is_a_failed_row_with_its_error_and_the_rows_after_it_are_skipped(tmp_path: Path) -> None:
    from checks import FAILED, SKIPPED, check_trainings

    rows = list(check_trainings(["gpu:97"], tmp_path, 1, quick=True))
    assert [(row.title, row.state) for row in rows] == [
        ("determinism", FAILED), ("scores", SKIPPED), ("epoch time", SKIPPED),
    ]  # fmt: skip
    assert "device gpu:97 does not exist on this machine" in rows[0].found


CASES: list[tuple[str, tuple[Any, ...], bool]] = [
    ("judge_auto", (["gpu:0", "gpu:1"], ["gpu:1", "gpu:0"], ["gpu:0", "gpu:1"]), True),
    ("judge_auto", (["gpu:1"], ["gpu:0", "gpu:1"], ["gpu:0", "gpu:1"]), True),
    ("judge_auto", (["gpu:0", "gpu:1"], ["gpu:0"], ["gpu:0", "gpu:1"]), False),
    ("judge_auto", (["gpu:0"], ["cpu:0"], ["gpu:0"]), False),
    ("judge_auto", (["cpu:0", "cpu:1"], ["cpu:0", "cpu:1"], []), True),
    ("judge_auto", (["cpu:0", "cpu:1"], ["cpu:0"], []), False),
    ("judge_growth", (0.02, 0.95), True),
    ("judge_growth", (0.95, 0.95), False),
    ("judge_growth", (0.02, 0.02), False),
    ("judge_limit", (1024, True, False), True),
    ("judge_limit", (1024, True, True), False),
    ("judge_limit", (1024, False, False), False),
    ("judge_bits", ("a" * 64, "a" * 64), True),
    ("judge_bits", ("a" * 64, "a" * 63 + "b"), False),
    ("judge_scores", ([0.5, 0.1], [0.500009, 0.1]), True),
    ("judge_scores", ([0.5, 0.1], [0.50002, 0.1]), False),
    ("judge_scores", ([0.5, math.nan], [0.5, 0.1]), False),
    ("judge_scores", ([], []), False),
]


@pytest.mark.parametrize(("judge", "figures", "passed"), CASES)
def test_each_judgement(judge: str, figures: tuple[Any, ...], passed: bool) -> None:
    import checks

    assert getattr(checks, judge)(*figures)[0] is passed


def test_a_device_without_a_limit_fails_the_row_of_the_limit() -> None:
    from checks import FAILED, judge_limit, measured, run_job

    def measure() -> tuple[bool, str]:
        sizes = {"memory_limit": 64, "memory_share": 0.0, "sizes": [32, 96]}
        return judge_limit(64, **run_job("try_to_allocate", name="cpu:0", **sizes))

    row = measured("memory_limit", "cpu:0", measure)
    assert (row.state, row.found) == (FAILED, "limit 64 MiB: 32 MiB allocated, 96 MiB allocated")


def test_memory_that_cannot_be_allocated_is_told_from_memory_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf
    from device_jobs import can_allocate

    def fill(shape: list[int], _: float) -> None:
        if shape[0] > 64:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    monkeypatch.setattr(tf, "fill", fill)
    assert [can_allocate("cpu:0", size) for size in (64, 65)] == [True, False]


def test_the_memory_of_a_gpu_is_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    from device_jobs import read_free_memory, read_total_memory

    StandInDriver([8 * 2**30, 40 * 2**30], [2**30, 30 * 2**30]).install(monkeypatch)
    assert read_total_memory("gpu:1") == 40 * 1024
    assert read_free_memory(1) == (30 * 2**30, 40 * 2**30)
    with pytest.raises(OSError, match="gpu:2: NVIDIA's driver reports error 101"):
        read_free_memory(2)


def test_the_rows_of_a_gpu_pass_on_figures_of_a_gpu_that_keeps_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    import checks

    def run_job(job: str, **arguments: Any) -> Any:
        if job == "measure_memory_taken":
            return 0.04 if arguments["growth"] else 0.93
        if job == "read_total_memory":
            return 16_384
        limit = arguments["memory_limit"] or int(arguments["memory_share"] * 16_384)
        return dict(zip(("below", "above"), [size <= limit for size in arguments["sizes"]], strict=True))

    monkeypatch.setattr(checks, "run_job", run_job)
    rows = list(checks.check_memory(["gpu:0"]))
    assert [(row.title, row.state) for row in rows] == [
        ("memory growth", "passed"), ("memory_limit", "passed"), ("memory_share", "passed"),
    ]  # fmt: skip
    assert rows[2].found == "share 0.125, limit 2,048 MiB: 1,024 MiB allocated, 3,072 MiB refused"


def test_a_job_that_fails_is_a_failed_row_with_its_error() -> None:
    from checks import FAILED, check_memory

    row = next(iter(check_memory(["gpu:97"])))
    assert row.state == FAILED
    assert "device gpu:97 does not exist on this machine" in row.found
