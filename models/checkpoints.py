"""Checkpoints of a training run: everything it needs to go on as if it had never stopped, and what a scorer reads.

Built on `tf.train.Checkpoint` and `tf.train.CheckpointManager`. A damaged checkpoint is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
import shutil
from pathlib import Path

import keras
import tensorflow as tf

from models.errors import ArtifactError
from models.settings import TrainingSettings

log = logging.getLogger("spamscore")

# What TensorFlow raises for a checkpoint whose files are cut short, changed or gone, or that is another network's.
_DAMAGED = (tf.errors.OpError, LookupError, ValueError, AssertionError)
_PART = re.compile(r"(ckpt-\d+)\.(?:index|data-\d{5}-of-\d{5})")


def open_manager(
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
    newest = max(map(_number, _recorded(folder)), default=None)
    for path in [*folder.glob("ckpt-[0-9]*"), *folder.glob("checkpoint.tmp*")]:
        if _is_stray(path, newest):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _recorded(folder: Path) -> list[str]:
    """Names that the state file lists; one that says nothing is removed, for the manager would fail on it."""
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except ValueError:
        (folder / "checkpoint").unlink()
        return []
    return [Path(path).name for path in state.all_model_checkpoint_paths] if state else []


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


def restore_latest(checkpoint: tf.train.Checkpoint, folder: Path, *, partial: bool = False) -> str | None:
    """Restores the latest checkpoint that is whole.

    Args:
        checkpoint: the objects to restore.
        folder: where the checkpoints are.
        partial: the checkpoint may hold more than the objects, as a scorer wants the weights alone.

    Returns:
        The checkpoint's name such as ``ckpt-350``, or None where there is none at all.

    Raises:
        ArtifactError: there are checkpoints, but none of them is whole.
    """
    paths = _newest_first(folder)
    for path, before in itertools.zip_longest(paths, paths[1:]):
        try:
            status = checkpoint.read(path)
            if partial:
                status.expect_partial()
            status.assert_existing_objects_matched()
            return Path(path).name
        except _DAMAGED as error:
            way_on = f"going on from {Path(before).name}" if before else "there is none before it"
            log.warning("checkpoint %s is damaged (%s); %s", path, str(error).splitlines()[0], way_on)
    if paths:
        raise ArtifactError(
            f"{folder}: none of the {len(paths)} checkpoints can be read. "
            f"Delete {folder.parent} and run TrainModel again."
        )
    return None


def _newest_first(folder: Path) -> list[str]:
    """Paths of the checkpoints in a folder, whatever its state file says: that may have been cut short too."""
    names = {path.name.removesuffix(".index") for path in folder.glob("ckpt-*.index")}
    return [str(folder / name) for name in sorted(names, key=_number, reverse=True)]


def weights_sha256(network: keras.Model) -> str:
    """SHA-256 over the names, shapes and bytes of a network's weights."""
    digest = hashlib.sha256()
    for variable in network.weights:
        value = variable.numpy()
        digest.update(f"{variable.path} {value.dtype} {value.shape} ".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
