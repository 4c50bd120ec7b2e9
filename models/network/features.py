"""The features of the linear part of the network: character n-grams of tokens, and pairs of neighbouring tokens.

Each feature of a message counts once, however often it occurs. This module finds them with sparse matrices, for
training and for scoring on a CPU. `models.network.network.LinearScore` finds the same features in the TensorFlow graph.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.text.encoder import EncodedMessages

# Factor for hashing a pair of tokens. It multiplies the last n-gram of the first token, which is the whole token.
PAIR_FACTOR = 31


def distinct_features(messages: EncodedMessages, buckets: int) -> sp.csr_matrix:
    """Returns which features each message has: bool [messages, buckets], the indices of a row unsorted.

    It is the product of two sparse matrices: the tokens and pairs of each message, and the features of each token and
    pair.

    Args:
        messages: encoded messages.
        buckets: hash buckets of the n-grams.
    """
    table = messages.table
    pairs, has_next = _hash_pairs(messages, buckets)
    parts = len(table.words) + len(pairs)
    features = np.concatenate([table.ngrams, pairs])
    starts = np.concatenate([table.starts, table.starts[-1] + np.arange(1, len(pairs) + 1)])
    features_of_parts = sp.csr_matrix(
        (np.ones(len(features), bool), features, starts.astype(np.int32)), shape=(parts, buckets)
    )
    part_ids = np.empty(len(messages.rows) + len(pairs), np.int32)
    # Each token except the last of a message is followed by the pair that it starts.
    positions = np.arange(len(messages.rows)) + np.cumsum(has_next) - has_next
    part_ids[positions] = messages.rows
    part_ids[positions[has_next] + 1] = len(table.words) + np.arange(len(pairs))
    message_starts = messages.starts + np.concatenate([[0], np.cumsum(has_next)])[messages.starts]
    entries = (np.ones(len(part_ids), bool), part_ids, message_starts.astype(np.int32))
    return sp.csr_matrix(entries, shape=(len(messages), parts)) @ features_of_parts


def _hash_pairs(messages: EncodedMessages, buckets: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Hashes pairs of neighbouring tokens.

    Returns:
        The pairs, int32 [pairs], and whether each token is followed by another of its message, bool [tokens].
    """
    table = messages.table
    has_next = np.ones(len(messages.rows), bool)
    has_next[messages.starts[1:] - 1] = False
    whole = table.ngrams[np.maximum(table.starts[1:] - 1, 0)] if len(table.ngrams) else np.zeros(len(table.words), int)
    keys = whole[messages.rows].astype(np.int64)
    first = np.flatnonzero(has_next)
    pairs = (keys[first] * PAIR_FACTOR + keys[first + 1] + 1) % buckets
    return pairs.astype(np.int32), has_next
