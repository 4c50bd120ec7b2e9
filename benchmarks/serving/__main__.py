"""`make bench-serve`: measures how fast the model answers online, each figure against its aim.

Prints a Markdown table. Runs alternate between what is compared, so the ratios are the figures to read. Run it on an
otherwise idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import in_process
from bench import BIN, Bench, Row, table
from front_end import FrontEndBench


def main() -> None:
    """Trains a model if the folder has none, and prints the table."""
    parser = argparse.ArgumentParser(prog="make bench-serve", description=__doc__)
    parser.add_argument("corpus", type=Path, help="file SMSSpamCollection")
    parser.add_argument("--runs", type=int, default=5, help="number of runs for each figure")
    parser.add_argument("--folder", type=Path, help="working folder, not deleted; a temporary folder if not given")
    parser.add_argument("--minutes", type=float, default=10, help="time under load while the version changes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench((options.folder or Path(scratch)).resolve(), options.corpus.resolve(), options.runs)
        bench.prepare()
        rows = [*in_process.rows(bench), *FrontEndBench(bench).rows(), *change_versions(bench, options.minutes)]
        print("\n".join(table(rows)))


def change_versions(bench: Bench, minutes: float) -> list[Row]:
    """Exports a second version, trained for one epoch, and changes between the two under load."""
    quick = ("--training-epochs", "1", "--training-held-out-folds", "0")
    allowances = ("pr-auc-allowance", "recall-allowance", "calibration-allowance", "flip-budget")
    any_quality = [word for name in allowances for word in (f"--gate-{name}", "1")]
    if len(list(bench.folder.glob("artifacts/exports/*/*/saved_model.pb"))) == 1:
        bench.run([str(BIN / "luigi"), "--module", "pipeline", "ExportModel", *quick, *any_quality])
    return FrontEndBench(bench).soak(minutes)


if __name__ == "__main__":
    main()
