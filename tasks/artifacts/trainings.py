"""Reads what TrainModel wrote: the trained model and the held-out scores; finds the training of an exported version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ArtifactError
from tasks.artifacts.exports import verify_version, version_folder
from tasks.artifacts.folders import FolderTarget, find_file_damage, is_locked, list_manifest_files, verify_file
from tasks.artifacts.locations import TRAININGS, VOCABULARY, artifacts_folder, training_folder

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


def list_trainings() -> list[Path]:
    """Returns the folders of all trainings, in no order: finished ones, running ones, and those that a kill left."""
    folders = artifacts_folder() / TRAININGS
    if not folders.is_dir():
        return []
    return [path for path in folders.iterdir() if path.is_dir() and not path.name.endswith(".damaged")]


def describe_training_state(training: Path) -> str:
    """Returns ``finished``, ``running`` or ``unfinished``. A run of the same settings resumes an unfinished one."""
    if FolderTarget(training).exists():
        return "finished"
    return "running" if is_locked(training) else "unfinished"


def find_checkpoint_damage(training: Path, name: str) -> str | None:
    """Returns how the files of a checkpoint differ from the manifest of a finished training; None if they do not.

    Raises:
        ArtifactError: the manifest is missing or was changed.
    """
    files = [file for file in list_manifest_files(training) if file.startswith(f"checkpoints/{name}.")]
    if not files:
        return f"the manifest of {training} has no checkpoint {name}"
    damages = {file: find_file_damage(training, file) for file in files}
    return next((f"{training / file}: {damage}" for file, damage in damages.items() if damage), None)


def load_trained_model(training: Path, checkpoint: str | None = None, calibrated: bool = True) -> TrainedModel:
    """Loads the trained model of a folder. Its description and vocabulary are verified against the folder's manifest.

    Args:
        training: the folder of the training.
        checkpoint: the checkpoint whose weights are loaded; by default, the final weights.
        calibrated: whether the calibration is applied to the weights.

    Raises:
        ArtifactError: a part is missing, was changed, or does not belong to the others; or there is no such checkpoint.
    """
    from models.training.trained_model import DESCRIPTION, load_trained_model

    # Final weights are verified against the description instead: a damaged checkpoint is skipped for the one before.
    for name in (DESCRIPTION, VOCABULARY):
        verify_file(training, name)
    model = load_trained_model(training, checkpoint, calibrated)
    if checkpoint and (damage := find_checkpoint_damage(training, checkpoint)):
        raise ArtifactError(
            f"{damage}. No other checkpoint was used in place of {checkpoint}. Restore it from a backup, or choose "
            "another one: spamscore checkpoints"
        )
    return model


def read_unseen_scores(training: Path) -> pd.DataFrame:
    """Reads the held-out scores of a training: scores of messages that the model was not trained on.

    `models.training.trained_model.write_trained_model` describes the columns.

    Raises:
        ArtifactError: the file is missing or was changed.
    """
    import pandas as pd

    from models.statistics.calibration import UNSEEN_SCORES

    return pd.read_parquet(verify_file(training, UNSEEN_SCORES))
