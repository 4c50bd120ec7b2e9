"""The history of a training: one row for each epoch, stored as CSV next to the checkpoints."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path

HISTORY = "history.csv"


@dataclass(frozen=True)
class Epoch:
    """A row of the history.

    Attributes:
        epoch: number of the epoch, from 1.
        steps: training steps in the epoch.
        loss: mean binary cross-entropy of the training messages, in nats.
        accuracy: share of the training messages whose logit had the right sign in the step that they were part of; NaN
            in a row that a version of this program without it wrote.
        validation_loss: mean binary cross-entropy of the validation messages, in nats.
        validation_accuracy: share of the validation messages whose logit has the right sign; NaN as above.
        validation_pr_auc: average precision on the validation messages.
        best: whether the validation loss is the lowest so far.
        seconds: time that the process that finished the epoch spent on it.
    """

    epoch: int
    steps: int
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_pr_auc: float
    best: bool
    seconds: float


def read_history(path: Path, epochs: int | None = None) -> list[Epoch]:
    """Reads `history.csv`; returns no rows if the file does not exist. A column that an earlier version lacks is NaN.

    Args:
        path: the file.
        epochs: number of epochs to read; None reads all. After a kill the file may have an epoch that no checkpoint
            has.
    """
    if epochs == 0 or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:epochs]
    return [
        Epoch(
            epoch=int(row["epoch"]), steps=int(row["steps"]), loss=float(row["loss"]),
            accuracy=float(row.get("accuracy", "nan")), validation_loss=float(row["validation_loss"]),
            validation_accuracy=float(row.get("validation_accuracy", "nan")),
            validation_pr_auc=float(row["validation_pr_auc"]), best=row["best"] == "True",
            seconds=float(row["seconds"]),
        )
        for row in rows
    ]  # fmt: skip


def write_history(path: Path, history: list[Epoch]) -> None:
    """Writes the history as CSV, atomically."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*asdict(history[0])])
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in history)
    partial.replace(path)
