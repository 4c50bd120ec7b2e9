"""Describes the checkpoints of a training: progress, validation loss, and whether they are damaged.

Every tensor of every checkpoint is read. The values come from the checkpoints; only the validation loss of an epoch
that was not the best one comes from the history of the training.
"""

from __future__ import annotations

import datetime
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.errors import ArtifactError
from models.training.checkpoints import list_checkpoints, parse_number, read_recorded_names, read_run_variables
from models.training.history import read_history
from models.training.loop import CHECKPOINTS, HELD_OUT, HISTORY

log = logging.getLogger("spamscore")


@dataclass(frozen=True)
class CheckpointProgress:
    """The state of a run when it wrote a checkpoint.

    Attributes:
        step: steps of all epochs; the last checkpoint of a training, which has the best weights, counts as one.
        epoch: finished epochs.
        step_in_epoch: steps of the epoch that is not finished; 0 at the end of an epoch.
        best_epoch: epoch with the lowest validation loss so far, from 1; 0 within the first epoch.
        finished: whether it is the last checkpoint, which has the weights of the best epoch.
        validation_loss: validation loss of the weights; None within an epoch, or if the history has no such epoch.
    """

    step: int
    epoch: int
    step_in_epoch: int
    best_epoch: int
    finished: bool
    validation_loss: float | None


@dataclass(frozen=True)
class ListedCheckpoint:
    """A checkpoint in the folder of a training.

    Attributes:
        fold: number of its held-out fold, from 1; None for the network that becomes the model.
        name: such as ``ckpt-350``.
        path: the path of its files without their endings.
        written_at: time of the last write to it, UTC; None if its index is missing.
        permanent: whether it is kept permanently ([training] keep_checkpoint_every_hours).
        progress: the state of the run; None if it is damaged.
        damage: what is wrong with it; None if it is not damaged.
    """

    fold: int | None
    name: str
    path: Path
    written_at: datetime.datetime | None
    permanent: bool
    progress: CheckpointProgress | None
    damage: str | None


def describe_checkpoints(training: Path, expected: tuple[str, ...] = ()) -> list[ListedCheckpoint]:
    """Reads all checkpoints of a training: those of its network, newest first, then those of its held-out folds.

    A checkpoint that a running training deletes meanwhile is left out.

    Args:
        training: the folder of the training, finished or not.
        expected: names of checkpoints of the network that must exist; one without files is listed as damaged.
    """
    folds = [path for path in (training / HELD_OUT).glob("*") if path.name.isdecimal()]
    listed = list(_describe_run(training, None, expected))
    for folder in sorted(folds, key=lambda path: int(path.name)):
        listed += _describe_run(folder, int(folder.name), ())
    return listed


def _describe_run(run: Path, fold: int | None, expected: tuple[str, ...]) -> Iterator[ListedCheckpoint]:
    folder = run / CHECKPOINTS
    recorded = read_recorded_names(folder) or []
    newest = max(map(parse_number, recorded), default=math.inf)
    losses = _read_losses(run / HISTORY)
    for name in sorted({*list_checkpoints(folder), *expected}, key=parse_number, reverse=True):
        progress, damage = None, None
        try:
            progress = _read_progress(folder, name, losses)
        except ArtifactError as error:
            damage = str(error)
        index = folder / f"{name}.index"
        try:
            written_at = datetime.datetime.fromtimestamp(index.stat().st_mtime, datetime.UTC)
        except FileNotFoundError:
            if name not in expected:
                continue  # deleted by the run since it was listed
            written_at = None
        permanent = name not in recorded and parse_number(name) < newest
        yield ListedCheckpoint(fold, name, folder / name, written_at, permanent, progress, damage)


def _read_progress(folder: Path, name: str, losses: dict[int, float]) -> CheckpointProgress:
    variables = read_run_variables(folder, name)
    try:
        step, epoch, step_in_epoch, best_epoch = (
            int(variables[key]) for key in ("step", "epoch", "step_in_epoch", "best_epoch")
        )
        finished, best_loss = bool(variables["finished"]), float(variables["best_loss"])
    except KeyError as error:
        raise ArtifactError(
            f"{folder / name}: expected the checkpoint of a training; it has no variable {error}"
        ) from None
    loss = None if step_in_epoch else losses.get(epoch)
    if best_epoch and (finished or (epoch == best_epoch and not step_in_epoch)):
        loss = best_loss
    return CheckpointProgress(step, epoch, step_in_epoch, best_epoch, finished, loss)


def _read_losses(path: Path) -> dict[int, float]:
    """Returns the validation loss of each epoch; no losses, with a warning, if the history is damaged."""
    try:
        return {row.epoch: row.validation_loss for row in read_history(path)}
    except (KeyError, TypeError, ValueError, OSError) as error:
        log.warning("%s: not a history of epochs (%s: %s); losses are unknown", path, type(error).__name__, error)
        return {}
