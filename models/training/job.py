"""What a training gets, reports and returns.

Without TensorFlow, because a process that waits for the trainings of other processes does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import InputError
from models.training.history import Epoch


@dataclass(frozen=True)
class LabelledMessages:
    """Messages with their labels, int32 [messages]: 1 is spam."""

    texts: Sequence[str]
    labels: npt.NDArray[np.int32]

    def select(self, rows: npt.NDArray[np.int64]) -> LabelledMessages:
        """Returns the messages at the given indices, int64 [rows]."""
        return LabelledMessages([self.texts[row] for row in rows], self.labels[rows])

    def require_both_labels(self, name: str) -> None:
        """Checks that there are spam and ham messages.

        Raises:
            InputError: there are none of one label; `name` is the part that it names.
        """
        spam = int(self.labels.sum())
        if not 0 < spam < len(self.labels):
            raise InputError(
                f"the {name} part has {spam} spam and {len(self.labels) - spam} ham messages; at least one of each is "
                "needed. Give more labelled messages ([corpus]) or change [split]."
            )


@dataclass(frozen=True)
class WeakMessages:
    """Messages that a teacher labelled, for the linear part.

    Attributes:
        texts: the messages; none of them is a labelled one.
        labels: int32 [messages]; 1 is spam.
        weight: weight of one of these messages; a labelled one has 1.
    """

    texts: Sequence[str]
    labels: npt.NDArray[np.int32]
    weight: float


@dataclass(frozen=True)
class Progress:
    """The progress of a training run, for the callback.

    Attributes:
        epoch: number of the epoch, from 1.
        epochs: maximum number of epochs.
        step: number of the step in the epoch, from 1.
        steps: steps in the epoch.
        loss: mean loss of the messages of the epoch so far.
        save: writes a checkpoint of this step and returns its name, such as ``ckpt-350``.
        fold: number of the held-out fold, from 1; 0 for the network itself.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    save: Callable[[], str]
    fold: int = 0


@dataclass(frozen=True)
class TrainingSummary:
    """The result of a training run without the network.

    Attributes:
        history: one row for each epoch.
        best_epoch: number of the epoch with the best weights, from 1.
        checkpoint: name of the last checkpoint, which has the best weights.
        weights_sha256: SHA-256 of the best weights, as `models.training.checkpoints.weights_sha256` computes it.
        parameters: number of parameters of the network.
        validation_logits: logits of the validation part, float32 [messages].
    """

    history: list[Epoch]
    best_epoch: int
    checkpoint: str
    weights_sha256: str
    parameters: int
    validation_logits: npt.NDArray[np.float32]
