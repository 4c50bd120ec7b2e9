"""`make bench-spark`: measures scoring on a Spark cluster of this machine, each figure against its target.

Prints a Markdown table. A standalone master, two workers of one core each and a PostgreSQL server run on this machine,
so they share its cores with the driver. Runs alternate between what is compared, so the ratios are the figures to read.
Run it on an otherwise idle machine with Java.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cluster import postgresql_on_port
from document import table
from measure import Bench
from rows import SparkBench
from spark_cluster import spark_cluster


def main() -> None:
    """Trains a model if the folder has none, and prints the table."""
    parser = argparse.ArgumentParser(prog="make bench-spark", description=__doc__)
    parser.add_argument("corpus", type=Path, help="file SMSSpamCollection")
    parser.add_argument("--runs", type=int, default=3, help="number of runs for each figure")
    parser.add_argument("--messages", type=int, default=1_000_000, help="messages of a batch")
    parser.add_argument("--max-messages", type=int, default=10_000_000, help="messages of the largest batch")
    parser.add_argument("--folder", type=Path, help="working folder, not deleted; a temporary folder if not given")
    parser.add_argument("--driver", default="/usr/share/java/postgresql.jar", help="JDBC driver of PostgreSQL")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[1:])
    with tempfile.TemporaryDirectory() as scratch, spark_cluster() as cluster, postgresql_on_port() as url:
        bench = Bench(
            (options.folder or Path(scratch)).resolve(), options.corpus.resolve(), options.runs, options.max_messages
        )
        bench.prepare()
        for number, worker in enumerate(cluster.workers):
            # What a worker starts stays on its core: an executor has threads that read and write beside its scoring.
            core = sorted(os.sched_getaffinity(0))[number]
            subprocess.run(["taskset", "-acp", str(core), str(worker.process.pid)], check=True, capture_output=True)  # noqa: S603, S607
        spark = SparkBench(bench, cluster.url, url, options.messages, options.driver)
        rows = spark.rows()
        print("\n".join([*table(rows), "", *spark.other_figures()]))


if __name__ == "__main__":
    main()
