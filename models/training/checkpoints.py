"""Checkpoints of a training run: saving, restoring, and recovery from damaged files.

A checkpoint contains everything that a run needs to resume as if it had never stopped. A scorer reads its weights from
it too. Built on `tf.train.Checkpoint` and `tf.train.CheckpointManager`. A damaged checkpoint is skipped for the one
before it, unless one was asked for by its name.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from models.errors import ArtifactError
from models.settings import TrainingSettings

log = logging.getLogger("spamscore")

# What TensorFlow raises for a checkpoint whose files are truncated, changed or missing, or that has another network.
_RESTORE_ERRORS = (tf.errors.OpError, LookupError, ValueError, AssertionError)
_STATE_FILE = "checkpoint"
_CHECKPOINT_NAME = re.compile(r"ckpt-\d+")
_RUN_VARIABLE = re.compile(r"run/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE")
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
    recorded = read_recorded_names(folder)
    if recorded is None:
        # The state file is unreadable, and the manager would fail on it.
        (folder / _STATE_FILE).unlink()
    newest = max(map(parse_number, recorded or ()), default=None)
    for path in [*folder.glob("ckpt-[0-9]*"), *folder.glob("checkpoint.tmp*")]:
        if _is_stray(path, newest):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def read_recorded_names(folder: Path) -> list[str] | None:
    """Returns the names of the checkpoints that the manager deletes in time, from its state file; None if unreadable.

    Complete checkpoints that are not among them, and older than the newest of them, are kept permanently.
    """
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
    return newest is not None and parse_number(path.name) > newest


def parse_number(name: str) -> int:
    """Returns the number, which is a step, in ``ckpt-12``, ``ckpt-12.index`` or ``ckpt-12.data-00000-of-00001``."""
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
    paths = [str(folder / name) for name in list_checkpoints(folder)]
    latest = latest or max(read_recorded_names(folder) or (), key=parse_number, default=None)
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
            fault = f"damaged ({_first_line(error)})"
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


def _describe_fallback(path: str | None) -> str:
    return f"falling back to {Path(path).name}" if path else "there is no earlier checkpoint"


def is_checkpoint_name(name: str) -> bool:
    """Returns whether a text has the form of the name of a checkpoint, such as ``ckpt-350``."""
    return _CHECKPOINT_NAME.fullmatch(name) is not None


def list_checkpoints(folder: Path) -> list[str]:
    """Lists the names of the checkpoints in a folder, newest first. Ignores the state file: it may be damaged too."""
    names = {path.name.removesuffix(".index") for path in folder.glob("ckpt-*.index")}
    return sorted(filter(_CHECKPOINT_NAME.fullmatch, names), key=parse_number, reverse=True)


def restore_checkpoint(checkpoint: tf.train.Checkpoint, folder: Path, name: str) -> None:
    """Restores one checkpoint, and no other one in its place.

    Args:
        checkpoint: the objects to restore. The file may contain more than these.
        folder: where the checkpoints are.
        name: name of the checkpoint, such as ``ckpt-350``.

    Raises:
        ArtifactError: there is no such checkpoint; or any of its tensors is damaged, or the objects do not fit.
    """
    names = list_checkpoints(folder)
    if name not in names:
        existing = ", ".join(names) or "none"
        raise ArtifactError(f"{folder}: there is no checkpoint {name}. Newest first, there are: {existing}.")
    read_run_variables(folder, name)
    try:
        checkpoint.read(str(folder / name)).expect_partial().assert_existing_objects_matched()
    except _RESTORE_ERRORS as error:
        raise _damage_error(folder, name, error) from None


def read_run_variables(folder: Path, name: str) -> Mapping[str, Any]:
    """Reads every tensor of a checkpoint, and returns the state of its run: the variables of `models.training.loop`.

    Returns:
        Values by the names of the variables, such as ``step`` and ``best_loss``: NumPy scalars.

    Raises:
        ArtifactError: a tensor cannot be read, because a file is missing, truncated or changed; or the checkpoint is of
            another step than its name says.
    """
    variables: dict[str, Any] = {}
    try:
        reader = tf.train.load_checkpoint(str(folder / name))
        for path in reader.get_variable_to_shape_map():
            value = reader.get_tensor(path)
            if match := _RUN_VARIABLE.fullmatch(path):
                variables[match[1]] = value
        if (step := variables.get("step")) != parse_number(name):
            raise ValueError(f"expected step {parse_number(name)}, received {step}")
    except _RESTORE_ERRORS as error:
        raise _damage_error(folder, name, error) from None
    return variables


def _damage_error(folder: Path, name: str, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"{folder / name}: the checkpoint is damaged ({_first_line(error)}), and no other one was used in its place. "
        "Restore its files from a backup, or choose another one: spamscore checkpoints"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def weights_sha256(network: keras.Model) -> str:
    """Returns the SHA-256 of the names, types, shapes and bytes of a network's weights."""
    digest = hashlib.sha256()
    for variable in network.weights:
        value = variable.numpy()
        digest.update(f"{variable.path} {value.dtype} {value.shape} ".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
