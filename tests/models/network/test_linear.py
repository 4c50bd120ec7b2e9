"""Tests of the linear part: its features, its fit, and the same result from the layer of the network."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.inference.scorer import network_logits
from models.network.linear import LinearWeights, build_feature_matrix, fit_linear
from models.network.network import LINEAR, LinearScore, build_network, set_linear
from models.settings import NetworkSettings, TextSettings, VocabularySettings
from models.text.cleaning import clean_texts
from models.text.encoder import Characters, EncodedMessages, TextEncoder, encode_messages
from models.text.vocabulary import build_vocabulary

BUCKETS = 509  # so few that some n-grams and pairs share a bucket
SPAM = ["WIN a free prize now!", "free entry, call 08712345678", "you have won £500", "claim your FREE prize"]
HAM = ["see you at lunch", "call me later mum", "are you home now?", "ok, later then"]
TEXTS = [f"{text}{end}" for text in (*SPAM, *HAM) for end in ("", " ok", " !!")]
LABELS = np.array([text.startswith(tuple(SPAM)) for text in TEXTS], np.int32)
WORDS = ["free", "FREE", "now", "now", "!", "£5", "f r e e", "", "日本", "7"]
messages_of_any_kind = st.lists(
    st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join) | st.text(max_size=12), max_size=6
)


@functools.cache
def encoder() -> TextEncoder:
    text = TextSettings()
    return TextEncoder(build_vocabulary(clean_texts(TEXTS, text), VocabularySettings(min_count=1), text), 64)


def encoded(texts: list[str]) -> EncodedMessages:
    return encode_messages(encoder(), texts, batch_size=4)


def characters(texts: list[str]) -> Characters:
    return encoded(texts).characters


@functools.cache
def fitted() -> LinearWeights:
    return fit_linear(characters(TEXTS), LABELS, BUCKETS)


def compute_logits(weights: LinearWeights, messages: EncodedMessages) -> np.ndarray:
    """Computes the logits by the formula, in float64."""
    frequencies = build_feature_matrix(messages.characters, BUCKETS)
    squares = frequencies.power(2) @ weights.squares.astype(np.float64)
    return (frequencies @ weights.weights.astype(np.float64)) / np.sqrt(np.maximum(squares, 1e-12)) + weights.bias[0]


@settings(deadline=None, max_examples=100)
@given(texts=messages_of_any_kind.filter(bool), seed=st.integers(0, 99), padding=st.integers(0, 9))
@example(texts=["free free free", "", "free now free now free", "free free free"], seed=0, padding=3)
def test_the_layer_of_the_network_returns_the_result_of_the_formula(texts: list[str], seed: int, padding: int) -> None:
    random = np.random.default_rng(seed)
    weights = LinearWeights(
        random.normal(size=BUCKETS).astype(np.float32),
        random.uniform(0.5, 40, BUCKETS).astype(np.float32),
        random.normal(size=1).astype(np.float32),
    )
    layer = LinearScore(BUCKETS)
    layer.build()
    layer.set_weights([weights.weights, weights.squares, weights.bias])
    messages = encoded(texts)
    batch = messages.batch(np.arange(len(texts)), int(messages.lengths.max()) + padding)
    np.testing.assert_allclose(layer(batch).numpy(), compute_logits(weights, messages), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("buckets", [1, 2, 7, 2**22])
def test_any_number_of_buckets_works(buckets: int) -> None:
    messages = encoded(["free now !", "free", "now free now"])
    layer = LinearScore(buckets)
    layer.build()
    weights = np.linspace(-1, 1, buckets).astype(np.float32)
    layer.set_weights([weights, np.ones(buckets, np.float32), np.zeros(1, np.float32)])
    frequencies = build_feature_matrix(messages.characters, buckets)
    expected = (frequencies @ weights) / np.sqrt(frequencies.power(2) @ np.ones(buckets))
    np.testing.assert_allclose(layer(messages.batch(np.arange(3), 4)).numpy(), expected, rtol=1e-3, atol=1e-4)


def test_the_linear_part_separates_the_classes_and_returns_logits() -> None:
    logits = compute_logits(fitted(), encoded(TEXTS))
    assert ((logits > 0) == LABELS).all()
    new = compute_logits(fitted(), encoded(["WIN your free entry now", "see you later"]))
    assert new[0] > new[1]
    probabilities = 1 / (1 + np.exp(-logits))
    assert abs(probabilities.mean() - LABELS.mean()) < 0.1


def test_equal_messages_give_equal_weights() -> None:
    again = fit_linear(characters(list(TEXTS)), LABELS.copy(), BUCKETS)
    for name in ("weights", "squares", "bias"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted(), name))
    assert [array.dtype for array in (again.weights, again.squares, again.bias)] == [np.float32] * 3
    assert [array.shape for array in (again.weights, again.squares, again.bias)] == [(BUCKETS,), (BUCKETS,), (1,)]


def test_features_have_scikit_learn_s_inverse_document_frequencies() -> None:
    from sklearn.feature_extraction.text import TfidfTransformer

    matrix = build_feature_matrix(characters(TEXTS), BUCKETS)
    frequencies = TfidfTransformer().fit(matrix).idf_
    occurs = np.bincount(matrix.indices, minlength=BUCKETS) > 0
    np.testing.assert_allclose(fitted().squares, np.where(occurs, frequencies**2, 0), rtol=1e-6)
    assert not occurs.all()


@pytest.mark.parametrize("spam", [1, 2])
def test_a_class_with_few_messages_can_be_fitted(spam: int) -> None:
    texts, labels = [*SPAM[:spam], *HAM], np.array([1] * spam + [0] * len(HAM), np.int32)
    weights = fit_linear(characters(texts), labels, BUCKETS)
    logits = compute_logits(weights, encoded(texts))
    assert logits[:spam].min() > logits[spam:].max()


def test_a_network_with_a_zero_recurrent_part_returns_the_linear_logit() -> None:
    architecture = NetworkSettings(cell="simple", embedding_size=2, rnn_units=2, ngram_buckets=BUCKETS)
    network = build_network(architecture, len(encoder().vocabulary))
    for weight in network.weights:
        weight.assign(weight.value * 0)
    assert not network_logits(network, encoded(TEXTS)).any()
    set_linear(network, fitted())
    assert all(weight.trainable is False for weight in network.get_layer(LINEAR).weights)
    np.testing.assert_allclose(
        network_logits(network, encoded(TEXTS)), compute_logits(fitted(), encoded(TEXTS)), atol=1e-4
    )
