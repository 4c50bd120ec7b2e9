"""A trained model on disk: its checkpoints, its vocabulary, its calibration, and the description that holds them
together; beside them what is said of messages that were not trained on, which a threshold is found with.

A scorer loads it from here; parts that do not belong together are refused by their fingerprints.
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
from models.training.checkpoints import restore_latest, weights_sha256
from models.training.epoch_limit import EpochLimit
from models.training.loop import CHECKPOINTS, LabelledMessages, Trained

DESCRIPTION, VOCABULARY = "model.json", "vocabulary.json"


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, the vocabulary it was trained with, and the checkpoint the weights came from.

    The weights are those of the checkpoint, and in the last layers the calibration: the logits are calibrated.
    """

    network: keras.Model
    vocabulary: Vocabulary
    checkpoint: str
    description: dict[str, Any]


def describe_trained(
    trained: Trained,
    vocabulary: Vocabulary,
    settings: NetworkSettings,
    unseen: UnseenScores,
    folder: Path,
    limit: EpochLimit | None = None,
) -> dict[str, Any]:
    """Calibrates, writes what belongs to the checkpoints beside them; gives the description.

    Of a training that a person stopped early by way of the limit it has `stopped_after_epoch`.

    `unseen_scores.parquet` has a row for each message that the logits it holds were not trained on, in their order:
    `spam`, bool; `logit`, float32, as trained; `probability`, float64, calibrated. With it a threshold for any share of
    ham is found without scoring anything again.
    """
    calibration = fit_calibration(unseen.logits, unseen.labels)
    _write_unseen_scores(folder / UNSEEN_SCORES, unseen, calibration)
    save_vocabulary(vocabulary, folder / VOCABULARY)
    description = {
        "network": dataclasses.asdict(settings),
        "vocabulary_sha256": vocabulary.sha256(),
        "vocabulary_size": len(vocabulary),
        "checkpoint": trained.checkpoint,
        "weights_sha256": weights_sha256(trained.network),
        "calibration": dataclasses.asdict(calibration),
        "parameters": trained.network.count_params(),
        "best_epoch": trained.best_epoch,
        "epochs": len(trained.history),
    }
    if limit and limit.epoch:
        description["stopped_after_epoch"] = limit.epoch
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    return description


@dataclass(frozen=True)
class UnseenScores:
    """Logits, float32 [messages], of networks that were not trained on the messages, and their labels, int32."""

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]


def unseen_scores(
    trained: Trained,
    vocabulary: Vocabulary,
    settings: NetworkSettings,
    validation: LabelledMessages,
    held_out: tuple[npt.NDArray[np.float32], LabelledMessages] | None,
) -> UnseenScores:
    """What the network says of the validation part, before it what others of its make say of the training part.

    Args:
        trained: the network, as trained.
        vocabulary: what the messages are encoded with.
        settings: the network's make.
        validation: messages that early stopping looked at.
        held_out: logits of `models.training.loop.held_out_logits`, and the messages they are of.
    """
    encoder = TextEncoder(vocabulary, settings.ngram_buckets)
    logits = network_logits(trained.network, encode_messages(encoder, validation.texts))
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
    calibrate(network, Calibration(**description["calibration"]))
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
    except (ValueError, TypeError, RecursionError, SettingsError) as error:
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
    # A model of before there was calibration has none, and its logits are taken as they are.
    calibration = description.get("calibration", dataclasses.asdict(Calibration()))
    Calibration(**calibration)
    return {**description, "calibration": calibration}


def _require(folder: Path, part: str, expected: str, received: str) -> None:
    if expected != received:
        raise ArtifactError(
            f"{folder}: the {part} does not belong to {DESCRIPTION}: expected SHA-256 {expected[:16]}…, received "
            f"{received[:16]}…. Restore the file, or delete the folder and run TrainModel again."
        )
