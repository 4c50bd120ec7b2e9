"""The checks. Each yields rows; each judges figures that jobs measure in processes of their own.

TensorFlow's devices are set up once in a process, so each setting needs a new one. Training runs through the command
`luigi`, as a user runs it.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
MAX_SCORE_DIFFERENCE = 1e-5
LIMIT = 1024  # MiB
SHARE = 0.125
JOBS = Path(__file__).with_name("device_jobs.py")
LUIGI = Path(sys.executable).with_name("luigi")
_SMALL_NETWORK = {"embedding_size": 8, "rnn_units": 8, "ngram_buckets": 4096, "ngram_vectors": 256}


@dataclass(frozen=True)
class Row:
    """One row of the table: what was checked, on which devices, what was found, and PASSED, FAILED or SKIPPED."""

    title: str
    devices: str
    found: str
    state: str


class JobError(Exception):
    """A process that failed; the text is the last line that it wrote."""


def format_row(row: Row) -> str:
    """Formats a row for the terminal."""
    return f"{row.state:<8} {row.title:<16} {row.devices:<12} {row.found}"


def run_job(job: str, **arguments: Any) -> Any:
    """Runs a function of `device_jobs` in a new process and returns its result.

    Raises:
        JobError: the process failed.
    """
    return json.loads(_run([sys.executable, str(JOBS), job, json.dumps(arguments)], Path.cwd(), {}))


def _run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    """Runs a command and returns the last line of its output."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("LUIGI_", "SPAMSCORE_"))}
    done = subprocess.run(  # noqa: S603 - programs of this environment
        command, cwd=folder, env={**variables, **environment}, capture_output=True, text=True, check=False
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or ["no output"]
    if done.returncode:
        raise JobError(f"exit code {done.returncode}: {lines[-1]}")
    return lines[-1]


def measured(title: str, devices: str, measure: Callable[[], tuple[bool, str]]) -> Row:
    """Returns the row of a check: `measure` returns whether it passed, and what it found."""
    try:
        passed, found = measure()
    except JobError as error:
        passed, found = False, str(error)
    return Row(title, devices, found, PASSED if passed else FAILED)


def count_logical_cpus(names: Sequence[str]) -> int:
    """Returns how many logical CPUs there must be for the names."""
    return max([int(name.removeprefix("cpu:")) + 1 for name in names if name.startswith("cpu:")], default=1)


def check_auto(names: Sequence[str]) -> Iterator[Row]:
    """Checks that `devices = auto` selects every GPU or, without a GPU, every logical CPU."""

    def measure() -> tuple[bool, str]:
        found = run_job("list_auto", logical_cpus=count_logical_cpus(names))
        return judge_auto(names, found["selected"], found["gpus"])

    yield measured("auto", ",".join(names), measure)


def judge_auto(names: Sequence[str], selected: Sequence[str], gpus: Sequence[str]) -> tuple[bool, str]:
    """Passes if exactly the GPUs are selected or, on a machine without one, the CPUs that are checked."""
    return sorted(selected) == sorted(gpus or names), f"auto selects {', '.join(selected) or 'none'}"


def check_memory(names: Sequence[str]) -> Iterator[Row]:
    """Checks memory growth, memory_limit and memory_share on each GPU; a CPU has no such settings."""
    for name in names:
        if name.startswith("cpu:"):
            yield Row("memory", name, "TensorFlow limits the memory of GPUs only", SKIPPED)
            continue
        yield measured("memory growth", name, lambda name=name: judge_growth(*_measure_growth(name)))
        yield measured("memory_limit", name, lambda name=name: judge_limit(LIMIT, **_allocate(name, LIMIT, 0.0)))
        yield measured("memory_share", name, lambda name=name: judge_share(name))


def _measure_growth(name: str) -> tuple[float, float]:
    with_growth, without = (run_job("measure_memory_taken", name=name, growth=growth) for growth in (True, False))
    return with_growth, without


def judge_growth(with_growth: float, without: float) -> tuple[bool, str]:
    """Passes if a small computation takes little of the memory with growth, and most of it without.

    Args:
        with_growth: share of the GPU's memory that is taken with memory_growth = true.
        without: the same with memory_growth = false.
    """
    found = f"{with_growth:.0%} of the memory taken with growth, {without:.0%} without"
    return with_growth < 0.5 < without, found


def _allocate(name: str, limit: int, share: float) -> dict[str, bool]:
    """Tries to allocate half the limit and one and a half times the limit, under memory_limit or memory_share."""
    memory_limit = 0 if share else limit
    result: dict[str, bool] = run_job(
        "try_to_allocate", name=name, memory_limit=memory_limit, memory_share=share, sizes=[limit // 2, limit * 3 // 2]
    )
    return result


def judge_limit(limit: int, below: bool, above: bool) -> tuple[bool, str]:
    """Passes if memory below the limit (MiB) can be allocated, and memory above it cannot."""
    words = {True: "allocated", False: "refused"}
    found = f"limit {limit:,} MiB: {limit // 2:,} MiB {words[below]}, {limit * 3 // 2:,} MiB {words[above]}"
    return below and not above, found


def judge_share(name: str) -> tuple[bool, str]:
    """Passes if memory_share limits the memory to that share of the GPU's total memory."""
    limit = int(SHARE * run_job("read_total_memory", name=name))
    passed, found = judge_limit(limit, **_allocate(name, limit, SHARE))
    return passed, f"share {SHARE:g}, {found}"


def check_trainings(names: Sequence[str], folder: Path, epochs: int, quick: bool) -> Iterator[Row]:
    """Trains twice on the devices and once on a CPU. Checks that bits and scores are equal, and compares the times."""
    devices = ",".join(names)
    first, second, cpu = (folder / name for name in ("first", "second", "cpu"))

    def compare_bits() -> tuple[bool, str]:
        train(first, names, epochs, quick)
        _copy_without_training(first, second)
        train(second, names, epochs, quick)
        return judge_bits(read_weights_sha256(first), read_weights_sha256(second))

    def compare_scores() -> tuple[bool, str]:
        training = str(find_training(first))
        return judge_scores(*(_score(training, each) for each in (names, ["cpu:0"])))

    def compare_times() -> tuple[bool, str]:
        _copy_without_training(first, cpu)
        train(cpu, ["cpu:0"], epochs, quick, CUDA_VISIBLE_DEVICES="-1")
        return True, format_times(read_epoch_seconds(first), read_epoch_seconds(cpu))

    bits = measured("determinism", devices, compare_bits)
    yield bits
    if not first.exists() or not list(first.glob("artifacts/training/*/model.json")):
        yield from (Row(title, devices, "there is no trained model", SKIPPED) for title in ("scores", "epoch time"))
        return
    yield measured("scores", devices, compare_scores)
    yield measured("epoch time", devices, compare_times)


def _score(training: str, names: Sequence[str]) -> list[float]:
    settings = {"devices": ",".join(names), "logical_cpus": count_logical_cpus(names)}
    scores: list[float] = run_job("score", training=training, **settings)
    return scores


def judge_bits(first: str, second: str) -> tuple[bool, str]:
    """Passes if two trainings have the same SHA-256 of their weights."""
    return first == second, f"weights {first[:16]} and {second[:16]}"


def judge_scores(scores: Sequence[float], cpu_scores: Sequence[float]) -> tuple[bool, str]:
    """Passes if the scores of the same weights differ from those of a CPU by at most 1e-5. NaN does not pass."""
    differences = [abs(score - other) for score, other in zip(scores, cpu_scores, strict=True)]
    # `max` would ignore a NaN that is not the first value.
    passed = bool(differences) and all(difference <= MAX_SCORE_DIFFERENCE for difference in differences)
    return passed, f"{len(differences)} scores differ from the CPU's by up to {max(differences, default=0):.1e}"


def format_times(seconds: float, cpu_seconds: float) -> str:
    """Formats the time of an epoch beside that of a CPU."""
    return f"{seconds:.2f} s, on the CPU {cpu_seconds:.2f} s: {cpu_seconds / seconds:.1f} times as fast"


def train(folder: Path, names: Sequence[str], epochs: int, quick: bool, **environment: str) -> None:
    """Trains on the bundled sample in a folder, with luigi.cfg and the command of a user.

    Raises:
        JobError: the command failed.
    """
    folder.mkdir(exist_ok=True)
    sections = {
        "devices": {"devices": ",".join(names), "logical_cpus": count_logical_cpus(names)},
        "training": {"epochs": epochs, "held_out_folds": 0},
        "network": _SMALL_NETWORK if quick else {},
    }
    lines = [
        line
        for section, values in sections.items()
        for line in (f"[{section}]", *(f"{key} = {value}" for key, value in values.items()))
    ]
    (folder / "luigi.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _run([str(LUIGI), "--module", "pipeline", "TrainModel"], folder, environment)


def _copy_without_training(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=lambda folder, _: ["training"] if Path(folder).name == "artifacts" else [])


def find_training(folder: Path) -> Path:
    """Returns the folder of the only training below a working folder."""
    (description,) = folder.glob("artifacts/training/*/model.json")
    return description.parent


def read_weights_sha256(folder: Path) -> str:
    """Returns the SHA-256 of the weights of the training below a working folder."""
    description = json.loads((find_training(folder) / "model.json").read_text(encoding="utf-8"))
    return str(description["weights_sha256"])


def read_epoch_seconds(folder: Path) -> float:
    """Returns the seconds of the fastest epoch after the first, which compiles the network."""
    with (find_training(folder) / "history.csv").open(newline="", encoding="utf-8") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return min(seconds[1:] or seconds)
