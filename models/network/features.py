"""The features of the linear part of the network: character n-grams of tokens, and pairs of neighbouring tokens.

Each feature of a message counts once, however often it occurs. This module finds them with compiled loops, for training
and for scoring on a CPU. `models.network.network.LinearScore` finds the same features in the TensorFlow graph.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.hashing.compiled import compiled
from models.text.encoder import EncodedMessages

TokenArray = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.int64]

# Factor for hashing a pair of tokens. It multiplies the last n-gram of the first token, which is the whole token.
PAIR_FACTOR = 31
_FEATURE_BITS = 32


def distinct_features(messages: EncodedMessages, buckets: int) -> sp.csr_matrix:
    """Returns which features each message has: bool [messages, buckets], the indices of a row unsorted.

    Args:
        messages: encoded messages.
        buckets: hash buckets of the n-grams.
    """
    table = messages.table
    ends = np.zeros(len(messages) + 1, np.int64)
    # No message has more features than its tokens have n-grams and pairs.
    features = np.empty(int(np.diff(table.starts)[messages.rows].sum()) + len(messages.rows), np.int32)
    _collect_all(messages.rows, messages.starts, table.ngrams, table.starts, buckets, features, ends)
    entries = (np.ones(int(ends[-1]), bool), features[: ends[-1]], ends)
    return sp.csr_matrix(entries, shape=(len(messages), buckets))


@compiled
def _collect_all(
    rows: TokenArray,
    starts: IntArray,
    ngrams: TokenArray,
    ngram_starts: IntArray,
    buckets: int,
    features: TokenArray,
    ends: IntArray,
) -> None:
    slots = new_slots(max_features(rows, starts[:-1], np.diff(starts), ngram_starts))
    for message in range(len(starts) - 1):
        tokens = rows[starts[message] : starts[message + 1]]
        count = collect_features(tokens, ngrams, ngram_starts, buckets, message, slots, features[ends[message] :])
        ends[message + 1] = ends[message] + count


@compiled
def max_features(rows: TokenArray, starts: IntArray, lengths: IntArray, ngram_starts: IntArray) -> int:
    """Returns a number of features that no message exceeds.

    Args:
        rows: rows of the token table.
        starts: index in `rows` of each message's first token.
        lengths: number of tokens of each message.
        ngram_starts: `starts` of the token table.
    """
    most = 0
    for message in range(len(starts)):
        count = lengths[message]  # pairs
        for index in range(starts[message], starts[message] + lengths[message]):
            count += ngram_starts[rows[index] + 1] - ngram_starts[rows[index]]
        most = max(most, count)
    return most


@compiled
def new_slots(features: int) -> IntArray:
    """Returns an empty hash table that `collect_features` can use for messages of up to so many features."""
    size = 2
    while size < 2 * features:
        size *= 2
    return np.full(size, -1, np.int64)


@compiled
def collect_features(
    tokens: TokenArray,
    ngrams: TokenArray,
    ngram_starts: IntArray,
    buckets: int,
    message: int,
    slots: IntArray,
    features: TokenArray,
) -> int:
    """Writes the distinct features of a message into `features`, in the order of their first occurrence.

    Args:
        tokens: rows of the token table.
        ngrams: `ngrams` of the token table.
        ngram_starts: `starts` of the token table.
        buckets: hash buckets of the n-grams.
        message: a number from 0 that no other message has for which these slots are used.
        slots: from `new_slots`.
        features: with capacity for those of the message.

    Returns:
        The number of distinct features.
    """
    count = 0
    for position in range(len(tokens)):
        token = tokens[position]
        for index in range(ngram_starts[token], ngram_starts[token + 1]):
            count += _is_new(ngrams[index], message, slots, features, count)
        if position + 1 < len(tokens):
            first, second = _whole(token, ngrams, ngram_starts), _whole(tokens[position + 1], ngrams, ngram_starts)
            count += _is_new((first * PAIR_FACTOR + second + 1) % buckets, message, slots, features, count)
    return count


@compiled
def _whole(token: int, ngrams: TokenArray, ngram_starts: IntArray) -> int:
    """Returns the last n-gram of a token, which is the whole token."""
    return int(ngrams[max(ngram_starts[token + 1] - 1, 0)]) if len(ngrams) else 0


@compiled
def _is_new(feature: int, message: int, slots: IntArray, features: TokenArray, count: int) -> bool:
    """Returns whether a message does not have a feature yet, and adds it as the last of `count` features."""
    entry, last_slot = (np.int64(message) << _FEATURE_BITS) | np.int64(feature), len(slots) - 1
    slot = np.int64(feature) & last_slot
    while slots[slot] >> _FEATURE_BITS == message:  # not empty, and not left by another message
        if slots[slot] == entry:
            return False
        slot = (slot + 1) & last_slot
    slots[slot] = entry
    features[count] = feature
    return True
