"""Held-out scores by cross-validation: each fold of the training part is scored by a network trained on the others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.settings import NetworkSettings, TrainingSettings
from models.text.vocabulary import Vocabulary
from models.training.epoch_limit import EpochLimit
from models.training.folds import Fold, read_held_out_logits, split_folds
from models.training.job import LabelledMessages, Progress, WeakMessages
from models.training.loop import train
from models.training.replicas import Replicas


def compute_held_out_logits(
    training: LabelledMessages,
    vocabulary: Vocabulary,
    network_settings: NetworkSettings,
    settings: TrainingSettings,
    folder: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    limit: EpochLimit | None = None,
) -> npt.NDArray[np.float32]:
    """Computes logits of the training messages with networks that were not trained on them, one fold after the other.

    A calibration and a threshold fitted to these logits are based on all messages, not only on the few of the
    validation part. A run that is killed and started again resumes where it was.

    Args:
        training: messages to split into [training] held_out_folds folds.
        vocabulary: the vocabulary for encoding the messages.
        network_settings: the architecture of the network.
        settings: as for `train`.
        folder: the folder in which ``held_out/`` is written.
        on_progress: as for `train`.
        limit: as for `train`, for each of the networks.

    Returns:
        Logits, float32 [messages].

    Raises:
        InputError: there are fewer spam or ham messages than folds.
    """
    folds = split_folds(training, settings, folder)
    for fold in folds:
        train_fold(training, fold, vocabulary, network_settings, settings, on_progress, limit)
    return read_held_out_logits(folds)


def train_fold(
    training: LabelledMessages,
    fold: Fold,
    vocabulary: Vocabulary,
    network_settings: NetworkSettings,
    settings: TrainingSettings,
    on_progress: Callable[[Progress], None] = lambda _: None,
    limit: EpochLimit | None = None,
    replicas: Replicas | None = None,
    weaker: WeakMessages | None = None,
) -> None:
    """Trains the network of a fold, unless it is finished, and writes the logits of its held-out messages.

    Only the logits stay in the folder. The arguments are those of `train`.
    """
    if not fold.is_finished:
        trained = train(
            training.select(fold.rows), training.select(fold.held_out_rows), vocabulary, network_settings, settings,
            fold.folder, lambda progress: on_progress(replace(progress, fold=fold.number)), limit, replicas,
            weaker=weaker,
        )  # fmt: skip
        _write_logits(trained.validation_logits, fold.logits_path)
    # Always removed, because a kill may have come between writing the logits and removing the folder.
    shutil.rmtree(fold.folder, ignore_errors=True)


def _write_logits(logits: npt.NDArray[np.float32], path: Path) -> None:
    partial = path.with_suffix(".partial.npy")
    np.save(partial, logits)
    partial.replace(path)
