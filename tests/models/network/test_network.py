"""Tests of the network in every architecture: shapes, sizes, seeds, gradients, and logits independent of padding."""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.network.network import (
    INPUTS,
    LINEAR,
    MaskedPooling,
    TokenVectors,
    build_network,
    calibrate,
    has_linear,
    ngram_vectors,
    recurrent_part,
)
from models.settings import NetworkSettings
from models.statistics.calibration import Calibration
from models.text.encoder import Characters, EncodedMessages, TokenTable
from models.text.tokens import SHAPES
from models.text.vocabulary import PADDING_ID, UNKNOWN_ID
from models.training.checkpoints import weights_sha256

VOCABULARY_SIZE, EMBEDDING, UNITS, BUCKETS, VECTORS = 11, 5, 3, 31, 13


def network_settings(cell: str, bidirectional: bool, pooling: str, vectors: int, linear: bool) -> NetworkSettings:
    return NetworkSettings(
        cell=cell, bidirectional=bidirectional, embedding_size=EMBEDDING, rnn_units=UNITS, pooling=pooling, dropout=0.5,
        ngram_buckets=BUCKETS, ngram_vectors=vectors, linear=linear,
    )  # fmt: skip


ARCHITECTURES = [
    *(
        network_settings(*options, VECTORS, True)
        for options in itertools.product(("gru", "lstm", "simple"), (False, True), ("max+mean",))
    ),
    *(network_settings("gru", True, pooling, VECTORS, True) for pooling in ("max", "last")),
    *(network_settings("simple", False, "last", vectors, False) for vectors in (VECTORS, 0)),
]
# The books' network: letters only, one layer of 15 simple units over vectors of 25, read left to right.
BOOKS = NetworkSettings(
    cell="simple", bidirectional=False, embedding_size=25, rnn_units=15, pooling="last", dropout=0.0, word_dropout=0.0,
    ngram_vectors=0, linear=False,
)  # fmt: skip


def architecture_id(architecture: NetworkSettings) -> str:
    directions = "both" if architecture.bidirectional else "one"
    parts = [architecture.cell, directions, architecture.pooling, f"{architecture.ngram_vectors}"]
    return "-".join([*parts, "linear"] if architecture.linear else parts)


every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES, ids=architecture_id)


