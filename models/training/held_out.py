"""Logits of messages that a network was not trained on, by cross-validation over the training part."""

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
    watch: Callable[[Progress], None] = lambda _: None,
    limit: EpochLimit | None = None,
) -> npt.NDArray[np.float32]:
    """What networks say of messages that they were not trained on: each fold is scored by one trained on the others.

    A calibration and a threshold found with these rest on all messages, not on the few of the validation part. Killed
    and started again it goes on where it was; of a fold that is done only the logits stay in the folder.

    Args:
        training: messages, in [training] held_out_folds folds of like shares of spam.
        vocabulary: what the messages are encoded with.
        network_settings: the network's make.
        settings: as for `train`.
        folder: takes ``held_out/``.
        watch: as for `train`.
        limit: as for `train`, for each of the networks.

    Returns:
        Logits, float32 [messages].

    Raises:
        InputError: fewer messages of a kind than folds.
    """
    from sklearn.model_selection import StratifiedKFold

    count, fewest = settings.held_out_folds, int(np.bincount(training.labels, minlength=2).min())
    if fewest < count:
        raise InputError(
            f"[training] held_out_folds = {count}: expected as many messages of each kind in the training part, "
            f"received {fewest} of one. Give more labelled messages ([corpus]) or set held_out_folds = 0."
        )
    logits = np.zeros(len(training.labels), np.float32)
    folds = StratifiedKFold(count, shuffle=True, random_state=settings.seed).split(training.texts, training.labels)
    for number, (rest, fold) in enumerate(folds, start=1):
        done = folder / HELD_OUT / f"{number}.npy"
        scratch = done.with_suffix("")
        if not done.exists():
            _train_without(training, rest, fold, number, vocabulary, network_settings, settings, scratch, watch, limit)
        # Here, for a kill may have come between the logits and this.
        shutil.rmtree(scratch, ignore_errors=True)
        logits[fold] = np.load(done, allow_pickle=False)
    return logits


def _train_without(
    training: LabelledMessages,
    rest: npt.NDArray[np.int64],
    fold: npt.NDArray[np.int64],
    number: int,
    vocabulary: Vocabulary,
    network_settings: NetworkSettings,
    settings: TrainingSettings,
    scratch: Path,
    watch: Callable[[Progress], None],
    limit: EpochLimit | None,
) -> None:
    """Trains on the rest in a folder and leaves the fold's logits in a file beside it, named as it is."""
    trained = train(
        training.at(rest),
        training.at(fold),
        vocabulary,
        network_settings,
        settings,
        scratch,
        lambda progress: watch(replace(progress, fold=number)),
        limit,
    )
    encoder = TextEncoder(vocabulary, network_settings.ngram_buckets)
    logits = network_logits(trained.network, encode_messages(encoder, training.at(fold).texts))
    partial = scratch.with_suffix(".partial.npy")
    np.save(partial, logits)
    partial.replace(scratch.with_suffix(".npy"))
