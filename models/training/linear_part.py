"""Fits the linear part to training messages, rewritten copies of them, and messages that a teacher labelled."""

from __future__ import annotations

from models.network.linear import LinearWeights, WeakLabels, fit_linear
from models.settings import TrainingSettings
from models.text.encoder import TextEncoder, read_characters
from models.training.augmentation import augment_texts
from models.training.job import LabelledMessages, WeakMessages

_COPIES = 3  # rewritten copies of the training messages


def fit_linear_part(
    encoder: TextEncoder,
    training: LabelledMessages,
    settings: TrainingSettings,
    buckets: int,
    weaker: WeakMessages | None = None,
) -> LinearWeights:
    """Fits the linear part.

    Args:
        encoder: reads the characters of messages.
        training: messages to train on.
        settings: share of rewriting and seed.
        buckets: number of buckets that n-grams are hashed to.
        weaker: messages that a teacher labelled.
    """
    rewritten = [
        read_characters(encoder, augment_texts(training.texts, settings.augmentation, settings.seed, copy))
        for copy in range(_COPIES if settings.augmentation else 0)
    ]
    weak = WeakLabels(read_characters(encoder, weaker.texts), weaker.labels, weaker.weight) if weaker else None
    return fit_linear(read_characters(encoder, training.texts), training.labels, buckets, rewritten, weak)
