"""Held-out scores by cross-validation: each fold of the training part is scored by a network trained on the others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import InputError
from models.inference.scorer import network_logits
from models.settings import NetworkSettings, TrainingSettings
from models.text.encoder import TextEncoder, encode_messages
from models.text.vocabulary import Vocabulary
from models.training.epoch_limit import EpochLimit
from models.training.loop import HELD_OUT, LabelledMessages, Progress, train


def compute_held_out_logits(
    training: LabelledMessages,
    vocabulary: Vocabulary,
    network_settings: NetworkSettings,
    settings: TrainingSettings,
    folder: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    limit: EpochLimit | None = None,
) -> npt.NDArray[np.float32]:
    """Computes logits of the training messages with networks that were not trained on them.

    The messages are split into folds; each fold is scored by a network trained on the other folds. A calibration and a
    threshold fitted to these logits are based on all messages, not only on the few of the validation part.

    A run that is killed and started again resumes where it was. For a finished fold only the logits stay in the folder.

    Args:
        training: messages to split into [training] held_out_folds folds with similar shares of spam.
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
    from sklearn.model_selection import StratifiedKFold

    count, min_messages = settings.held_out_folds, int(np.bincount(training.labels, minlength=2).min())
    if min_messages < count:
        raise InputError(
            f"[training] held_out_folds = {count}: expected at least {count} spam and {count} ham messages in the "
            f"training part, received {min_messages} of one label. Give more labelled messages ([corpus]) or set "
            "held_out_folds = 0."
        )
    logits = np.zeros(len(training.labels), np.float32)
    folds = StratifiedKFold(count, shuffle=True, random_state=settings.seed).split(training.texts, training.labels)
    for number, (rows, held_out_rows) in enumerate(folds, start=1):
        logits_path = folder / HELD_OUT / f"{number}.npy"
        scratch = logits_path.with_suffix("")
        if not logits_path.exists():
            _train_fold(
                training, rows, held_out_rows, number, vocabulary, network_settings, settings, scratch, on_progress,
                limit,
            )  # fmt: skip
        # Always removed, because a kill may have come between writing the logits and removing the folder.
        shutil.rmtree(scratch, ignore_errors=True)
        logits[held_out_rows] = np.load(logits_path, allow_pickle=False)
    return logits


def _train_fold(
    training: LabelledMessages,
    rows: npt.NDArray[np.int64],
    held_out_rows: npt.NDArray[np.int64],
    number: int,
    vocabulary: Vocabulary,
    network_settings: NetworkSettings,
    settings: TrainingSettings,
    scratch: Path,
    on_progress: Callable[[Progress], None],
    limit: EpochLimit | None,
) -> None:
    """Trains a network on the rows and writes the logits of the held-out rows to a file.

    The network is trained in the folder `scratch`. The file is next to it and has the same name with ``.npy``.
    """
    trained = train(
        training.select(rows),
        training.select(held_out_rows),
        vocabulary,
        network_settings,
        settings,
        scratch,
        lambda progress: on_progress(replace(progress, fold=number)),
        limit,
    )
    encoder = TextEncoder(vocabulary, network_settings.ngram_buckets)
    logits = network_logits(trained.network, encode_messages(encoder, training.select(held_out_rows).texts))
    partial = scratch.with_suffix(".partial.npy")
    np.save(partial, logits)
    partial.replace(scratch.with_suffix(".npy"))
