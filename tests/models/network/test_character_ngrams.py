"""Tests of the character n-grams: the loops and the TensorFlow operations find what plain Python finds."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.network.character_ngrams import build_feature_matrix, find_features
from models.text.encoder import Characters

FACTOR, PRIME = 1_103_515_245, 2**31 - 1
texts_of_any_kind = st.lists(st.text("aab 1!é日\U0010ffff\x00", max_size=14) | st.text(max_size=30), max_size=6)


def characters(texts: list[str]) -> Characters:
    codes = np.array([ord(sign) for text in texts for sign in text], np.int32)
    return Characters(codes, np.cumsum([0, *map(len, texts)]).astype(np.int64))


def expected_features(text: str, buckets: int) -> dict[int, float]:
    """Finds the buckets of the n-grams of a message and their term frequencies with Python's integers."""
    ngrams = [text[start : start + size] for size in range(1, 6) for start in range(len(text) - size + 1)]
    hashes = []
    for ngram in ngrams:
        hashed = 0
        for sign in ngram:
            hashed = (hashed * FACTOR + ord(sign) + 1) % PRIME
        hashes += [hashed % buckets] * (ngram != " ")
    return {bucket: 1 + math.log(count) for bucket, count in Counter(hashes).items()}


def expected_matrix(texts: list[str], buckets: int) -> np.ndarray:
    matrix = np.zeros((len(texts), buckets))
    for row, text in enumerate(texts):
        for bucket, frequency in expected_features(text, buckets).items():
            matrix[row, bucket] = frequency
    return matrix


@settings(deadline=None, max_examples=150)
@given(texts=texts_of_any_kind, buckets=st.sampled_from([1, 2, 61, 1024]))
@example(texts=[], buckets=7)
@example(texts=["", " ", "  ", "aaaaaa"], buckets=4096)
def test_the_loops_count_each_n_gram_of_a_message(texts: list[str], buckets: int) -> None:
    matrix = build_feature_matrix(characters(texts), buckets)
    np.testing.assert_allclose(matrix.toarray(), expected_matrix(texts, buckets), rtol=1e-12)
    assert matrix.has_sorted_indices


@settings(deadline=None, max_examples=150)
@given(texts=texts_of_any_kind, buckets=st.sampled_from([1, 2, 61, 1024]))
@example(texts=[], buckets=7)
@example(texts=["", " ", "  ", "aaaaaa", "ab"], buckets=4096)
def test_the_tensorflow_operations_find_the_features_of_the_loops(texts: list[str], buckets: int) -> None:
    read = characters(texts)
    messages, features, frequencies = find_features(
        tf.constant(read.codes), tf.constant(np.diff(read.starts), tf.int32), buckets
    )
    found = np.zeros((len(texts), buckets))
    np.add.at(found, (messages.numpy(), features.numpy()), frequencies.numpy())
    np.testing.assert_allclose(found, build_feature_matrix(read, buckets).toarray(), rtol=1e-6)


def test_n_grams_of_other_characters_rarely_share_a_bucket() -> None:
    words = [f"{first}{second}{third}" for first in "abcdefghij" for second in "klmnopqrst" for third in "uvwxyz0123"]
    matrix = build_feature_matrix(characters(words), 2**18)
    distinct = {word[start : start + size] for word in words for size in range(1, 4) for start in range(4 - size)}
    assert len(np.unique(matrix.indices)) > 0.99 * len(distinct)


def test_a_long_message_fits() -> None:
    text = "".join(chr(33 + index * 7 % 90) for index in range(5000))
    matrix = build_feature_matrix(characters([text, "a"]), 2**24)
    assert matrix.shape == (2, 2**24)
    assert matrix[1].nnz == 1
