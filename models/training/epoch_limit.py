"""The epoch after which a person stopped a training before [training] epochs was reached.

It is stored in a file in the folder of the training. So a run that is killed and started again stops there too, and the
file explains why the history has few epochs.
"""

from __future__ import annotations

import json
from pathlib import Path

from models.errors import ArtifactError

FILE = "stopped.json"


class EpochLimit:
    """The last epoch of every network that a training still fits. Several processes may use the same file.

    Args:
        folder: folder of the training, where ``stopped.json`` is written.

    Raises:
        ArtifactError: the file is unreadable.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        _ = self.epoch  # an unreadable file is an error before the training, not after its first epoch

    @property
    def epoch(self) -> int | None:
        """The last epoch; None until a limit is set."""
        return _read(self._path) if self._path.is_file() else None

    def stop_after(self, epoch: int) -> int:
        """Sets the limit, unless a lower one is set, and returns the limit in force."""
        limit = self.epoch
        if limit is not None and limit <= epoch:
            return limit
        partial = self._path.with_name(self._path.name + ".partial")
        partial.write_text(json.dumps({"last_epoch": epoch, "because": "a message said stop"}) + "\n", "utf-8")
        partial.replace(self._path)
        return epoch

    def shortens(self, epochs: int) -> bool:
        """Returns whether the limit ends a training of this many epochs early."""
        limit = self.epoch
        return limit is not None and limit < epochs


def _read(path: Path) -> int:
    try:
        epoch = json.loads(path.read_text("utf-8"))["last_epoch"]
    except (ValueError, LookupError, TypeError, RecursionError):
        epoch = None
    if not isinstance(epoch, int) or epoch < 1:
        raise ArtifactError(
            f"{path}: expected the number of the last epoch to train, received no valid number. Delete the file to "
            "train all epochs of [training] epochs, and run TrainModel again."
        )
    return epoch
