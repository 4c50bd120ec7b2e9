"""`make bench-serve`: measures how fast the model answers online, each figure against its aim.

Prints a Markdown table. Runs alternate between what is compared, so the ratios are the figures to read. Run it on an
otherwise idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import in_process
from bench import Bench, table

# Each returns rows of the table.
ROWS = (in_process.rows,)


def main() -> None:
    """Trains a model if the folder has none, and prints the table."""
    parser = argparse.ArgumentParser(prog="make bench-serve", description=__doc__)
    parser.add_argument("corpus", type=Path, help="file SMSSpamCollection")
    parser.add_argument("--runs", type=int, default=5, help="number of runs for each figure")
    parser.add_argument("--folder", type=Path, help="working folder, not deleted; a temporary folder if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench((options.folder or Path(scratch)).resolve(), options.corpus.resolve(), options.runs)
        bench.prepare()
        print("\n".join(table([row for rows in ROWS for row in rows(bench)])))


if __name__ == "__main__":
    main()
