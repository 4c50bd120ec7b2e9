"""Trains one model of the comparison and asks it everything; puts the answers of all together."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from baselines import Baseline
from protocol import ATTACKS, FOLDS, KINDS, Corpus, FloatArray, IntArray, almeida, folds, read_corpus, without_kind

HERE = Path(__file__).resolve().parent
NETWORK = "the network"


ALMEIDA = "Almeida"
# A place is a fold by its number, Almeida's split, or a kind of spam that is left out of training.
Place = int | str
Job = tuple[str, int, Place, str, dict[str, Any]]


@dataclass
class Answers:
    """What one model said, probabilities float64.

    Attributes:
        clean: of the corpus, out of fold.
        attacked: of the same under each attack.
        today: of the messages of today, by the model of each fold.
        almeida: of Almeida's test part.
        flagged: whether the threshold found with the training messages flags, out of fold, 0 or 1; the network's alone.
        kinds: labels and probabilities where a kind was left out.
        seconds: that training took, a fold each; the network's alone.
    """

    clean: FloatArray
    attacked: dict[str, FloatArray]
    today: list[FloatArray] = field(default_factory=list)
    almeida: FloatArray = field(default_factory=lambda: np.zeros(0))
    flagged: FloatArray = field(default_factory=lambda: np.zeros(0))
    kinds: dict[str, tuple[IntArray, FloatArray]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)


def places_of(name: str, seed: int) -> list[Place]:
    """Where a model is tried; kinds are left out with one seed alone."""
    return [*range(FOLDS), ALMEIDA, *(KINDS if name != NETWORK or seed == 0 else ())]


def answer(job: Job) -> dict[str, Any]:
    """Trains one model at one place, and asks it everything."""
    name, seed, place, path, changes = job
    whole = read_corpus(Path(path))
    corpus = whole if place == ALMEIDA else whole.distinct()
    if place == ALMEIDA:
        rest, rows = almeida(corpus)
    elif isinstance(place, int):
        rest, rows = list(folds(corpus))[place]
    else:
        rest, rows = without_kind(corpus, place)
        # Its ranking is asked for, not its probabilities.
        changes = {**changes, "training": {**changes.get("training", {}), "held_out_folds": 0}}
    test = corpus.at(rows)
    model = trained(name, corpus.at(rest), seed, changes)
    said: dict[str, Any] = {"job": job, "rows": rows, "labels": test.labels, "clean": model.probabilities(test.texts)}
    if isinstance(place, int):
        said["attacked"] = {
            attack: model.probabilities([rewrite(text) for text in test.texts]) for attack, rewrite in ATTACKS.items()
        }
        said["today"] = model.probabilities([row["text"] for row in messages_of_today()])
        if name == NETWORK:
            said["flagged"] = (said["clean"] >= model.threshold).astype(float)
            said["seconds"] = model.seconds
    return said


def trained(name: str, training: Corpus, seed: int, changes: dict[str, Any]) -> Any:
    """A model by name."""
    if name != NETWORK:
        return Baseline(name, training)
    logging.disable(logging.WARNING)
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() != 1:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    from network import Network

    return Network(training, seed, changes)


def messages_of_today() -> list[dict[str, str]]:
    """Messages as they are written today, made up for this comparison: label, kind, text."""
    with (HERE / "messages_of_today.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def gather(said: list[dict[str, Any]], messages: int) -> Answers:
    """Puts what one model said at all places together."""
    answers = Answers(
        np.zeros(messages), {attack: np.zeros(messages) for attack in ATTACKS}, flagged=np.zeros(messages)
    )
    for one in said:
        place, rows = one["job"][2], one["rows"]
        if place == ALMEIDA:
            answers.almeida = one["clean"]
        elif place in KINDS:
            answers.kinds[place] = one["labels"], one["clean"]
        else:
            answers.clean[rows] = one["clean"]
            for attack, probabilities in one["attacked"].items():
                answers.attacked[attack][rows] = probabilities
            answers.today.append(one["today"])
        if "seconds" in one:
            answers.flagged[rows] = one["flagged"]
            answers.seconds.append(one["seconds"])
    return answers