@functools.cache
def messages() -> EncodedMessages:
    """Messages with repeated tokens and pairs, and one with a single token; tokens with one to six n-grams."""
    random = np.random.default_rng(4)
    counts = np.array([0, *random.integers(1, 7, 12)])
    table = TokenTable(
        np.concatenate([[PADDING_ID], random.integers(1, VOCABULARY_SIZE, 12)]).astype(np.int32),
        np.concatenate([[0], random.integers(0, SHAPES, 12)]).astype(np.int32),
        random.integers(0, VECTORS, counts.sum()).astype(np.int32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )
    rows = [[1], [5, 1, 1, 7], [4, 4, 4, 4, 4, 4, 10], [2, 3, 2, 3, 2, 3], [12, 11, 10, 9, 8, 7, 6]]
    starts = np.concatenate([[0], np.cumsum([len(message) for message in rows])]).astype(np.int64)
    text_starts = np.array([0, 3, 3, 12, 30, 31])
    characters = Characters(random.integers(32, 40, text_starts[-1]).astype(np.int32), text_starts)
    return EncodedMessages(np.concatenate(rows).astype(np.int32), starts, table, characters)


def with_random_weights(network: keras.Model, seed: int = 0) -> keras.Model:
    """Sets all weights to random values, also those that start at zero; squares are positive."""
    random = np.random.default_rng(seed)
    for weight in network.weights:
        weight.assign(
            np.abs(random.normal(size=weight.shape)) if "squares" in weight.path else random.normal(size=weight.shape)
        )
    return network


def compute_logits(network: keras.Model, indices: list[int], width: int) -> np.ndarray:
    return network(messages().batch(np.array(indices), width), training=False).numpy()


def count_parameters(architecture: NetworkSettings, vocabulary_size: int) -> int:
    """Counts the weights: vectors, gates (a GRU has two biases as in cuDNN; Cho et al. 2014), dense and linear."""
    gates = {"gru": 3, "lstm": 4, "simple": 1}[architecture.cell]
    biases = 2 if architecture.cell == "gru" else 1
    directions = 2 if architecture.bidirectional else 1
    units = architecture.rnn_units
    recurrent = directions * gates * units * (architecture.embedding_size + units + biases)
    pooled = directions * units * (2 if architecture.pooling == "max+mean" else 1)
    vectors = vocabulary_size + SHAPES + architecture.ngram_vectors
    return (
        vectors * architecture.embedding_size
        + recurrent
        + pooled
        + 1
        + (2 * architecture.ngram_buckets + 1 if architecture.linear else 0)
    )


@every_architecture
def test_encoded_messages_become_one_logit_each(architecture: NetworkSettings) -> None:
    network = build_network(architecture, VOCABULARY_SIZE)
    logits = compute_logits(network, [0, 1, 2], 8)
    assert (logits.shape, logits.dtype) == ((3,), np.float32)
    assert np.isfinite(logits).all()
    assert network.count_params() == count_parameters(architecture, VOCABULARY_SIZE)
    assert {name: len(tensor.shape) for name, tensor in network.input.items()} == INPUTS
    assert network.output_shape == (None,)
    assert (has_linear(network), ngram_vectors(network)) == (architecture.linear, architecture.ngram_vectors)


@every_architecture
def test_neither_padding_nor_other_messages_change_a_logit(architecture: NetworkSettings) -> None:
    network = with_random_weights(build_network(architecture, VOCABULARY_SIZE, seed=3))
    all_indices = list(range(len(messages())))
    alone = [compute_logits(network, [index], int(messages().lengths[index]))[0] for index in all_indices]
    assert np.ptp(alone) > 0.1
    for width in (7, 30):
        np.testing.assert_allclose(compute_logits(network, all_indices, width), alone, rtol=0, atol=1e-4)
        twice = [*all_indices, *all_indices[::-1]]
        np.testing.assert_allclose(compute_logits(network, twice, width), [*alone, *alone[::-1]], rtol=0, atol=1e-4)


@every_architecture
def test_only_equal_seeds_give_equal_weights(architecture: NetworkSettings) -> None:
    first, repeated, other = (weights_sha256(build_network(architecture, VOCABULARY_SIZE, seed)) for seed in (7, 7, 8))
    assert first == repeated
    assert first != other


@every_architecture
def test_weight_names_are_unique_and_stable(architecture: NetworkSettings) -> None:
    names = [weight.path for weight in build_network(architecture, VOCABULARY_SIZE).weights]
    assert len(set(names)) == len(names)
    assert names == [weight.path for weight in build_network(architecture, VOCABULARY_SIZE).weights]


@every_architecture
def test_every_trainable_weight_has_a_gradient(architecture: NetworkSettings) -> None:
    network = with_random_weights(build_network(architecture, VOCABULARY_SIZE))
    part = recurrent_part(network)
    batch = {name: tf.constant(values) for name, values in messages().batch(np.arange(len(messages())), 8).items()}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(part(batch, training=False) ** 2)
    assert {id(weight) for weight in part.trainable_variables} == {id(weight) for weight in network.trainable_variables}
    gradients = tape.gradient(loss, [weight.value for weight in network.trainable_variables])
    for weight, gradient in zip(network.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.abs(tf.convert_to_tensor(gradient).numpy()).max() > 0, weight.path


@every_architecture
def test_a_network_is_the_sum_of_its_parts(architecture: NetworkSettings) -> None:
    network = with_random_weights(build_network(architecture, VOCABULARY_SIZE))
    batch = messages().batch(np.arange(len(messages())), 8)
    wide = network.get_layer(LINEAR)(batch).numpy() if architecture.linear else 0.0
    deep = recurrent_part(network)(batch, training=False).numpy()
    np.testing.assert_allclose(network(batch, training=False).numpy(), deep + wide, rtol=1e-5, atol=1e-5)


@every_architecture
def test_a_calibrated_network_returns_calibrated_logits(architecture: NetworkSettings) -> None:
    network = with_random_weights(build_network(architecture, VOCABULARY_SIZE))
    all_indices = list(range(len(messages())))
    raw = compute_logits(network, all_indices, 8)
    calibrate(network, Calibration(0.4, -1.7))
    np.testing.assert_allclose(compute_logits(network, all_indices, 8), 0.4 * raw - 1.7, rtol=1e-5, atol=1e-5)


@every_architecture
def test_a_clone_from_the_config_returns_the_same_logits(architecture: NetworkSettings) -> None:
    network = with_random_weights(build_network(architecture, VOCABULARY_SIZE))
    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    all_indices = list(range(len(messages())))
    np.testing.assert_array_equal(compute_logits(clone, all_indices, 8), compute_logits(network, all_indices, 8))


def test_the_books_network_can_be_built() -> None:
    network = build_network(BOOKS, vocabulary_size=500)
    # The shape vectors are counted too, although they stay zero if all letters are lower case.
    assert network.count_params() == (500 + SHAPES) * 25 + 15 * (25 + 15 + 1) + 15 + 1
    assert isinstance(network.get_layer("recurrent"), keras.layers.SimpleRNN)


def test_dropout_is_active_only_in_training() -> None:
    network = build_network(network_settings("gru", False, "max", BUCKETS, False), VOCABULARY_SIZE)
    batch = messages().batch(np.array([4] * 8), 8)
    assert len(set(network(batch, training=True).numpy().round(7).tolist())) > 1
    assert np.ptp(network(batch, training=False).numpy()) < 1e-6


def test_words_are_replaced_by_unknown_only_in_training_and_padding_never() -> None:
    layer = TokenVectors(VOCABULARY_SIZE, EMBEDDING, 0, 0.5, seed=1)
    layer.build()
    batch = messages().batch(np.array([4] * 2), 9)
    plain, *dropped = (layer(batch, training=training).numpy() for training in (False, True, True))
    unknown = layer.words.value[UNKNOWN_ID].numpy()
    for vectors in dropped:
        changed = np.abs(vectors - plain).max(axis=2) > 0
        assert 0 < changed[:, :7].sum() < 14
        np.testing.assert_allclose(vectors[changed], np.broadcast_to(unknown, vectors[changed].shape))
        assert not changed[:, 7:].any()
    assert not np.array_equal(*dropped)


def test_a_token_vector_is_the_sum_of_word_shape_and_n_gram_vectors() -> None:
    layer = TokenVectors(VOCABULARY_SIZE, EMBEDDING, VECTORS, 0.0, seed=1)
    layer.build()
    random = np.random.default_rng(0)
    words, shapes, ngrams = (random.normal(size=weight.shape).astype(np.float32) for weight in layer.weights[:3])
    layer.words.assign(words), layer.shapes.assign(shapes), layer.ngrams.assign(ngrams)
    table = messages().table
    (vectors,) = layer(messages().batch(np.array([4]), 7)).numpy()
    for row, vector in zip([12, 11, 10, 9, 8, 7, 6], vectors, strict=True):
        parts = table.ngrams[table.starts[row] : table.starts[row + 1]]
        expected = words[table.words[row]] + shapes[table.shapes[row]]
        expected = expected + ngrams[parts].sum(axis=0) / np.sqrt(len(parts))
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("vectors", "rows"), [(13, 13), (0, None)])
def test_n_grams_have_a_vector_each_or_none_at_all(vectors: int, rows: int | None) -> None:
    layer = TokenVectors(VOCABULARY_SIZE, EMBEDDING, vectors, 0.0, seed=1)
    layer.build()
    assert (layer.ngrams.shape[0] if layer.ngrams is not None else None) == rows
    assert TokenVectors.from_config(layer.get_config()).get_config() == layer.get_config()


def test_no_cell_uses_cudnn() -> None:
    for architecture in ARCHITECTURES:
        layer = build_network(architecture, VOCABULARY_SIZE).get_layer("recurrent")
        for cell in (layer.forward_layer, layer.backward_layer) if architecture.bidirectional else (layer,):
            assert getattr(cell, "use_cudnn", False) is False


def test_pooling_ignores_padding() -> None:
    values = np.array([[[1.0, -5.0], [-2.0, -7.0], [9.0, 9.0]], [[-1.0, 0.0], [-3.0, 4.0], [-2.0, 5.0]]], np.float32)
    mask = np.array([[True, True, False], [True, True, True]])
    assert MaskedPooling()(values, mask=mask).numpy().tolist() == [[1.0, -5.0], [-1.0, 5.0]]
    assert MaskedPooling()(values).numpy().tolist() == [[9.0, 9.0], [-1.0, 5.0]]
    with_mean = MaskedPooling(with_mean=True)
    assert with_mean(values, mask=mask).numpy().tolist() == [[1.0, -5.0, -0.5, -6.0], [-1.0, 5.0, -2.0, 3.0]]
    assert with_mean.compute_output_shape((2, 3, 2)) == (2, 4)
