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
from models.trained_model.description import DESCRIPTION, VOCABULARY, read_description
from models.training.checkpoints import CHECKPOINTS, restore_checkpoint, restore_latest_checkpoint, weights_sha256


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, the vocabulary it was trained with, and the checkpoint the weights came from.

    Unless it was loaded as raw, the last layers contain the calibration: the logits are calibrated.
    """

    network: keras.Model
    vocabulary: Vocabulary
    checkpoint: str
    description: dict[str, Any]


def load_trained_model(folder: Path, checkpoint: str | None = None, calibrated: bool = True) -> TrainedModel:
    """Loads a trained model, by default from the latest checkpoint that has the final weights of the training.

    The last checkpoint has them, and every checkpoint since the best epoch has them as the best weights so far. If the
    last checkpoint is damaged, the one before it gives the same weights, bit by bit.

    Args:
        folder: the folder of the training.
        checkpoint: name of a checkpoint. The weights are then those of the step at which it was written, not the best
            ones so far, and no other checkpoint is used in its place.
        calibrated: whether the calibration of the description is applied to the weights; it was fitted to the final
            ones. Without it, the weights are raw: those in the checkpoint, bit by bit.

    Raises:
        ArtifactError: a part is missing or damaged, the vocabulary, description and checkpoint do not belong together,
            or there is no such checkpoint.
    """
    description = read_description(folder / DESCRIPTION)
    vocabulary = load_vocabulary(folder / VOCABULARY)
    _require_sha256(folder, "vocabulary", description["vocabulary_sha256"], vocabulary.sha256())
    network = build_network(NetworkSettings(**description["network"]), len(vocabulary))
    if checkpoint is None:
        checkpoint = _restore_final_weights(network, folder, description)
    else:
        restore_checkpoint(tf.train.Checkpoint(model=network), folder / CHECKPOINTS, checkpoint)
    if calibrated:
        calibrate(network, Calibration(**description["calibration"]))
    return TrainedModel(network, vocabulary, checkpoint, description)


def _restore_final_weights(network: keras.Model, folder: Path, description: dict[str, Any]) -> str:
    # The best weights so far, not those of the step at which it was saved, which differ in all but the last checkpoint.
    best = tf.train.Checkpoint(best_weights=[weight.value for weight in network.weights])
    checkpoint = restore_latest_checkpoint(
        tf.train.Checkpoint(run=best),
        folder / CHECKPOINTS,
        partial=True,
        latest=description["checkpoint"],
        find_mismatch=lambda: _find_mismatch(network, description["weights_sha256"]),
    )
    return str(checkpoint)


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
