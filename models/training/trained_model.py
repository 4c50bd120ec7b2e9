"""Writes and loads a trained model: checkpoints, vocabulary, calibration and the description that connects them.

The folder also has the held-out scores: those of messages that were not trained on, which a threshold is found with. A
scorer loads the model from here. Parts that do not belong together are refused by their fingerprints.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.errors import ArtifactError, SettingsError
from models.inference.scorer import network_logits
from models.network.network import build_network, calibrate
from models.settings import NetworkSettings
from models.statistics.calibration import UNSEEN_SCORES, Calibration, fit_calibration, to_probabilities
from models.text.encoder import TextEncoder, encode_messages
from models.text.vocabulary import Vocabulary, load_vocabulary, save_vocabulary
from models.training.checkpoints import restore_checkpoint, restore_latest_checkpoint, weights_sha256
from models.training.epoch_limit import EpochLimit
from models.training.loop import CHECKPOINTS, LabelledMessages, TrainingResult
from models.training.warm_start import WarmStart

DESCRIPTION, VOCABULARY = "model.json", "vocabulary.json"


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, the vocabulary it was trained with, and the checkpoint the weights came from.

    Unless it was loaded as raw, the last layers contain the calibration: the logits are calibrated.
    """

    network: keras.Model
    vocabulary: Vocabulary
    checkpoint: str
    description: dict[str, Any]


def write_trained_model(
    result: TrainingResult,
    vocabulary: Vocabulary,
    settings: NetworkSettings,
    unseen: UnseenScores,
    folder: Path,
    limit: EpochLimit | None = None,
    start: WarmStart | None = None,
) -> dict[str, Any]:
    """Fits the calibration, and writes the vocabulary, the held-out scores and the description next to the checkpoints.

    `unseen_scores.parquet` has one row for each message of the held-out scores, in their order: `spam`, bool; `logit`,
    float32, uncalibrated; `probability`, float64, calibrated. With it, a threshold for any share of ham can be found
    without scoring the messages again.

    Args:
        result: the training run.
        vocabulary: the vocabulary of the training.
        settings: the architecture of the network.
        unseen: the held-out scores.
        folder: the folder of the training.
        limit: the limit of the training. If a person stopped it early, the description has `stopped_after_epoch`.
        start: what the training started from, for the key `start`; None for fresh weights.

    Returns:
        The description, as written to ``model.json``.
    """
    calibration = fit_calibration(unseen.logits, unseen.labels)
    _write_unseen_scores(folder / UNSEEN_SCORES, unseen, calibration)
    save_vocabulary(vocabulary, folder / VOCABULARY)
    description = {
        "network": dataclasses.asdict(settings),
        "vocabulary_sha256": vocabulary.sha256(),
        "vocabulary_size": len(vocabulary),
        "checkpoint": result.checkpoint,
        "weights_sha256": weights_sha256(result.network),
        "calibration": dataclasses.asdict(calibration),
        "parameters": result.network.count_params(),
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
    }
    if limit and limit.epoch:
        description["stopped_after_epoch"] = limit.epoch
    if start:
        description["start"] = start.record()
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    return description


@dataclass(frozen=True)
class UnseenScores:
    """Held-out scores: logits of networks that were not trained on the messages, and the labels.

    Attributes:
        logits: float32 [messages], uncalibrated.
        labels: int32 [messages]; 1 is spam.
    """

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]


def collect_unseen_scores(
    result: TrainingResult,
    vocabulary: Vocabulary,
    settings: NetworkSettings,
    validation: LabelledMessages,
    held_out: tuple[npt.NDArray[np.float32], LabelledMessages] | None,
) -> UnseenScores:
    """Returns the held-out scores: first those of the held-out folds, then those of the validation part.

    Args:
        result: the training run, whose network scores the validation part.
        vocabulary: the vocabulary for encoding the messages.
        settings: the architecture of the network.
        validation: messages that early stopping used.
        held_out: logits of `models.training.held_out.compute_held_out_logits`, and their messages; None without folds.
    """
    encoder = TextEncoder(vocabulary, settings.ngram_buckets)
    logits = network_logits(result.network, encode_messages(encoder, validation.texts))
    if held_out is None:
        return UnseenScores(logits, validation.labels)
    return UnseenScores(np.concatenate([held_out[0], logits]), np.concatenate([held_out[1].labels, validation.labels]))


def _write_unseen_scores(path: Path, unseen: UnseenScores, calibration: Calibration) -> None:
    import pandas as pd

    columns = {
        "spam": unseen.labels.astype(np.bool_),
        "logit": unseen.logits,
        "probability": to_probabilities(calibration.apply(unseen.logits)),
    }
    pd.DataFrame(columns).to_parquet(path, index=False)


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
    description = _read_description(folder / DESCRIPTION)
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


def _read_description(path: Path) -> dict[str, Any]:
    try:
        return _validate_description(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: no such file, so the folder has no trained model. Run TrainModel again."
        ) from None
    except (ValueError, TypeError, RecursionError, SettingsError) as error:
        raise ArtifactError(
            f"{path}: expected a description of a trained model, but {error}. "
            "Delete its folder and run TrainModel again."
        ) from None


def _validate_description(description: Any) -> dict[str, Any]:
    """Checks that a description has the parts that loading needs.

    Raises:
        ValueError, TypeError: a part is missing or unknown.
    """
    for key in ("network", "vocabulary_sha256", "checkpoint", "weights_sha256"):
        if key not in description:
            raise ValueError(f"it has no {key}")
        if key != "network" and not isinstance(description[key], str):
            raise ValueError(f"its {key} is not text: {description[key]!r}")
    NetworkSettings(**description["network"])
    # A model trained before calibration existed has none. Its logits are used unchanged.
    calibration = description.get("calibration", dataclasses.asdict(Calibration()))
    Calibration(**calibration)
    return {**description, "calibration": calibration}


def _require_sha256(folder: Path, part: str, expected: str, received: str) -> None:
    if expected != received:
        raise ArtifactError(
            f"{folder}: the {part} does not belong to {DESCRIPTION}: expected SHA-256 {expected[:16]}…, received "
            f"{received[:16]}…. Restore the file, or delete the folder and run TrainModel again."
        )
