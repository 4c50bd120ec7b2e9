"""The table as it is printed, and docs/performance.md with its charts."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from measure import Bench, Figures, Row, middle, rate

STAGES = ("read", "text", "network", "write")
HERE = Path(__file__).parent
# What the rate of matrix products, and so of the network, hangs on; the widest first.
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}
HEAD = """# How fast it is

    make bench CORPUS=path/to/SMSSpamCollection

wrote this file on {date}, on {machine}.
Every figure is of a process of its own, medians of {runs} runs, ours and its rival in turn; read the ratios.
"""
COST = """
A million messages cost {seconds} s, and {processor} s of processors, on SQLite.
Each batch's row has its own: `seconds_total`, `seconds_processor`.

## Where the time goes

Microseconds a message in each stage, on SQLite. Stages overlap, and two threads compute the network, so they add up to
more than the time from message to message. Who writes waits for the next chunk, and only that is counted as wait, not
that of a thread for another's text.

| stage | median | least to most |
| --- | ---: | ---: |
"""
CHARTS = """
![Microseconds a message by stage, and messages a second by size of the batch](performance.svg)

## Other rates

| what | messages a second |
| --- | ---: |
"""


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as Markdown."""
    head = ["| what | ours | the rival | ratio (least to most) | aim | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    return head + [_line(row) for row in rows]


def _line(row: Row) -> str:
    digits = 2 if row.rival else 0
    ratio = f"**{statistics.median(row.ratios):.{digits}f}** ({_spread(row.ratios, digits)})"
    aim = f"{'≥' if row.least else '≤'} {row.aim:g}"
    cells = (row.what, _shown(row.ours, row.unit), _shown(row.rival, row.unit), ratio, aim)
    return f"| {' | '.join(cells)} | {'reached' if row.reached else 'not reached'} |"


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def _shown(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    value = statistics.median(values)
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def write_document(folder: Path, rows: Sequence[Row], bench: Bench) -> None:
    """Writes performance.md and performance.svg into the folder."""
    _draw(folder / "performance.svg", bench)
    batches = bench.batches["SQLite"]
    seconds = [1e6 / rate(one) for one in batches]
    processor = [1e6 * one["processor"] / one["messages"] for one in batches]
    date = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    costs = {name: [_cost(one, name) for one in batches] for name in (*STAGES, "wait")}
    stages = [f"| {name} | {statistics.median(one):.1f} | {_spread(one, 1)} |" for name, one in costs.items()]
    rates = [f"| {name} | {value:,.0f} |" for name, value in bench.rates.items()]
    parts = [
        HEAD.format(date=date, machine=_machine(), runs=bench.runs),
        "\n".join(table(rows)) + "\n",
        COST.format(seconds=_with_spread(seconds), processor=_with_spread(processor)),
        "\n".join(stages) + "\n" + CHARTS + "\n".join(rates) + "\n\n",
        (HERE / "method.md").read_text(encoding="utf-8"),
    ]
    (folder / "performance.md").write_text("".join([parts[0], "\n", *parts[1:]]), encoding="utf-8")


def _with_spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({_spread(values, 1)})"


def _machine() -> str:
    import tensorflow as tf

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((one.split(":")[1].strip() for one in lines if one.startswith("model name")), platform.machine())
    flags = next((one.split() for one in lines if one.startswith("flags")), [])
    vectors = next((name for flag, name in _VECTORS.items() if flag in flags), "no AVX2")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model} with {vectors}, Python {platform.python_version()}, TensorFlow {tf.__version__}"


def _cost(figures: Figures, stage: str) -> float:
    return float(1e6 * figures[stage] / figures["messages"])


def _draw(path: Path, bench: Bench) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    # Equal figures give equal files.
    mpl.rcParams["svg.hashsalt"] = "performance"
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    names = [name for name in ("SQLite", "PostgreSQL") if name in bench.batches]
    before = [0.0] * len(names)
    for stage in STAGES:
        cost = [middle(_cost(one, stage) for one in bench.batches[name]) for name in names]
        left.barh(names, cost, left=before, label=stage)
        before = [one + other for one, other in zip(before, cost, strict=True)]
    left.set(xlabel="microseconds a message, summed over threads")
    left.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.18), frameon=False)
    runs = [one for name, some in bench.batches.items() if name != "PostgreSQL" for one in some]
    rates: dict[int, list[float]] = {}
    for one in runs:
        rates.setdefault(one["messages"], []).append(rate(one))
    sizes = sorted(rates)
    right.plot(sizes, [middle(rates[size]) for size in sizes], "o-")
    right.set(xscale="log", yscale="log", xlabel="messages in the batch", ylabel="messages a second")
    right.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
