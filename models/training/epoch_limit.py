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
    """The last epoch of every network that a training still fits; `epoch` is None until a limit is set.

    Args:
        folder: folder of the training, where ``stopped.json`` is written.

    Raises:
        ArtifactError: the file is unreadable.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.epoch = _read(self._path) if self._path.is_file() else None

    def stop_after(self, epoch: int) -> int:
        """Sets the limit, unless a lower one is set, and returns the limit in force."""
        if self.epoch is None or epoch < self.epoch:
            partial = self._path.with_name(self._path.name + ".partial")
            partial.write_text(json.dumps({"last_epoch": epoch, "because": "a message said stop"}) + "\n", "utf-8")
            partial.replace(self._path)
            self.epoch = epoch
        return self.epoch

    def shortens(self, epochs: int) -> bool:
        """Returns whether the limit ends a training of this many epochs early."""
        return self.epoch is not None and self.epoch < epochs


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
