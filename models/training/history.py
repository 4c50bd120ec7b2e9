"""The history of a training: one row an epoch, kept as CSV beside the checkpoints."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Epoch:
    """A row of the history. Losses are mean binary cross-entropies a message, in nats."""

    epoch: int
    steps: int
    loss: float
    validation_loss: float
    validation_pr_auc: float
    best: bool
    seconds: float


def read_history(path: Path, epochs: int | None = None) -> list[Epoch]:
    """Reads `history.csv`, or its first so many epochs: a kill may have left one that no checkpoint knows."""
    if epochs == 0 or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:epochs]
    return [
        Epoch(
            epoch=int(row["epoch"]), steps=int(row["steps"]), loss=float(row["loss"]),
            validation_loss=float(row["validation_loss"]), validation_pr_auc=float(row["validation_pr_auc"]),
            best=row["best"] == "True", seconds=float(row["seconds"]),
        )
        for row in rows
    ]  # fmt: skip


def write_history(path: Path, history: list[Epoch]) -> None:
    """Writes the history as CSV, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*asdict(history[0])])
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in history)
    partial.replace(path)
