"""Compares the network with the classical models on the SMS Spam Collection and writes docs/quality.md.

make quality CORPUS=path/to/SMSSpamCollection
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# A process computes one model on one thread: two of them keep two cores busier than one with two threads.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from baselines import BASELINES
from comparison import NETWORK, answer, gather, messages_of_today, places_of
from document import write_document
from protocol import read_corpus


def main() -> None:
    """Trains everything, prints a line a model, writes the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="the file SMSSpamCollection")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the network (default: 0 1 2)")
    parser.add_argument("--jobs", type=int, default=2, help="models trained at the same time (default: 2)")
    parser.add_argument("--change", action="append", default=[], metavar="SECTION.KEY=VALUE", help="another setting")
    parser.add_argument("--write", type=Path, default=Path("docs/quality.md"), help="the document to write")
    options = parser.parse_args()
    if not options.corpus.is_file():
        sys.exit(
            f"quality: {options.corpus}: no such file. Expected the file SMSSpamCollection of the SMS Spam Collection "
            "(UCI Machine Learning Repository): make quality CORPUS=path/to/SMSSpamCollection"
        )
    changes: dict[str, dict[str, Any]] = {}
    for change in options.change:
        place, _, value = change.partition("=")
        section, _, key = place.partition(".")
        changes.setdefault(section, {})[key] = json.loads(value)
    corpus = read_corpus(options.corpus)
    distinct = corpus.distinct()
    runs = [(name, 0) for name in BASELINES] + [(NETWORK, seed) for seed in options.seeds]
    jobs = [(*run, place, str(options.corpus), changes) for run in runs for place in places_of(*run)]
    said: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for one in pool.map(answer, jobs):
            name, seed, place, *_ = one["job"]
            said.setdefault((name, seed), []).append(one)
            where = f"fold {place + 1}" if isinstance(place, int) else place
            print(f"{name}, seed {seed}, {where}: done", flush=True)
    answers = {run: gather(said[run], len(distinct.labels)) for run in runs}
    write_document(options.write, corpus, distinct, answers, messages_of_today(), changes)
    print(options.write.read_text(encoding="utf-8").split("## How")[0])


if __name__ == "__main__":
    main()
