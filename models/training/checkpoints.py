"""Checkpoints of a training run: everything it needs to go on as if it had never stopped, and what a scorer reads.

Built on `tf.train.Checkpoint` and `tf.train.CheckpointManager`. A damaged checkpoint is passed over for the one before.
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

# What TensorFlow raises for a checkpoint whose files are cut short, changed or gone, or that is another network's.
_DAMAGED = (tf.errors.OpError, LookupError, ValueError, AssertionError)
_STATE = "checkpoint"
_NAME = re.compile(r"ckpt-\d+")
_PART = re.compile(r"(ckpt-\d+)\.(?:index|data-\d{5}-of-\d{5})")


def open_checkpoint_manager(
    checkpoint: tf.train.Checkpoint, folder: Path, settings: TrainingSettings
) -> tf.train.CheckpointManager:
    """The manager that keeps the last few checkpoints and one every so many hours for good.

    What a kill in the middle of a write left in the folder is removed.
    """
    _remove_strays(folder)
    return tf.train.CheckpointManager(
        checkpoint,
        str(folder),
        max_to_keep=settings.keep_checkpoints,
        keep_checkpoint_every_n_hours=settings.keep_checkpoint_every_hours,
    )


def _remove_strays(folder: Path) -> None:
    recorded = _recorded(folder)
    if recorded is None:
        # It says nothing, and the manager would fail on it.
        (folder / _STATE).unlink()
    newest = max(map(_number, recorded or ()), default=None)
    for path in [*folder.glob("ckpt-[0-9]*"), *folder.glob("checkpoint.tmp*")]:
        if _is_stray(path, newest):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _recorded(folder: Path) -> list[str] | None:
    """Names that the state file lists; None if it can make no sense."""
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except ValueError:
        return None
    names = [Path(path).name for path in state.all_model_checkpoint_paths] if state else []
    return [name for name in names if _NAME.fullmatch(name)]


def _is_stray(path: Path, newest: int | None) -> bool:
    """Whether a file is half a checkpoint, or a whole one that the manager does not know of and would never delete.

    A checkpoint's index is put in place last. Whole ones older than the newest recorded are those kept for good.
    """
    found = _PART.fullmatch(path.name)
    if found is None or not path.with_name(f"{found[1]}.index").exists():
        return True
    return newest is not None and _number(path.name) > newest


def _number(name: str) -> int:
    """The number in ``ckpt-12``, ``ckpt-12.index`` or ``ckpt-12.data-00000-of-00001``."""
    return int(name.removeprefix("ckpt-").split(".")[0])


def restore_latest_checkpoint(
    checkpoint: tf.train.Checkpoint,
    folder: Path,
    *,
    partial: bool = False,
    latest: str | None = None,
    misfit: Callable[[], str | None] = lambda: None,
) -> str | None:
    """Restores the latest checkpoint that is whole and fits. One that is passed over is named in a warning.

    Args:
        checkpoint: the objects to restore.
        folder: where the checkpoints are.
        partial: the checkpoint may hold more than the objects, as a scorer wants the weights alone.
        latest: name of the one that should be the latest; by default, as the folder's state file has it.
        misfit: asked once one is restored, says what it is instead of what was wanted; None if it is that.

    Returns:
        The checkpoint's name such as ``ckpt-350``, or None where there is none at all.

    Raises:
        ArtifactError: there are checkpoints, or should be, but none of them can be used.
    """
    paths = _newest_first(folder)
    latest = latest or max(_recorded(folder) or (), key=_number, default=None)
    if latest and str(folder / latest) not in paths:
        log.warning("checkpoint %s is missing; %s", folder / latest, _way_on(paths[0] if paths else None))
    faults: list[str] = []
    for path, before in itertools.zip_longest(paths, paths[1:]):
        try:
            status = checkpoint.read(path)
            if partial:
                status.expect_partial()
            status.assert_existing_objects_matched()
            fault = misfit()
        except _DAMAGED as error:
            fault = f"damaged ({(str(error) or type(error).__name__).splitlines()[0]})"
        if fault is None:
            return Path(path).name
        log.warning("checkpoint %s is %s; %s", path, fault, _way_on(before))
        faults.append(f"{Path(path).name} is {fault}")
    if latest or faults:
        found = "; ".join(faults) or f"{latest} is missing"
        raise ArtifactError(
            f"{folder}: none of the {len(paths)} checkpoints can be used: {found}. "
            f"Bring them back from a backup; or delete {folder.parent} and run TrainModel again."
        )
    return None


def _way_on(path: str | None) -> str:
    return f"going on from {Path(path).name}" if path else "there is none before it"


def _newest_first(folder: Path) -> list[str]:
    """Paths of the checkpoints in a folder, whatever its state file says: that may have been cut short too."""
    names = {path.name.removesuffix(".index") for path in folder.glob("ckpt-*.index")}
    return [str(folder / name) for name in sorted(filter(_NAME.fullmatch, names), key=_number, reverse=True)]


def weights_sha256(network: keras.Model) -> str:
    """SHA-256 over the names, shapes and bytes of a network's weights."""
    digest = hashlib.sha256()
    for variable in network.weights:
        value = variable.numpy()
        digest.update(f"{variable.path} {value.dtype} {value.shape} ".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
