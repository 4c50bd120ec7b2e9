"""Formats the table of results, and writes docs/performance.md with its charts."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from measure import Bench, Figures, Row, median, rate

STAGES = ("read", "text", "network", "write")
HERE = Path(__file__).parent
# CPU features that determine the speed of matrix products, and so of the network; widest first.
_VECTOR_FLAGS = {"avx512f": "AVX-512", "avx2": "AVX2"}
HEAD = """# Performance

    make bench CORPUS=path/to/SMSSpamCollection

generated this file on {date}, on {machine}.
Each figure is measured in its own process. Values are medians of {runs} runs that alternate between spamscore and the
baseline, so the ratios are the figures to read.
"""
COST = """
A million messages take {seconds} s, and {processor} s of processor time, on SQLite.
Each batch stores its own times: `seconds_total`, `seconds_processor`.

## Time by stage

Microseconds per message in each stage, on SQLite. Stages overlap, and two threads compute the network, so the stages
add up to more than the total time per message. `wait` is the time that the writer waits for the next chunk; it does
not include the time that a thread waits for another thread to tokenize.

| stage | median | minimum to maximum |
| --- | ---: | ---: |
"""
CHARTS = """
![Microseconds per message by stage, and messages per second by size of the batch](performance.svg)

## Other rates

| benchmark | messages per second |
| --- | ---: |
"""


def table(rows: Sequence[Row]) -> list[str]:
    """Formats the rows as a Markdown table."""
    head = [
        "| benchmark | spamscore | baseline | ratio (min to max) | target | |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    return head + [_line(row) for row in rows]


def _line(row: Row) -> str:
    digits = 2 if row.baseline else 0
    ratio = f"**{statistics.median(row.ratios):.{digits}f}** ({_spread(row.ratios, digits)})"
    target = f"{'≥' if row.higher_is_better else '≤'} {row.target:g}"
    cells = (row.title, _format_median(row.ours, row.unit), _format_median(row.baseline, row.unit), ratio, target)
    return f"| {' | '.join(cells)} | {'reached' if row.reached else 'not reached'} |"


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def _format_median(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    value = statistics.median(values)
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def write_document(folder: Path, rows: Sequence[Row], bench: Bench) -> None:
    """Writes performance.md and performance.svg into a folder."""
    _draw(folder / "performance.svg", bench)
    batches = bench.batches["SQLite"]
    seconds = [1e6 / rate(run) for run in batches]
    processor = [1e6 * run["processor"] / run["messages"] for run in batches]
    date = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    costs = {name: [_microseconds(run, name) for run in batches] for name in (*STAGES, "wait")}
    stages = [f"| {name} | {statistics.median(cost):.1f} | {_spread(cost, 1)} |" for name, cost in costs.items()]
    rates = [f"| {name} | {value:,.0f} |" for name, value in bench.rates.items()]
    parts = [
        HEAD.format(date=date, machine=_describe_machine(), runs=bench.runs),
        "\n".join(table(rows)) + "\n",
        COST.format(seconds=_with_spread(seconds), processor=_with_spread(processor)),
        "\n".join(stages) + "\n" + CHARTS + "\n".join(rates) + "\n\n",
        (HERE / "method.md").read_text(encoding="utf-8"),
    ]
    (folder / "performance.md").write_text("".join([parts[0], "\n", *parts[1:]]), encoding="utf-8")


def _with_spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({_spread(values, 1)})"


def _describe_machine() -> str:
    import tensorflow as tf

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    vectors = next((name for flag, name in _VECTOR_FLAGS.items() if flag in flags), "no AVX2")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model} with {vectors}, Python {platform.python_version()}, TensorFlow {tf.__version__}"


def _microseconds(figures: Figures, stage: str) -> float:
    return float(1e6 * figures[stage] / figures["messages"])


def _draw(path: Path, bench: Bench) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    # The same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "performance"
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    names = [name for name in ("SQLite", "PostgreSQL") if name in bench.batches]
    offsets = [0.0] * len(names)
    for stage in STAGES:
        cost = [median(_microseconds(run, stage) for run in bench.batches[name]) for name in names]
        left.barh(names, cost, left=offsets, label=stage)
        offsets = [offset + width for offset, width in zip(offsets, cost, strict=True)]
    left.set(xlabel="microseconds per message, summed over threads")
    left.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.18), frameon=False)
    runs = [run for name, batch_runs in bench.batches.items() if name != "PostgreSQL" for run in batch_runs]
    rates: dict[int, list[float]] = {}
    for run in runs:
        rates.setdefault(run["messages"], []).append(rate(run))
    sizes = sorted(rates)
    right.plot(sizes, [median(rates[size]) for size in sizes], "o-")
    right.set(xscale="log", yscale="log", xlabel="messages in the batch", ylabel="messages per second")
    right.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
