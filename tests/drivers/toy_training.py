"""A training that takes seconds: short messages, of which those with the word "win" are spam, and a tiny network."""

from __future__ import annotations

import numpy as np

from models.settings import NetworkSettings, TextSettings, TrainingSettings
from models.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from models.training.job import LabelledMessages

WORDS = ("win", "mum", "one", "two", "three", "four")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS), (0, 0, 6, 5, 4, 3, 2, 1), TextSettings())
# Small enough to be traced in a second. Dropout is on, because its random state is easily lost in a kill.
NETWORK = NetworkSettings(
    cell="simple", bidirectional=False, embedding_size=4, rnn_units=4, dropout=0.3, word_dropout=0.1, ngram_buckets=64,
    ngram_vectors=16,
)  # fmt: skip
# Augmentation is on, because its random choices must be the same after a kill too.
SETTINGS = TrainingSettings(
    learning_rate=0.05, batch_size=8, epochs=4, seed=3, checkpoint_steps=3, augmentation=0.3, held_out_folds=2
)


def messages(count: int, seed: int, *, noise: bool = False) -> LabelledMessages:
    """Returns messages of one to eight words; those with "win" are spam. With noise, labels are shuffled."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 9, count)
    spam = np.arange(count) % 3 == 0
    texts = [
        " ".join(["win" if is_spam else "mum", *random.choice(WORDS[1:], length - 1)])
        for length, is_spam in zip(lengths, spam, strict=True)
    ]
    labels = random.permutation(spam) if noise else spam
    return LabelledMessages(texts, labels.astype(np.int32))
