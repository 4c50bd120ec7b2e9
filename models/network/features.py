"""The features that the linear part of the network weighs: the character n-grams of a message's tokens, and its pairs
of neighbouring tokens, each counted once however often it occurs.

Found here with sparse matrices, for training and for scoring on a processor; `models.network.network.LinearScore`
finds the
same in the graph.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.text.encoder import EncodedMessages

# Of the last n-gram of the token before, which is the whole token: what a pair of tokens is hashed with.
PAIR_FACTOR = 31


def distinct_features(messages: EncodedMessages, buckets: int) -> sp.csr_matrix:
    """Which features each message has, bool [messages, buckets]; those of a message in no order.

    A product of two sparse matrices: which tokens and pairs each message has, and which features each of these has.
    """
    table = messages.table
    pairs, follows = _pairs(messages, buckets)
    parts = len(table.words) + len(pairs)
    features = np.concatenate([table.ngrams, pairs])
    starts = np.concatenate([table.starts, table.starts[-1] + np.arange(1, len(pairs) + 1)])
    has = sp.csr_matrix((np.ones(len(features), bool), features, starts.astype(np.int32)), shape=(parts, buckets))
    occurs = np.empty(len(messages.rows) + len(pairs), np.int32)
    # Behind each token but a message's last stands the pair that it begins.
    places = np.arange(len(messages.rows)) + np.cumsum(follows) - follows
    occurs[places] = messages.rows
    occurs[places[follows] + 1] = len(table.words) + np.arange(len(pairs))
    lengths = messages.starts + np.concatenate([[0], np.cumsum(follows)])[messages.starts]
    within = (np.ones(len(occurs), bool), occurs, lengths.astype(np.int32))
    return sp.csr_matrix(within, shape=(len(messages), parts)) @ has


def _pairs(messages: EncodedMessages, buckets: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """Hashed pairs of neighbours, int32 [pairs], and of which tokens a neighbour follows, bool [tokens]."""
    table = messages.table
    follows = np.ones(len(messages.rows), bool)
    follows[messages.starts[1:] - 1] = False
    whole = table.ngrams[np.maximum(table.starts[1:] - 1, 0)] if len(table.ngrams) else np.zeros(len(table.words), int)
    said = whole[messages.rows].astype(np.int64)
    following = np.flatnonzero(follows)
    pairs = (said[following] * PAIR_FACTOR + said[following + 1] + 1) % buckets
    return pairs.astype(np.int32), follows
