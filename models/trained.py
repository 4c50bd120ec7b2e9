"""A trained model on disk: its checkpoints, its vocabulary, and the description that holds them together.

A scorer loads it from here; parts that do not belong together are refused by their fingerprints.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from models.checkpoints import restore_latest, weights_sha256
from models.errors import ArtifactError
from models.network import build_network
from models.settings import NetworkSettings
from models.training import CHECKPOINTS, Trained
from models.vocabulary import Vocabulary, load_vocabulary, save_vocabulary

DESCRIPTION, VOCABULARY = "model.json", "vocabulary.json"


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, the vocabulary it was trained with, and the checkpoint the weights came from."""

    network: keras.Model
    vocabulary: Vocabulary
    checkpoint: str
    description: dict[str, Any]


def describe_trained(
    trained: Trained, vocabulary: Vocabulary, settings: NetworkSettings, folder: Path
) -> dict[str, Any]:
    """Writes the vocabulary and the description beside the checkpoints; gives the description."""
    save_vocabulary(vocabulary, folder / VOCABULARY)
    description = {
        "network": dataclasses.asdict(settings),
        "vocabulary_sha256": vocabulary.sha256(),
        "vocabulary_size": len(vocabulary),
        "checkpoint": trained.checkpoint,
        "weights_sha256": weights_sha256(trained.network),
        "parameters": trained.network.count_params(),
        "best_epoch": trained.best_epoch,
        "epochs": len(trained.history),
    }
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    return description


def load_trained(folder: Path) -> TrainedModel:
    """Loads a trained model from the latest checkpoint that holds the weights which the training came to.

    They are in the last one, and as the best until then in those from the best epoch on: where the last is damaged,
    the one before gives the same weights, bit by bit.

    Raises:
        ArtifactError: a part is missing or damaged, or the vocabulary, description and checkpoint do not belong
            together.
    """
    description = _read_description(folder / DESCRIPTION)
    vocabulary = load_vocabulary(folder / VOCABULARY)
    _require(folder, "vocabulary", description["vocabulary_sha256"], vocabulary.sha256())
    network = build_network(NetworkSettings(**description["network"]), len(vocabulary))
    # Not the weights of the step it was saved at, which of any but the last are others, but the best until then.
    best = tf.train.Checkpoint(best_weights=[weight.value for weight in network.weights])
    checkpoint = restore_latest(
        tf.train.Checkpoint(run=best),
        folder / CHECKPOINTS,
        partial=True,
        latest=description["checkpoint"],
        misfit=lambda: _misfit(network, description["weights_sha256"]),
    )
    return TrainedModel(network, vocabulary, str(checkpoint), description)


def _misfit(network: keras.Model, expected: str) -> str | None:
    received = weights_sha256(network)
    if received == expected:
        return None
    return f"not that of {DESCRIPTION} (expected weights of SHA-256 {expected[:16]}…, received {received[:16]}…)"


def _read_description(path: Path) -> dict[str, Any]:
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: no such file, so the folder holds no trained model. Run TrainModel again."
        ) from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: expected a description of a trained model, but {error}. "
            "Delete its folder and run TrainModel again."
        ) from None


def _checked(description: Any) -> dict[str, Any]:
    """Holds a description to the parts that loading needs; ValueError or TypeError where one is missing or unknown."""
    for key in ("network", "vocabulary_sha256", "checkpoint", "weights_sha256"):
        if key not in description:
            raise ValueError(f"it has no {key}")
        if key != "network" and not isinstance(description[key], str):
            raise ValueError(f"its {key} is no text: {description[key]!r}")
    NetworkSettings(**description["network"])
    return dict(description)


def _require(folder: Path, part: str, expected: str, received: str) -> None:
    if expected != received:
        raise ArtifactError(
            f"{folder}: the {part} does not belong to {DESCRIPTION}: expected SHA-256 {expected[:16]}…, received "
            f"{received[:16]}…. Restore the file, or delete the folder and run TrainModel again."
        )
