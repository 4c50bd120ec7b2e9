"""The batches of an epoch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Number of batches whose messages are sorted by length together, so that a batch has messages of similar length.
_SORTED_BATCHES = 16


def epoch_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[npt.NDArray[np.int64]]:
    """Divides the messages into the batches of an epoch.

    The shuffle depends only on the seed and the epoch. Within a group of 16 batches, messages are sorted by length, so
    that a batch has messages of similar length. The batches of a group are then shuffled again.

    Args:
        lengths: tokens of each message, int64 [messages].
        batch_size: maximum number of messages in a batch.
        seed: [training] seed.
        epoch: number of the epoch, from 0.

    Returns:
        The indices of the messages of each batch, int64 [batch_size or fewer].
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), batch_size * _SORTED_BATCHES):
        group = order[start : start + batch_size * _SORTED_BATCHES]
        group = group[np.argsort(lengths[group], kind="stable")]
        group_batches = [group[start : start + batch_size] for start in range(0, len(group), batch_size)]
        batches += [group_batches[index] for index in random.permutation(len(group_batches))]
    return batches
