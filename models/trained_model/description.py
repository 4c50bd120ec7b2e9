"""Writes the description of a trained model, with its vocabulary and calibration, next to its checkpoints.

The folder also has the held-out scores: those of messages that were not trained on, which a threshold is found with.
Without TensorFlow, because the process that writes them may not have trained the network.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import ArtifactError, SettingsError
from models.settings import NetworkSettings
from models.statistics.calibration import UNSEEN_SCORES, Calibration, fit_calibration, to_probabilities
from models.text.vocabulary import Vocabulary, save_vocabulary
from models.training.epoch_limit import EpochLimit
from models.training.job import LabelledMessages, TrainingSummary
from models.training.warm_start import WarmStart

DESCRIPTION, VOCABULARY = "model.json", "vocabulary.json"


def write_trained_model(
    result: TrainingSummary,
    vocabulary: Vocabulary,
    settings: NetworkSettings,
    unseen: UnseenScores,
    folder: Path,
    limit: EpochLimit | None = None,
    start: WarmStart | None = None,
    self_training: Mapping[str, Any] | None = None,
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
        start: what the training started from, for the key `start`; None for random weights.
        self_training: facts on the messages that a teacher labelled, for the key `self_training`; None without any.

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
        "weights_sha256": result.weights_sha256,
        "calibration": dataclasses.asdict(calibration),
        "parameters": result.parameters,
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
    }
    if limit and limit.epoch:
        description["stopped_after_epoch"] = limit.epoch
    if start:
        description["start"] = start.record()
    if self_training:
        description["self_training"] = dict(self_training)
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
    result: TrainingSummary,
    validation: LabelledMessages,
    held_out: tuple[npt.NDArray[np.float32], LabelledMessages] | None,
) -> UnseenScores:
    """Returns the held-out scores: first those of the held-out folds, then those of the validation part.

    Args:
        result: the training run.
        validation: the validation part of the training run.
        held_out: logits of `models.training.held_out.compute_held_out_logits`, and their messages; None without folds.
    """
    if held_out is None:
        return UnseenScores(result.validation_logits, validation.labels)
    return UnseenScores(
        np.concatenate([held_out[0], result.validation_logits]), np.concatenate([held_out[1].labels, validation.labels])
    )


def _write_unseen_scores(path: Path, unseen: UnseenScores, calibration: Calibration) -> None:
    import pandas as pd

    columns = {
        "spam": unseen.labels.astype(np.bool_),
        "logit": unseen.logits,
        "probability": to_probabilities(calibration.apply(unseen.logits)),
    }
    pd.DataFrame(columns).to_parquet(path, index=False)


def read_description(path: Path) -> dict[str, Any]:
    """Reads and checks the description of a trained model.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
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
