"""The held-out folds of the training part, and the files with the logits of the folds that are finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import InputError
from models.settings import TrainingSettings
from models.training.job import LabelledMessages

HELD_OUT = "held_out"


@dataclass(frozen=True)
class Fold:
    """A fold: messages that are scored by a network trained on the others.

    Attributes:
        number: from 1.
        rows: indices of the messages to train on, int64 [rows].
        held_out_rows: indices of the messages to score, int64 [rows].
        logits_path: the file with the logits of the held-out messages, float32 [rows]; it exists if the fold is
            finished.
    """

    number: int
    rows: npt.NDArray[np.int64]
    held_out_rows: npt.NDArray[np.int64]
    logits_path: Path

    @property
    def folder(self) -> Path:
        """The folder in which the network of the fold is trained."""
        return self.logits_path.with_suffix("")

    @property
    def is_finished(self) -> bool:
        """Whether the logits are written."""
        return self.logits_path.exists()


def split_folds(training: LabelledMessages, settings: TrainingSettings, folder: Path) -> list[Fold]:
    """Splits messages into [training] held_out_folds folds with similar shares of spam; none if the setting is 0.

    Args:
        training: the messages.
        settings: number of folds and seed.
        folder: the folder of the training, in which ``held_out/`` is written.

    Raises:
        InputError: there are fewer spam or ham messages than folds.
    """
    from sklearn.model_selection import StratifiedKFold

    count, min_messages = settings.held_out_folds, int(np.bincount(training.labels, minlength=2).min())
    if not count:
        return []
    if min_messages < count:
        raise InputError(
            f"[training] held_out_folds = {count}: expected at least {count} spam and {count} ham messages in the "
            f"training part, received {min_messages} of one label. Give more labelled messages ([corpus]) or set "
            "held_out_folds = 0."
        )
    splits = StratifiedKFold(count, shuffle=True, random_state=settings.seed).split(training.texts, training.labels)
    return [
        Fold(number, rows, held_out_rows, folder / HELD_OUT / f"{number}.npy")
        for number, (rows, held_out_rows) in enumerate(splits, start=1)
    ]


def read_held_out_logits(folds: list[Fold]) -> npt.NDArray[np.float32]:
    """Reads the logits of finished folds, float32 [messages], in the order of the messages."""
    logits = np.zeros(sum(len(fold.held_out_rows) for fold in folds), np.float32)
    for fold in folds:
        logits[fold.held_out_rows] = np.load(fold.logits_path, allow_pickle=False)
    return logits
