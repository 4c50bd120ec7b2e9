"""`make bench`: compares the speed of a nightly batch with baselines, alternating between the two within one run.

Writes docs/performance.md with its charts; `--quick` only prints the table, from fewer messages. Each figure is
measured in its own process; times are medians. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from document import table, write_document
from measure import Bench

PROJECT = Path(__file__).parents[2]


def main() -> None:
    """Runs the benchmark, prints the table and writes the document."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("corpus", type=Path, help="file SMSSpamCollection")
    parser.add_argument("--quick", action="store_true", help="measure fewer messages, in under three minutes")
    parser.add_argument("--runs", type=int, default=5, help="number of runs for each figure")
    parser.add_argument("--most", type=int, default=10_000_000, help="number of messages in the largest batch")
    parser.add_argument("--folder", type=Path, help="working folder, not deleted; a temporary folder if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        bench = Bench(folder.resolve(), options.corpus.resolve(), options.runs, options.most)
        rows = bench.quick() if options.quick else bench.whole()
        print("\n".join(table(rows)))
        if not options.quick:
            write_document(PROJECT / "docs", rows, bench)


if __name__ == "__main__":
    main()
