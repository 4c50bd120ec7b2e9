"""The features of the linear part: the character n-grams of a message, hashed into buckets.

An n-gram is a run of 1 to 5 characters, also across words, except a single space. Its hash is the polynomial of its
code points modulo a Mersenne prime (Karp and Rabin 1987, "Efficient randomized pattern-matching algorithms"), so the
hash of a longer n-gram continues that of a shorter one. A feature that occurs n times in a message counts 1 + ln n
(sublinear term frequency; Manning, Raghavan and Schütze 2008, "Introduction to Information Retrieval", 6.4.1).

Compiled loops find the features for training and for scoring on a CPU, and TensorFlow operations find the same features
in the graph.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import tensorflow as tf

from models.hashing.compiled import compiled
from models.text.encoder import Characters

CodeArray = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

MAX_SIZE = 5  # characters
_PRIME_BITS = 31
_PRIME = 2**_PRIME_BITS - 1
_FACTOR = 1_103_515_245  # below the prime, so that no product exceeds 62 bits
_SPACE = ord(" ")
# Keeps the length of a vector above 0, so that a message without a known n-gram has the logit of the bias.
MIN_SQUARES = 1e-12
_FEATURE_BITS = 32


def build_feature_matrix(characters: Characters, buckets: int) -> sp.csr_matrix:
    """Returns the term frequencies of the messages: float64 [messages, buckets], the indices of a row sorted.

    Args:
        characters: of the messages.
        buckets: number of buckets that n-grams are hashed to.
    """
    ends = np.zeros(len(characters.starts), np.int64)
    capacity = MAX_SIZE * len(characters.codes)
    features, frequencies = np.empty(capacity, np.int32), np.empty(capacity)
    _collect_all(characters.codes, characters.starts, buckets, features, frequencies, ends)
    # Copies, because the capacity is several times what is used.
    entries = frequencies[: ends[-1]].copy(), features[: ends[-1]].copy(), ends
    matrix = sp.csr_matrix(entries, shape=(len(ends) - 1, buckets))
    matrix.sort_indices()
    return matrix


@compiled
def _collect_all(
    codes: CodeArray, starts: IntArray, buckets: int, features: CodeArray, frequencies: FloatArray, ends: IntArray
) -> None:
    slots = new_slots(MAX_SIZE * np.diff(starts).max()) if len(starts) > 1 else new_slots(0)
    for message in range(len(starts) - 1):
        first = ends[message]
        count = collect_features(
            codes[starts[message] : starts[message + 1]], buckets, message, slots, features[first:], frequencies[first:]
        )
        ends[message + 1] = first + count


@compiled
def new_slots(features: int) -> IntArray:
    """Returns an empty hash table that `collect_features` can use for messages of up to so many features."""
    size = 2
    while size < 2 * features:
        size *= 2
    return np.full((size, 2), -1, np.int64)


@compiled
def collect_features(
    codes: CodeArray, buckets: int, message: int, slots: IntArray, features: CodeArray, frequencies: FloatArray
) -> int:
    """Writes the distinct features of a message and their term frequencies, in the order of their first occurrence.

    Args:
        codes: code points of the message.
        buckets: number of buckets that n-grams are hashed to.
        message: a number from 0 that no other message has for which these slots are used.
        slots: from `new_slots`, for five features for each character.
        features: output, with capacity for those of the message.
        frequencies: output, of the same capacity.

    Returns:
        The number of distinct features.
    """
    last_slot, count = len(slots) - 1, 0
    for start in range(len(codes)):
        hashed = 0
        for index in range(start, min(start + MAX_SIZE, len(codes))):
            hashed = hashed * _FACTOR + codes[index] + 1
            hashed = (hashed & _PRIME) + (hashed >> _PRIME_BITS)
            if hashed >= _PRIME:
                hashed -= _PRIME
            if index == start and codes[index] == _SPACE:
                continue
            feature = hashed % buckets
            entry, slot = (np.int64(message) << _FEATURE_BITS) | feature, feature & last_slot
            # Slots of other messages are free.
            while slots[slot, 0] >> _FEATURE_BITS == message and slots[slot, 0] != entry:
                slot = (slot + 1) & last_slot
            if slots[slot, 0] == entry:
                frequencies[slots[slot, 1]] += 1
            else:
                slots[slot, 0], slots[slot, 1] = entry, count
                features[count], frequencies[count] = feature, 1
                count += 1
    for index in range(count):
        if frequencies[index] > 1:
            frequencies[index] = 1 + math.log(frequencies[index])
    return count


def find_features(codes: tf.Tensor, counts: tf.Tensor, buckets: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds the features of messages with TensorFlow operations.

    Args:
        codes: code points of all messages, int32 [characters].
        counts: number of characters of each message, int32 [messages].
        buckets: number of buckets that n-grams are hashed to.

    Returns:
        For each distinct feature of each message: its message, int64; its bucket, int64; its term frequency, float32;
        all of shape [features].
    """
    messages = tf.repeat(tf.range(tf.size(counts, tf.int64)), counts)
    # Characters of the message from each one on, itself included.
    left = tf.repeat(tf.cumsum(counts), counts) - tf.range(tf.size(codes))
    hashed = tf.zeros_like(codes, tf.int64)
    found = []
    for size in range(1, MAX_SIZE + 1):
        # After the last characters follow others, or zeros; such n-grams are not used.
        following = tf.concat([codes[size - 1 :], tf.zeros([tf.minimum(size - 1, tf.size(codes))], tf.int32)], axis=0)
        hashed = tf.math.floormod(hashed * _FACTOR + tf.cast(following, tf.int64) + 1, _PRIME)
        is_ngram = left >= size if size > 1 else codes != _SPACE
        found.append(tf.boolean_mask(messages * buckets + hashed % buckets, is_ngram))
    distinct, _, occurrences = tf.unique_with_counts(tf.concat(found, axis=0))
    frequencies = 1.0 + tf.math.log(tf.cast(occurrences, tf.float32))
    return distinct // buckets, distinct % buckets, frequencies
