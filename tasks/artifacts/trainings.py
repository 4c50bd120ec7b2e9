"""Reads what TrainModel wrote: the trained model and the held-out scores; finds the training of an exported version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ArtifactError
from tasks.artifacts.exports import verify_version, version_folder
from tasks.artifacts.folders import FolderTarget, verify_file
from tasks.artifacts.locations import VOCABULARY, training_folder

if TYPE_CHECKING:
    import pandas as pd

    from models.training.trained_model import TrainedModel


def verified_training_folder(version: int) -> Path:
    """Returns the folder with the checkpoints of an exported version. The folder may no longer exist.

    Raises:
        ArtifactError: the version does not exist or was changed, or the folder contains another training.
    """
    exported = verify_version(version)
    target = FolderTarget(training_folder(str(exported["training"])))
    if target.exists():
        manifest = target.manifest()
        for key in ("vocabulary_sha256", "weights_sha256"):
            expected, received = exported["trained"][key], manifest.get(key)
            if expected != received:
                raise ArtifactError(
                    f"{target.path}: it does not belong to version {version} ({version_folder(version)}): expected "
                    f"{key} {expected}, received {received}. Restore it from a backup; or put another version in "
                    "service: spamscore serve"
                )
    return target.path


def load_trained_model(training: Path) -> TrainedModel:
    """Loads the trained model of a folder. Its description and vocabulary are verified against the folder's manifest.

    Raises:
        ArtifactError: a part is missing, was changed, or does not belong to the others.
    """
    from models.training.model_description import DESCRIPTION
    from models.training.trained_model import load_trained_model

    # Checkpoints are verified against the description instead: a damaged one is skipped for the one before.
    for name in (DESCRIPTION, VOCABULARY):
        verify_file(training, name)
    return load_trained_model(training)


def read_unseen_scores(training: Path) -> pd.DataFrame:
    """Reads the held-out scores of a training: scores of messages that the model was not trained on.

    `models.training.trained_model.write_trained_model` describes the columns.

    Raises:
        ArtifactError: the file is missing or was changed.
    """
    import pandas as pd

    from models.statistics.calibration import UNSEEN_SCORES

    return pd.read_parquet(verify_file(training, UNSEEN_SCORES))
