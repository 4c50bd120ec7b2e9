"""Trains and evaluates one model of the comparison on each split, and collects the scores."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from baselines import Baseline
from others import find_chat, read_others
from protocol import (
    ATTACKS,
    FOLDS,
    KINDS,
    Corpus,
    FloatArray,
    IntArray,
    read_corpus,
    split_almeida,
    split_folds,
    split_without_kind,
)

HERE = Path(__file__).resolve().parent
NETWORK = "the network"
ALMEIDA, OTHERS = "Almeida", "messages of other people"
# A split is the number of a fold, Almeida's split, the whole corpus with messages of other people to test, or a kind of
# spam that is left out of training.
Split = int | str
Job = tuple[str, int, Split, str, str, dict[str, Any]]


@dataclass
class ModelScores:
    """The scores of one model. Probabilities are float64.

    Attributes:
        clean: out-of-fold probabilities of the corpus.
        attacked: out-of-fold probabilities of the corpus under each attack.
        recent: probabilities of the recent messages, by the model of each fold.
        almeida: probabilities of Almeida's test part.
        flagged: out-of-fold verdicts at the threshold fitted to the training messages, 0 or 1; only for the network.
        kinds: labels and probabilities for each kind of spam that was left out of training.
        others: probabilities of the messages of other people, by set.
        others_flagged: share of their chat that is flagged at the threshold fitted to the training messages.
        seconds: training time of each fold; only for the network.
    """

    clean: FloatArray
    attacked: dict[str, FloatArray]
    recent: list[FloatArray] = field(default_factory=list)
    almeida: FloatArray = field(default_factory=lambda: np.zeros(0))
    flagged: FloatArray = field(default_factory=lambda: np.zeros(0))
    kinds: dict[str, tuple[IntArray, FloatArray]] = field(default_factory=dict)
    others: dict[str, FloatArray] = field(default_factory=dict)
    others_flagged: float = 0.0
    seconds: list[float] = field(default_factory=list)


def list_splits(name: str, seed: int, with_others: bool) -> list[Split]:
    """Lists the splits for a model. For the network, kinds are left out only with seed 0."""
    kinds = KINDS if name != NETWORK or seed == 0 else ()
    return [*range(FOLDS), ALMEIDA, *([OTHERS] if with_others else ()), *kinds]


def evaluate_model(job: Job) -> dict[str, Any]:
    """Trains one model on one split and returns its scores."""
    name, seed, split, path, others, changes = job
    corpus = read_corpus(Path(path))
    if split != ALMEIDA:
        corpus = corpus.without_duplicates()
    if split == OTHERS:
        return {"job": job, **_score_others(train_model(name, corpus, seed, changes), read_others(Path(others)))}
    if split == ALMEIDA:
        training_rows, rows = split_almeida(corpus)
    elif isinstance(split, int):
        training_rows, rows = list(split_folds(corpus))[split]
    else:
        training_rows, rows = split_without_kind(corpus, split)
        # Only the ranking is used, not the probabilities, so no calibration is needed.
        changes = {**changes, "training": {**changes.get("training", {}), "held_out_folds": 0}}
    test = corpus.select(rows)
    model = train_model(name, corpus.select(training_rows), seed, changes)
    scores: dict[str, Any] = {
        "job": job,
        "rows": rows,
        "labels": test.labels,
        "clean": model.probabilities(test.texts),
    }
    if isinstance(split, int):
        scores["attacked"] = {
            attack: model.probabilities([rewrite(text) for text in test.texts]) for attack, rewrite in ATTACKS.items()
        }
        scores["recent"] = model.probabilities([row["text"] for row in read_recent_messages()])
        if name == NETWORK:
            scores["flagged"] = (scores["clean"] >= model.threshold).astype(float)
            scores["seconds"] = model.seconds
    return scores


def _score_others(model: Any, sets: dict[str, Corpus]) -> dict[str, Any]:
    probabilities = {name: model.probabilities(messages.texts) for name, messages in sets.items()}
    threshold = getattr(model, "threshold", 1.0)  # only the network has one
    return {"others": probabilities, "others_flagged": float((probabilities[find_chat(sets)] >= threshold).mean())}


def train_model(name: str, training: Corpus, seed: int, changes: dict[str, Any]) -> Any:
    """Trains a model by name and returns it."""
    if name != NETWORK:
        return Baseline(name, training)
    logging.disable(logging.WARNING)
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() != 1:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    from network import Network

    return Network(training, seed, changes)


def read_recent_messages() -> list[dict[str, str]]:
    """Reads the recent messages, which were written for this comparison: label, kind, text."""
    with (HERE / "messages_of_today.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def collect_scores(results: list[dict[str, Any]], messages: int) -> ModelScores:
    """Collects the scores of one model on all splits."""
    scores = ModelScores(
        np.zeros(messages), {attack: np.zeros(messages) for attack in ATTACKS}, flagged=np.zeros(messages)
    )
    for result in results:
        split = result["job"][2]
        if split == OTHERS:
            scores.others, scores.others_flagged = result["others"], result["others_flagged"]
            continue
        rows = result["rows"]
        if split == ALMEIDA:
            scores.almeida = result["clean"]
        elif split in KINDS:
            scores.kinds[split] = result["labels"], result["clean"]
        else:
            scores.clean[rows] = result["clean"]
            for attack, probabilities in result["attacked"].items():
                scores.attacked[attack][rows] = probabilities
            scores.recent.append(result["recent"])
        if "seconds" in result:
            scores.flagged[rows] = result["flagged"]
            scores.seconds.append(result["seconds"])
    return scores
