"""Trains the network as the pipeline does: the same functions and default settings.

Calibration and threshold are fitted to the training messages only.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from others import HAM_BLOCKED_SHARE
from protocol import Corpus, FloatArray

from models.inference.scorer import Scorer
from models.network.network import ngram_vectors
from models.settings import NetworkSettings, SplitSettings, TextSettings, TrainingSettings, VocabularySettings
from models.statistics.calibration import UNSEEN_SCORES, find_threshold
from models.text.cleaning import clean_texts
from models.text.encoder import TextEncoder
from models.text.vocabulary import build_vocabulary
from models.trained_model.description import DESCRIPTION, collect_unseen_scores, write_trained_model
from models.trained_model.loading import load_trained_model
from models.training.corpus import VALIDATION, assign_part
from models.training.held_out import compute_held_out_logits
from models.training.job import LabelledMessages
from models.training.loop import train

Changes = dict[str, dict[str, Any]]  # values by section and key
_SECTIONS = {
    "text": TextSettings,
    "vocabulary": VocabularySettings,
    "network": NetworkSettings,
    "training": TrainingSettings,
}


class Network:
    """A trained network.

    Attributes:
        seconds: duration of the training, including the preparation of the messages.
        unseen: labels and probabilities of the messages that calibration and threshold were fitted to.
        threshold: the threshold that `[scoring] threshold = auto` finds.
    """

    def __init__(self, training: Corpus, seed: int, changes: Changes | None = None) -> None:
        """Trains with the default settings, except the changes."""
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            train_network(training, seed, Path(scratch), changes)
            scores = pd.read_parquet(Path(scratch, UNSEEN_SCORES))
            model = load_trained_model(Path(scratch))
        encoder = TextEncoder(model.vocabulary, ngram_vectors(model.network))
        self._scorer = Scorer(encoder, model.network, ["/device:CPU:0"])
        self.seconds = time.monotonic() - start
        self.unseen = (scores["spam"].to_numpy(np.int64), scores["probability"].to_numpy())
        self.threshold = find_threshold(*self.unseen, HAM_BLOCKED_SHARE).value

    def probabilities(self, texts: list[str]) -> FloatArray:
        """Returns the spam probabilities, float64 [texts]."""
        return self._scorer.score(texts).probabilities


def train_network(
    corpus: Corpus, seed: int, folder: Path, changes: Changes | None = None
) -> tuple[LabelledMessages, LabelledMessages]:
    """Trains in a folder, unless it has a trained model, and returns the training and the validation part.

    Args:
        corpus: the messages.
        seed: seed of the training and of the parts.
        folder: folder for the trained model.
        changes: settings that are not the default ones.
    """
    sections = {
        name: replace(settings_class(), **(changes or {}).get(name, {})) for name, settings_class in _SECTIONS.items()
    }
    split = SplitSettings(test_share=0.01, salt=str(seed))
    is_validation = np.array([assign_part(text, split) == VALIDATION for text in corpus.texts])
    training, validation = (
        LabelledMessages(part.texts, part.labels.astype(np.int32))
        for part in (corpus.select(np.flatnonzero(rows)) for rows in (~is_validation, is_validation))
    )
    if (folder / DESCRIPTION).exists():
        return training, validation
    text, network = sections["text"], sections["network"]
    vocabulary = build_vocabulary(clean_texts(training.texts, text), sections["vocabulary"], text)
    settings = replace(sections["training"], seed=seed, checkpoint_steps=10**9, keep_checkpoints=1)
    held_out = None
    if settings.held_out_folds:
        held_out = compute_held_out_logits(training, vocabulary, network, settings, folder), training
    summary = train(training, validation, vocabulary, network, settings, folder).summarize()
    unseen = collect_unseen_scores(summary, validation, held_out)
    write_trained_model(summary, vocabulary, network, unseen, folder)
    return training, validation
