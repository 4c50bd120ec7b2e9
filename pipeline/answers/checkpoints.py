"""Lists the checkpoints of trainings, and the weights of a model version or checkpoint, for `spamscore`.

Both need TensorFlow, which is imported when they are read.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ArtifactError, InputError
from tasks.artifacts.folders import read_json
from tasks.artifacts.trainings import (
    describe_training_state,
    find_checkpoint_damage,
    list_trainings,
    load_trained_model,
    verified_training_folder,
)
from tasks.stage import prepare_tensorflow

if TYPE_CHECKING:
    from models.network.weights import Weight
    from models.training.checkpoint_list import ListedCheckpoint
    from models.training.trained_model import TrainedModel

log = logging.getLogger("spamscore")


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A checkpoint of a training. What is read from it is None if it is damaged.

    Attributes:
        training: fingerprint of the training.
        state: state of the training: finished, running, or unfinished.
        fold: number of the held-out fold, from 1; None for the network that becomes the model.
        checkpoint: name of the checkpoint.
        step: steps of all epochs.
        epoch: finished epochs.
        step_in_epoch: steps of the epoch that is not finished.
        best_epoch: epoch with the lowest validation loss so far.
        validation_loss: validation loss of its weights; None within an epoch.
        written_at: time it was written, UTC.
        permanent: whether it is kept permanently.
        damaged: whether it is damaged.
        damage: what is wrong with it.
        used: whether the model of the training uses it.
        path: the path of its files without their endings.
    """

    training: str
    state: str
    fold: int | None
    checkpoint: str
    step: int | None
    epoch: int | None
    step_in_epoch: int | None
    best_epoch: int | None
    validation_loss: float | None
    written_at: datetime.datetime | None
    permanent: bool
    damaged: bool
    damage: str | None
    used: bool
    path: str


def list_training_checkpoints(version: int | None) -> list[TrainingCheckpoint]:
    """Reads the checkpoints of all trainings, or of the training of a version. The newest training comes first.

    Raises:
        ArtifactError: the version does not exist, or its training is missing.
    """
    trainings = list_trainings() if version is None else [require_training(version)]
    prepare_tensorflow()
    listed = [list(_describe_training(training)) for training in trainings]
    newest_first = sorted((rows for rows in listed if rows), key=_find_last_write, reverse=True)
    return [row for rows in newest_first for row in rows]


def require_training(version: int) -> Path:
    """Returns the folder of the training of a version.

    Raises:
        ArtifactError: the version does not exist or was changed, or the folder does not exist.
    """
    training = verified_training_folder(version)
    if not training.is_dir():
        raise ArtifactError(
            f"{training}: the checkpoints of version {version} are missing. Restore them from a backup, or choose "
            "another version: spamscore models"
        )
    return training


def _find_last_write(rows: list[TrainingCheckpoint]) -> datetime.datetime:
    oldest = datetime.datetime.min.replace(tzinfo=datetime.UTC)
    return max(row.written_at or oldest for row in rows)


def _describe_training(training: Path) -> Iterator[TrainingCheckpoint]:
    from models.training.checkpoint_list import describe_checkpoints

    state = describe_training_state(training)
    used = _read_used_checkpoint(training) if state == "finished" else None
    for listed in describe_checkpoints(training, (used,) if used else ()):
        damage = listed.damage
        if damage is None and state == "finished" and listed.fold is None:
            damage = _find_change(training, listed)
        progress = dataclasses.asdict(listed.progress) if listed.progress and damage is None else {}
        yield TrainingCheckpoint(
            training=training.name.removesuffix(".partial"),
            state=state,
            fold=listed.fold,
            checkpoint=listed.name,
            step=progress.get("step"),
            epoch=progress.get("epoch"),
            step_in_epoch=progress.get("step_in_epoch"),
            best_epoch=progress.get("best_epoch"),
            validation_loss=progress.get("validation_loss"),
            written_at=listed.written_at,
            permanent=listed.permanent,
            damaged=damage is not None,
            damage=damage,
            used=listed.fold is None and listed.name == used,
            path=str(listed.path),
        )


def _read_used_checkpoint(training: Path) -> str | None:
    """Returns the name in the description of a model; None, with a warning, if the description is damaged."""
    from models.training.checkpoints import is_checkpoint_name
    from models.training.trained_model import DESCRIPTION

    try:
        name = str(read_json(training / DESCRIPTION).get("checkpoint"))
    except ArtifactError as error:
        log.warning("%s", error)
        return None
    return name if is_checkpoint_name(name) else None


def _find_change(training: Path, listed: ListedCheckpoint) -> str | None:
    try:
        return find_checkpoint_damage(training, listed.name)
    except ArtifactError as error:
        return str(error)


@dataclass(frozen=True)
class VersionWeights:
    """The weights of a model version, or those of a checkpoint of its training.

    Attributes:
        version: the model version.
        training: fingerprint of its training.
        checkpoint: the checkpoint that they were read from.
        chosen: whether a person chose the checkpoint: they are then the weights of its step.
        calibrated: whether the last layers contain the calibration of the version.
        weights: the variables.
        model: the network and vocabulary.
    """

    version: int
    training: str
    checkpoint: str
    chosen: bool
    calibrated: bool
    weights: list[Weight]
    model: TrainedModel

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `spamscore weights --json`."""
        names = ("version", "training", "checkpoint", "calibrated")
        header = {name: getattr(self, name) for name in names}
        return {**header, "weights": [dataclasses.asdict(weight) for weight in self.weights]}

    def describe(self) -> str:
        """Returns one line that tells which weights these are."""
        kind = "calibrated" if self.calibrated else "raw, not calibrated"
        which = "step" if self.chosen else "version"
        return (
            f"weights of version {self.version}, {kind}: training {self.training}, checkpoint {self.checkpoint} "
            f"(weights of the {which})"
        )


def read_weights(version: int, checkpoint: str | None, calibrated: bool) -> VersionWeights:
    """Reads the weights of a version.

    Args:
        version: the model version.
        checkpoint: a checkpoint of its training, for the weights of its step; None for the weights of the version.
        calibrated: whether the calibration is applied; otherwise they are the tensors of the checkpoint, bit by bit.

    Raises:
        ArtifactError: the version or the checkpoint does not exist, or the files are damaged.
    """
    training = require_training(version)
    prepare_tensorflow()
    from models.network.weights import list_weights

    model = load_trained_model(training, checkpoint, calibrated)
    return VersionWeights(
        version=version,
        training=training.name,
        checkpoint=model.checkpoint,
        chosen=checkpoint is not None,
        calibrated=calibrated,
        weights=list_weights(model.network),
        model=model,
    )


def write_weights_file(weights: VersionWeights, path: Path) -> None:
    """Writes weights to a `.npz` file, with the markers of `models.network.weights`. It replaces an existing file.

    Raises:
        StorageError: the file cannot be written.
    """
    from models.network.weights import write_weights

    write_weights(weights.model.network, path, weights.model.vocabulary.tokens, weights.calibrated)


def require_new_file(path: Path, force: bool) -> None:
    """Checks that a file may be written.

    Raises:
        InputError: the path is no file, or the file exists and `force` is false.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: expected the path of a file to write, and this is a folder or device.")
    if path.exists() and not force:
        raise InputError(f"{path}: the file exists and was not replaced. To replace it, add --force")
