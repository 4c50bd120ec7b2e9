"""`make bench`: how fast a night is beside what it could be and what people write, every pair in turn within one run.

Writes docs/performance.md with its charts; `--quick` prints the table alone, from less. Each figure is of a process of
its own; times are medians. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from document import table, write_document
from measure import Bench

PROJECT = Path(__file__).parents[2]


def main() -> None:
    """Measures, prints the table, writes the document."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("corpus", type=Path, help="file SMSSpamCollection")
    parser.add_argument("--quick", action="store_true", help="from less, in under three minutes")
    parser.add_argument("--runs", type=int, default=5, help="runs of each figure")
    parser.add_argument("--most", type=int, default=10_000_000, help="messages of the largest batch")
    parser.add_argument("--folder", type=Path, help="folder to work in, kept; a temporary one if not given")
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
