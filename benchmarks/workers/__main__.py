"""`make bench-workers`: how much faster two workers of one core each train than one worker of one core.

Prints a Markdown table with a row for each size of the network. Needs two cores that nothing else uses.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LUIGI = Path(sys.executable).with_name("luigi")
# Settings of the networks whose workers are compared; an epoch is timed after the first, which compiles.
NETWORKS = {
    "as shipped, batches of 64": (),
    "128 numbers a token, 256 units, batches of 512": (
        "--network-embedding-size", "128", "--network-rnn-units", "256", "--training-batch-size", "512",
    ),
}  # fmt: skip


def start(folder: Path, cores: list[int], *arguments: str) -> subprocess.Popen[bytes]:
    """Starts the command on some cores."""
    return subprocess.Popen(  # noqa: S603 - arguments of this module
        [LUIGI, "--module", "pipeline", "--local-scheduler", *arguments], cwd=folder,
        stdout=subprocess.DEVNULL, stderr=(folder / "output").open("wb"),
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip


def wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Waits for a command, and ends the benchmark with its output if it failed."""
    if process.wait():
        sys.exit((folder / "output").read_text("utf-8"))


def measure_epoch(prepared: Path, scratch: Path, arguments: tuple[str, ...], workers: int, epochs: int) -> float:
    """Trains one network with workers of one core each; returns the median seconds of an epoch, without the first."""
    addresses = []
    for _ in range(workers):
        with socket.create_server(("127.0.0.1", 0)) as server:
            addresses.append(f"127.0.0.1:{server.getsockname()[1]}")
    folders = [Path(shutil.copytree(prepared, scratch / f"{n}-{time.monotonic_ns()}")) for n in range(workers)]
    training = (*arguments, "--training-held-out-folds", "0", "--training-epochs", str(epochs))
    started = [
        start(
            folder, [number], "TrainModel", *training,
            *(("--training-workers", ",".join(addresses), "--training-worker", str(number)) if workers > 1 else ()),
        )
        for number, folder in enumerate(folders)
    ]  # fmt: skip
    for process, folder in zip(started, folders, strict=True):
        wait(process, folder)
    (history,) = folders[0].glob("artifacts/training/*/history.csv")
    with history.open(encoding="ascii", newline="") as file:
        return statistics.median(float(row["seconds"]) for row in list(csv.DictReader(file))[1:])


def format_row(name: str, one: list[float], two: list[float]) -> str:
    """Formats a row: medians, and the ratio of each pair as its median and spread."""
    ratios = [a / b for a, b in zip(one, two, strict=True)]
    return (
        f"| {name} | {statistics.median(one):.2f} | {statistics.median(two):.2f} "
        f"| **{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) |"
    )


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="make bench-workers", description=__doc__)
    parser.add_argument("corpus", type=Path, help="a file of labelled messages, such as SMSSpamCollection")
    parser.add_argument("--pairs", type=int, default=3, help="times that each pair is measured (default: 3)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs for the workers (default: 4)")
    options = parser.parse_args()
    corpus = ("--corpus-source", "file", "--corpus-path", str(options.corpus.resolve()))
    print(
        "| seconds of an epoch | one worker | two workers | times as fast |\n| --- | ---: | ---: | ---: |", flush=True
    )
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        prepared = scratch / "prepared"
        prepared.mkdir()
        wait(start(prepared, [0, 1], "BuildVocabulary", *corpus), prepared)
        for network, settings in NETWORKS.items():
            pairs = [
                [measure_epoch(prepared, scratch, (*corpus, *settings), n, options.epochs) for n in (1, 2)]
                for _ in range(options.pairs)
            ]
            print(format_row(f"network {network}", *map(list, zip(*pairs, strict=True))), flush=True)


if __name__ == "__main__":
    main()
