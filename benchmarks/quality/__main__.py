"""Compares the network with classical models on the SMS Spam Collection and writes docs/quality.md.

make quality CORPUS=path/to/SMSSpamCollection [OTHERS=folder/of/messages/of/other/people]
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

# Each process trains one model on one thread: two processes use two cores better than one process with two threads.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from baselines import BASELINES
from comparison import NETWORK, collect_scores, evaluate_model, list_splits, read_recent_messages
from document import Messages, write_document
from others import read_others
from protocol import Corpus, read_corpus


def main() -> None:
    """Trains all models, prints a line for each split, and writes the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="the file SMSSpamCollection")
    parser.add_argument("--others", type=Path, help="folder of *.tsv files with messages of other people")
    parser.add_argument(
        "--nights", type=int, default=5, help="repetitions of learning from the nights, with --others (default: 5)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the network (default: 0 1 2)")
    parser.add_argument("--jobs", type=int, default=2, help="models trained at the same time (default: 2)")
    parser.add_argument(
        "--change", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a setting; the value is JSON"
    )
    parser.add_argument(
        "--write", type=Path, default=Path("docs/quality.md"), help="file to write (default: docs/quality.md)"
    )
    options = parser.parse_args()
    if not options.corpus.is_file():
        sys.exit(
            f"quality: {options.corpus}: no such file. Expected the file SMSSpamCollection of the SMS Spam Collection "
            "(UCI Machine Learning Repository): make quality CORPUS=path/to/SMSSpamCollection"
        )
    try:
        others = read_others(options.others) if options.others else {}
    except (OSError, ValueError) as error:
        sys.exit(f"quality: {options.others}: {error}")
    changes: dict[str, dict[str, Any]] = {}
    for change in options.change:
        name, _, value = change.partition("=")
        section, _, key = name.partition(".")
        changes.setdefault(section, {})[key] = json.loads(value)
    corpus = read_corpus(options.corpus)
    distinct = corpus.without_duplicates()
    runs = [(name, 0) for name in BASELINES] + [(NETWORK, seed) for seed in options.seeds]
    jobs = [
        (name, seed, split, str(options.corpus), str(options.others), changes)
        for name, seed in runs
        for split in list_splits(name, seed, bool(others))
    ]
    results: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for result in pool.map(evaluate_model, jobs):
            name, seed, split, *_ = result["job"]
            results.setdefault((name, seed), []).append(result)
            split_name = f"fold {split + 1}" if isinstance(split, int) else split
            print(f"{name}, seed {seed}, {split_name}: done", flush=True)
    scores = {run: collect_scores(results[run], len(distinct.labels)) for run in runs}
    messages = Messages(corpus, distinct, read_recent_messages(), others)
    nights = describe_nights(corpus, options.others, options.nights) if others and options.nights else ""
    write_document(options.write, messages, scores, changes, nights)
    print(options.write.read_text(encoding="utf-8").split("## How")[0])


def describe_nights(corpus: Corpus, others: Path, repetitions: int) -> str:
    """Measures learning from the nights, and returns the section of the document."""
    from nights import describe_folds, describe_rows, measure_folds, measure_nights

    rows = list(measure_nights(corpus, others, range(repetitions)))
    folds = describe_folds(*measure_folds(corpus, others))
    return "\n".join(["## Learning from the nights", "", *describe_rows(rows), folds, ""])


if __name__ == "__main__":
    main()
