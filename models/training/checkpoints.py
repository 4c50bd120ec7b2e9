"""Checkpoints of a training run: saving, restoring, and recovery from damaged files.

A checkpoint contains everything that a run needs to resume as if it had never stopped. A scorer reads its weights from
it too. Built on `tf.train.Checkpoint` and `tf.train.CheckpointManager`. A damaged checkpoint is skipped for the one
before it.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from models.errors import ArtifactError
from models.settings import TrainingSettings

log = logging.getLogger("spamscore")

# What TensorFlow raises for a checkpoint whose files are truncated, changed or missing, or that has another network.
_RESTORE_ERRORS = (tf.errors.OpError, LookupError, ValueError, AssertionError)
_STATE_FILE = "checkpoint"
_CHECKPOINT_NAME = re.compile(r"ckpt-\d+")
_CHECKPOINT_FILE = re.compile(r"(ckpt-\d+)\.(?:index|data-\d{5}-of-\d{5})")


def open_checkpoint_manager(
    checkpoint: tf.train.Checkpoint, folder: Path, settings: TrainingSettings
) -> tf.train.CheckpointManager:
    """Opens the manager that keeps the latest checkpoints, and one every few hours permanently.

    Removes incomplete files that a kill during a write left in the folder.

    Args:
        checkpoint: the objects to save.
        folder: where the checkpoints are.
        settings: number of checkpoints to keep, and hours between the permanent ones.
    """
    _remove_stray_files(folder)
    return tf.train.CheckpointManager(
        checkpoint,
        str(folder),
        max_to_keep=settings.keep_checkpoints,
        keep_checkpoint_every_n_hours=settings.keep_checkpoint_every_hours,
    )


def _remove_stray_files(folder: Path) -> None:
    recorded = _read_recorded_names(folder)
    if recorded is None:
        # The state file is unreadable, and the manager would fail on it.
        (folder / _STATE_FILE).unlink()
    newest = max(map(_parse_number, recorded or ()), default=None)
    for path in [*folder.glob("ckpt-[0-9]*"), *folder.glob("checkpoint.tmp*")]:
        if _is_stray(path, newest):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read_recorded_names(folder: Path) -> list[str] | None:
    """Returns the checkpoint names in the state file; None if the file is unreadable."""
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except ValueError:
        return None
    names = [Path(path).name for path in state.all_model_checkpoint_paths] if state else []
    return [name for name in names if _CHECKPOINT_NAME.fullmatch(name)]


def _is_stray(path: Path, newest: int | None) -> bool:
    """Returns whether a file is part of an incomplete checkpoint, or of one that the manager would never delete.

    The index of a checkpoint is written last. The manager does not delete a complete checkpoint that it has not
    recorded. Complete checkpoints older than the newest recorded one are kept permanently.
    """
    match = _CHECKPOINT_FILE.fullmatch(path.name)
    if match is None or not path.with_name(f"{match[1]}.index").exists():
        return True
    return newest is not None and _parse_number(path.name) > newest


def _parse_number(name: str) -> int:
    """Returns the number in ``ckpt-12``, ``ckpt-12.index`` or ``ckpt-12.data-00000-of-00001``."""
    return int(name.removeprefix("ckpt-").split(".")[0])


def restore_latest_checkpoint(
    checkpoint: tf.train.Checkpoint,
    folder: Path,
    *,
    partial: bool = False,
    latest: str | None = None,
    find_mismatch: Callable[[], str | None] = lambda: None,
) -> str | None:
    """Restores the latest checkpoint that is complete and fits. Logs a warning for each one that it skips.

    Args:
        checkpoint: the objects to restore.
        folder: where the checkpoints are.
        partial: whether the checkpoint may contain more than the objects: a scorer reads only the weights.
        latest: name of the expected latest checkpoint; by default, the latest in the state file of the folder.
        find_mismatch: called after a restore; returns what is wrong with the restored checkpoint, None if it fits.

    Returns:
        The name of the checkpoint, such as ``ckpt-350``; None if there are no checkpoints.

    Raises:
        ArtifactError: there are checkpoints, or the state file lists some, but none can be used.
    """
    paths = _list_newest_first(folder)
    latest = latest or max(_read_recorded_names(folder) or (), key=_parse_number, default=None)
    if latest and str(folder / latest) not in paths:
        log.warning("checkpoint %s is missing; %s", folder / latest, _describe_fallback(paths[0] if paths else None))
    faults: list[str] = []
    for path, earlier in itertools.zip_longest(paths, paths[1:]):
        try:
            status = checkpoint.read(path)
            if partial:
                status.expect_partial()
            status.assert_existing_objects_matched()
            fault = find_mismatch()
        except _RESTORE_ERRORS as error:
            fault = f"damaged ({(str(error) or type(error).__name__).splitlines()[0]})"
        if fault is None:
            return Path(path).name
        log.warning("checkpoint %s is %s; %s", path, fault, _describe_fallback(earlier))
        faults.append(f"{Path(path).name} is {fault}")
    if latest or faults:
        reason = "; ".join(faults) or f"{latest} is missing"
        raise ArtifactError(
            f"{folder}: none of the {len(paths)} checkpoints can be used: {reason}. "
            f"Restore them from a backup, or delete {folder.parent} and run TrainModel again."
        )
    return None


def restore_checkpoint(checkpoint: tf.train.Checkpoint, path: Path) -> None:
    """Restores the objects from one checkpoint, which may contain more.

    Raises:
        ArtifactError: the checkpoint is missing or damaged, or does not have the objects.
    """
    try:
        checkpoint.read(str(path)).expect_partial().assert_existing_objects_matched()
    except _RESTORE_ERRORS as error:
        raise ArtifactError(
            f"{path}: expected a checkpoint of this training, but it is damaged or of another network "
            f"({(str(error) or type(error).__name__).splitlines()[0]}). Restore it from a backup, or name another one."
        ) from None


def _describe_fallback(path: str | None) -> str:
    return f"falling back to {Path(path).name}" if path else "there is no earlier checkpoint"


def _list_newest_first(folder: Path) -> list[str]:
    """Lists the paths of the checkpoints in a folder. Ignores the state file, because it may be damaged too."""
    names = {path.name.removesuffix(".index") for path in folder.glob("ckpt-*.index")}
    return [
        str(folder / name)
        for name in sorted(filter(_CHECKPOINT_NAME.fullmatch, names), key=_parse_number, reverse=True)
    ]


def weights_sha256(network: keras.Model) -> str:
    """Returns the SHA-256 of the names, types, shapes and bytes of a network's weights."""
    digest = hashlib.sha256()
    for variable in network.weights:
        value = variable.numpy()
        digest.update(f"{variable.path} {value.dtype} {value.shape} ".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
