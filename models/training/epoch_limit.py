"""The epoch after which a training stops although [training] epochs asks for more, once somebody has said so.

It is kept in a file among what the training leaves: a run that is killed and started again stops there too, and whoever
finds few epochs in the history finds out why.
"""

from __future__ import annotations

import json
from pathlib import Path

from models.errors import ArtifactError

FILE = "stopped.json"


class EpochLimit:
    """The last epoch of every network that a training still makes; None as long as nobody has said so.

    Args:
        folder: of the training; takes ``stopped.json``.

    Raises:
        ArtifactError: the file makes no sense.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self.epoch = _read(self._path) if self._path.is_file() else None

    def stop_after(self, epoch: int) -> int:
        """Says so, and gives the limit: one that is lower already stays."""
        if self.epoch is None or epoch < self.epoch:
            partial = self._path.with_name(self._path.name + ".partial")
            partial.write_text(json.dumps({"last_epoch": epoch, "because": "a message said stop"}) + "\n", "utf-8")
            partial.replace(self._path)
            self.epoch = epoch
        return self.epoch

    def shortens(self, epochs: int) -> bool:
        """Whether a training of so many epochs ends earlier by it."""
        return self.epoch is not None and self.epoch < epochs


def _read(path: Path) -> int:
    try:
        epoch = json.loads(path.read_text("utf-8"))["last_epoch"]
    except (ValueError, LookupError, TypeError, RecursionError):
        epoch = None
    if not isinstance(epoch, int) or epoch < 1:
        raise ArtifactError(
            f"{path}: expected the last epoch that is to be trained, received no such number. Delete the file for all "
            "epochs of [training] epochs, and run TrainModel again."
        )
    return epoch
