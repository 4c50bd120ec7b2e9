"""The fit of the linear part to training messages and to messages that a teacher labelled."""

from __future__ import annotations

import numpy as np
from toy_training import NETWORK, SETTINGS, VOCABULARY, messages

from models.network.linear import LinearWeights
from models.text.encoder import TextEncoder
from models.training.job import LabelledMessages, WeakMessages
from models.training.linear_part import fit_linear_part

TRAINING = messages(60, 1)
WEAKER = WeakMessages(
    ["claim prize", "prize draw claim", "claim your prize", "dinner later", "later at dinner"],
    np.array([1, 1, 1, 0, 0], np.int32),
    0.5,
)


def fit(weaker: WeakMessages | None, training: LabelledMessages = TRAINING) -> LinearWeights:
    return fit_linear_part(TextEncoder(VOCABULARY, NETWORK.ngram_vectors), training, SETTINGS, 4096, weaker)


def test_without_weaker_messages_the_fit_is_repeatable_and_with_them_it_is_another() -> None:
    alone, again, together = fit(None), fit(None), fit(WEAKER)
    np.testing.assert_array_equal(alone.weights, again.weights)
    assert np.count_nonzero(together.weights) > np.count_nonzero(alone.weights)


def test_a_smaller_weight_has_a_smaller_effect() -> None:
    alone = fit(None)
    known = alone.squares > 0
    changes = [
        np.abs(fit(WeakMessages(WEAKER.texts, WEAKER.labels, weight)).weights - alone.weights)[~known].sum()
        for weight in (0.01, 0.5)
    ]
    assert 0 < changes[0] < changes[1]
