"""Loads the scorer and the threshold of a trained model, for the evaluation, batches and `spamscore text`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from models.settings import DeviceSettings
from tasks.artifacts.folders import list_manifest_files
from tasks.artifacts.trainings import load_trained_model, read_unseen_scores
from tasks.settings.loading import load
from tasks.settings.scoring import AUTO, ScoringSettings

if TYPE_CHECKING:
    from models.inference.scorer import Scorer
    from models.statistics.calibration import Threshold

log = logging.getLogger("spamscore")


def load_scorer(training: Path, checkpoint: str | None = None) -> tuple[Scorer, str]:
    """Loads the weights of a training, calibrated, on the chosen devices.

    Args:
        training: the folder of the training.
        checkpoint: the checkpoint whose weights are loaded; by default, the final weights of the training.

    Returns:
        The scorer, and the name of the checkpoint that the weights were read from.

    Raises:
        ArtifactError: the training is missing or damaged, or there is no such checkpoint.
        DeviceError: a chosen device is not available.
    """
    return create_scorer(training, checkpoint, load(DeviceSettings), load(ScoringSettings).batch_size)


def create_scorer(
    training: Path, checkpoint: str | None, device_settings: DeviceSettings, batch_size: int | str
) -> tuple[Scorer, str]:
    """Does what `load_scorer` does, with devices and batch size given instead of set.

    Raises:
        ArtifactError: the training is missing or damaged, or there is no such checkpoint.
        DeviceError: a chosen device is not available.
    """
    from models.inference.scorer import Scorer
    from models.network.devices import select_devices
    from models.network.network import ngram_vectors
    from models.text.encoder import TextEncoder

    devices = select_devices(device_settings)
    model = load_trained_model(training, checkpoint)
    encoder = TextEncoder(model.vocabulary, ngram_vectors(model.network))
    return Scorer(encoder, model.network, devices, batch_size), model.checkpoint


def load_threshold(training: Path) -> Threshold:
    """Returns the probability from which the model of a training flags a message: [scoring] threshold, or that of auto.

    auto computes the threshold from the held-out scores of the training, for any share of ham, and scores nothing. A
    model without held-out scores, trained by an older version, gets the threshold 0.5 with a warning.

    Raises:
        ArtifactError: the training is missing or damaged.
    """
    from models.statistics.calibration import UNFITTED_THRESHOLD, UNSEEN_SCORES, Threshold, find_threshold

    settings = load(ScoringSettings)
    if settings.threshold != AUTO:
        return Threshold(float(settings.threshold))
    if UNSEEN_SCORES not in list_manifest_files(training):
        log.warning("%s: trained before threshold = auto existed, so its threshold is %g", training, UNFITTED_THRESHOLD)
        return Threshold(UNFITTED_THRESHOLD)
    scores = read_unseen_scores(training)
    return find_threshold(scores["spam"], scores["probability"], settings.ham_blocked_share)
