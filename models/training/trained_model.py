"""Loads a trained model from checkpoints, vocabulary, calibration and the description that connects them.

Parts that do not belong together are refused by their fingerprints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from models.errors import ArtifactError
from models.network.network import build_network, calibrate
from models.settings import NetworkSettings
from models.statistics.calibration import Calibration
from models.text.vocabulary import Vocabulary, load_vocabulary
from models.training.checkpoints import restore_latest_checkpoint, weights_sha256
from models.training.loop import CHECKPOINTS
from models.training.model_description import DESCRIPTION, VOCABULARY, read_description


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, the vocabulary it was trained with, and the checkpoint the weights came from.

    The weights are those of the checkpoint, and in the last layers the calibration: the logits are calibrated.
    """

    network: keras.Model
    vocabulary: Vocabulary
    checkpoint: str
    description: dict[str, Any]


def load_trained_model(folder: Path) -> TrainedModel:
    """Loads a trained model from the latest checkpoint that has the final weights of the training.

    The last checkpoint has them, and every checkpoint since the best epoch has them as the best weights so far. If the
    last checkpoint is damaged, the one before it gives the same weights, bit by bit.

    Raises:
        ArtifactError: a part is missing or damaged, or the vocabulary, description and checkpoint do not belong
            together.
    """
    description = read_description(folder / DESCRIPTION)
    vocabulary = load_vocabulary(folder / VOCABULARY)
    _require_sha256(folder, "vocabulary", description["vocabulary_sha256"], vocabulary.sha256())
    network = build_network(NetworkSettings(**description["network"]), len(vocabulary))
    # The best weights so far, not those of the step at which it was saved, which differ in all but the last checkpoint.
    best = tf.train.Checkpoint(best_weights=[weight.value for weight in network.weights])
    checkpoint = restore_latest_checkpoint(
        tf.train.Checkpoint(run=best),
        folder / CHECKPOINTS,
        partial=True,
        latest=description["checkpoint"],
        find_mismatch=lambda: _find_mismatch(network, description["weights_sha256"]),
    )
    calibrate(network, Calibration(**description["calibration"]))
    return TrainedModel(network, vocabulary, str(checkpoint), description)


def _find_mismatch(network: keras.Model, expected: str) -> str | None:
    received = weights_sha256(network)
    if received == expected:
        return None
    return f"not the one of {DESCRIPTION} (expected weights of SHA-256 {expected[:16]}…, received {received[:16]}…)"


def _require_sha256(folder: Path, part: str, expected: str, received: str) -> None:
    if expected != received:
        raise ArtifactError(
            f"{folder}: the {part} does not belong to {DESCRIPTION}: expected SHA-256 {expected[:16]}…, received "
            f"{received[:16]}…. Restore the file, or delete the folder and run TrainModel again."
        )
