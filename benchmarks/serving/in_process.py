"""Compares the packed scorer with the signature `predict_spam` of the SavedModel, in one process without any server.

Each run has a new scorer and another division of the corpus: one half warms the scorer, calls of the other half are
timed. So the messages of a call are new to the scorer, and so are some of their words. Every call is made to both, one
after the other. Each cold call is made to a new scorer, which has scored the four messages of its warm-up.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import Bench, Row

# Messages a call, number of calls in a run, number of cold calls in a run, and how many times as fast it should be.
SIZES = ((1, 400, 5, 1.0), (8, 25, 3, 1.0), (32, 10, 3, 1.0), (128, 5, 3, 1.0), (1000, 1, 1, 3.0))
MAX_MEDIAN_MS, MAX_SPREAD = 1.5, 3.0


def rows(bench: Bench) -> list[Row]:
    """Returns a row for each size, warm and cold, and the time of one message."""
    runs = [bench.job("in_process.py", bench.corpus, seed) for seed in range(bench.runs)]
    compared = [
        Row(
            f"packed scorer against the signature, {size:,} a call{suffix}: times as fast",
            [_median(run[kind][str(size)]["signature"]) / _median(run[kind][str(size)]["packed"]) for run in runs],
            aim, True,
        )
        for kind, suffix in (("warm", ""), ("cold", ", cold caches"))
        for size, _, _, aim in SIZES
    ]  # fmt: skip
    single = [run["warm"]["1"]["packed"] for run in runs]
    spread = [statistics.quantiles(seconds, n=100)[98] / _median(seconds) for seconds in single]
    return [
        *compared,
        Row("packed scorer, one message: median", [1e3 * _median(each) for each in single], MAX_MEDIAN_MS, False, "ms"),
        Row("packed scorer, one message: p99 against the median", spread, MAX_SPREAD, False),
    ]


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def measure(corpus: Path, seed: int) -> dict[str, dict[int, dict[str, list[float]]]]:
    """Times the calls of one run, in the folder of the model. Returns seconds by kind of call, size and callee."""
    from models.network.devices import start_tensorflow
    from models.settings import DeviceSettings

    start_tensorflow(DeviceSettings())
    import tensorflow as tf

    from tasks.scoring.scorer import load_scorer

    training = next(path.parent for path in Path().glob("artifacts/training/*/model.json"))
    exported = tf.saved_model.load(str(next(Path().glob("artifacts/exports/*/*/saved_model.pb")).parent))
    signature = exported.signatures["predict_spam"]

    def ask(texts: list[str]) -> Any:
        return signature(texts=tf.constant(texts))["scores"].numpy()

    messages = _distinct_messages(corpus)
    random.Random(seed).shuffle(messages)  # noqa: S311 - not used for security
    half = len(messages) // 2
    known, fresh = messages[:half], iter(messages[half:])

    def new_scorer() -> Any:
        scorer, _ = load_scorer(training)
        scorer.warm_up()
        return scorer

    scorer = new_scorer()
    for size, *_ in SIZES:
        for start in range(0, min(half, 5 * size), size):
            ask(known[start : start + size])
    for start in range(0, half, 500):
        scorer.score(known[start : start + 500])
    for text in known[:50]:
        scorer.score([f"{text} again"])
    warm = {size: _time_calls(calls, size, fresh, lambda: scorer.score, ask) for size, calls, *_ in SIZES}
    cold = {
        size: _time_calls(calls, size, iter(messages), lambda: new_scorer().score, ask) for size, _, calls, _ in SIZES
    }
    return {"warm": warm, "cold": cold}


def _distinct_messages(corpus: Path) -> list[str]:
    lines = corpus.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return list(dict.fromkeys(line.split("\t", 1)[1] for line in lines))


def _time_calls(
    calls: int, size: int, texts: Iterator[str], new_packed: Callable[[], Any], signature: Callable[[list[str]], Any]
) -> dict[str, list[float]]:
    """Times calls of both with the same messages, in turns."""
    seconds: dict[str, list[float]] = {"packed": [], "signature": []}
    for _ in range(calls):
        call = [next(texts) for _ in range(size)]
        for name, function in (("packed", new_packed()), ("signature", signature)):
            start = time.perf_counter()
            function(call)
            seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        figures = measure(Path(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps(figures))
