"""A trained model made ready to score, with the threshold it flags by: the one way that the evaluation, a batch and
`spamscore text` come by both.
"""

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


def load_scorer(training: Path) -> tuple[Scorer, str]:
    """The latest checkpoint of a training, calibrated, on the chosen devices, and the checkpoint's name.

    Raises:
        ArtifactError: the training is missing or damaged.
        DeviceError: a chosen device is not there.
    """
    from models.inference.scorer import Scorer
    from models.network.devices import chosen_devices
    from models.network.network import ngram_buckets
    from models.text.encoder import TextEncoder

    devices = chosen_devices(load(DeviceSettings))
    model = load_trained_model(training)
    scorer = Scorer(
        TextEncoder(model.vocabulary, ngram_buckets(model.network)),
        model.network,
        devices,
        load(ScoringSettings).batch_size,
    )
    return scorer, model.checkpoint


def threshold_of(training: Path) -> Threshold:
    """The probability from which a training's model flags a message: [scoring] threshold, or what auto finds.

    auto looks at what the training says of messages it did not learn from, so a model has one for any share, and
    nothing is scored for it. A model of before there was that is flagged by at one half, with a warning.

    Raises:
        ArtifactError: the training is missing or damaged.
    """
    from models.statistics.calibration import UNFITTED_THRESHOLD, UNSEEN_SCORES, Threshold, threshold_for

    settings = load(ScoringSettings)
    if settings.threshold != AUTO:
        return Threshold(float(settings.threshold))
    if UNSEEN_SCORES not in list_manifest_files(training):
        log.warning(
            "%s: trained before there was threshold = auto, so its threshold is %g", training, UNFITTED_THRESHOLD
        )
        return Threshold(UNFITTED_THRESHOLD)
    scores = read_unseen_scores(training)
    return threshold_for(scores["spam"], scores["probability"], settings.ham_blocked_share)
