"""The network in all its makes: shapes, sizes, seeds, gradients, and logits that padding does not change."""

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
    ngram_buckets,
    recurrent_part,
)
from models.settings import NetworkSettings
from models.statistics.calibration import Calibration
from models.text.encoder import EncodedMessages, TokenTable
from models.text.tokens import SHAPES
from models.text.vocabulary import PADDING_ID, UNKNOWN_ID
from models.training.checkpoints import weights_sha256

VOCABULARY_SIZE, EMBEDDING, UNITS, BUCKETS, VECTORS = 11, 5, 3, 31, 13


def make(cell: str, bidirectional: bool, pooling: str, buckets: int, linear: bool) -> NetworkSettings:
    return NetworkSettings(
        cell=cell, bidirectional=bidirectional, embedding_size=EMBEDDING, rnn_units=UNITS, pooling=pooling, dropout=0.5,
        ngram_buckets=buckets, ngram_vectors=VECTORS, linear=linear,
    )  # fmt: skip


MAKES = [
    *(make(*one, BUCKETS, True) for one in itertools.product(("gru", "lstm", "simple"), (False, True), ("max+mean",))),
    *(make("gru", True, pooling, BUCKETS, True) for pooling in ("max", "last")),
    *(make("simple", False, "last", buckets, False) for buckets in (BUCKETS, 0)),
]
# The books' network: letters only, one layer of 15 simple units over vectors of 25, read left to right.
BOOKS = NetworkSettings(
    cell="simple", bidirectional=False, embedding_size=25, rnn_units=15, pooling="last", dropout=0.0, word_dropout=0.0,
    ngram_buckets=0, ngram_vectors=0, linear=False,
)  # fmt: skip


def name_of(one: NetworkSettings) -> str:
    parts = [one.cell, "both" if one.bidirectional else "one", one.pooling, f"{one.ngram_buckets}"]
    return "-".join([*parts, "linear"] if one.linear else parts)


every_make = pytest.mark.parametrize("make", MAKES, ids=name_of)


@functools.cache
def messages() -> EncodedMessages:
    """Messages with tokens that come twice, pairs that do, one of a single token; tokens with one to six n-grams."""
    random = np.random.default_rng(4)
    counts = np.array([0, *random.integers(1, 7, 12)])
    table = TokenTable(
        np.concatenate([[PADDING_ID], random.integers(1, VOCABULARY_SIZE, 12)]).astype(np.int32),
        np.concatenate([[0], random.integers(0, SHAPES, 12)]).astype(np.int32),
        random.integers(0, BUCKETS, counts.sum()).astype(np.int32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )
    rows = [[1], [5, 1, 1, 7], [4, 4, 4, 4, 4, 4, 10], [2, 3, 2, 3, 2, 3], [12, 11, 10, 9, 8, 7, 6]]
    starts = np.concatenate([[0], np.cumsum([len(one) for one in rows])]).astype(np.int64)
    return EncodedMessages(np.concatenate(rows).astype(np.int32), starts, table)


def with_any_weights(network: keras.Model, seed: int = 0) -> keras.Model:
    """Gives all weights values, also those that begin at nought; squares above it."""
    random = np.random.default_rng(seed)
    for weight in network.weights:
        weight.assign(
            np.abs(random.normal(size=weight.shape)) if "squares" in weight.path else random.normal(size=weight.shape)
        )
    return network


def logits_of(network: keras.Model, chosen: list[int], width: int) -> np.ndarray:
    return network(messages().batch(np.array(chosen), width), training=False).numpy()


def parameters(make: NetworkSettings, vocabulary_size: int) -> int:
    """Weights there should be: vectors, gates (a GRU has two biases, Cho et al. 2014 as in cuDNN), dense, linear."""
    gates = {"gru": 3, "lstm": 4, "simple": 1}[make.cell]
    biases = 2 if make.cell == "gru" else 1
    directions = 2 if make.bidirectional else 1
    units = make.rnn_units
    recurrent = directions * gates * units * (make.embedding_size + units + biases)
    pooled = directions * units * (2 if make.pooling == "max+mean" else 1)
    vectors = vocabulary_size + SHAPES + min(make.ngram_vectors, make.ngram_buckets)
    return vectors * make.embedding_size + recurrent + pooled + 1 + (2 * make.ngram_buckets + 1 if make.linear else 0)


@every_make
def test_encoded_messages_become_one_logit_each(make: NetworkSettings) -> None:
    network = build_network(make, VOCABULARY_SIZE)
    logits = logits_of(network, [0, 1, 2], 8)
    assert (logits.shape, logits.dtype) == ((3,), np.float32)
    assert np.isfinite(logits).all()
    assert network.count_params() == parameters(make, VOCABULARY_SIZE)
    assert {name: len(one.shape) for name, one in network.input.items()} == INPUTS
    assert network.output_shape == (None,)
    assert (has_linear(network), ngram_buckets(network)) == (make.linear, make.ngram_buckets)


@every_make
def test_neither_padding_nor_company_changes_a_logit(make: NetworkSettings) -> None:
    network = with_any_weights(build_network(make, VOCABULARY_SIZE, seed=3))
    everyone = list(range(len(messages())))
    alone = [logits_of(network, [one], int(messages().lengths[one]))[0] for one in everyone]
    assert np.ptp(alone) > 0.1
    for width in (7, 30):
        np.testing.assert_allclose(logits_of(network, everyone, width), alone, rtol=0, atol=1e-4)
        twice = [*everyone, *everyone[::-1]]
        np.testing.assert_allclose(logits_of(network, twice, width), [*alone, *alone[::-1]], rtol=0, atol=1e-4)


@every_make
def test_equal_seeds_give_equal_weights_and_others_do_not(make: NetworkSettings) -> None:
    first, again, other = (weights_sha256(build_network(make, VOCABULARY_SIZE, seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@every_make
def test_every_weight_has_a_name_of_its_own(make: NetworkSettings) -> None:
    names = [weight.path for weight in build_network(make, VOCABULARY_SIZE).weights]
    assert len(set(names)) == len(names)
    assert names == [weight.path for weight in build_network(make, VOCABULARY_SIZE).weights]


@every_make
def test_the_gradient_reaches_every_weight_that_is_trained(make: NetworkSettings) -> None:
    network = with_any_weights(build_network(make, VOCABULARY_SIZE))
    part = recurrent_part(network)
    batch = {name: tf.constant(one) for name, one in messages().batch(np.arange(len(messages())), 8).items()}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(part(batch, training=False) ** 2)
    assert {id(one) for one in part.trainable_variables} == {id(one) for one in network.trainable_variables}
    gradients = tape.gradient(loss, [weight.value for weight in network.trainable_variables])
    for weight, gradient in zip(network.trainable_variables, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.abs(tf.convert_to_tensor(gradient).numpy()).max() > 0, weight.path


@every_make
def test_a_network_is_the_sum_of_its_parts(make: NetworkSettings) -> None:
    network = with_any_weights(build_network(make, VOCABULARY_SIZE))
    batch = messages().batch(np.arange(len(messages())), 8)
    wide = network.get_layer(LINEAR)(batch).numpy() if make.linear else 0.0
    deep = recurrent_part(network)(batch, training=False).numpy()
    np.testing.assert_allclose(network(batch, training=False).numpy(), deep + wide, rtol=1e-5, atol=1e-5)


@every_make
def test_a_calibrated_network_s_logits_are_calibrated(make: NetworkSettings) -> None:
    network = with_any_weights(build_network(make, VOCABULARY_SIZE))
    everyone = list(range(len(messages())))
    raw = logits_of(network, everyone, 8)
    calibrate(network, Calibration(0.4, -1.7))
    np.testing.assert_allclose(logits_of(network, everyone, 8), 0.4 * raw - 1.7, rtol=1e-5, atol=1e-5)


@every_make
def test_a_copy_made_from_its_description_says_the_same(make: NetworkSettings) -> None:
    network = with_any_weights(build_network(make, VOCABULARY_SIZE))
    twin = keras.models.clone_model(network)
    twin.set_weights(network.get_weights())
    everyone = list(range(len(messages())))
    np.testing.assert_array_equal(logits_of(twin, everyone, 8), logits_of(network, everyone, 8))


def test_the_books_network_builds() -> None:
    network = build_network(BOOKS, vocabulary_size=500)
    # A vector for each way of writing stays at nought where all letters are small.
    assert network.count_params() == (500 + SHAPES) * 25 + 15 * (25 + 15 + 1) + 15 + 1
    assert isinstance(network.get_layer("recurrent"), keras.layers.SimpleRNN)


def test_dropout_works_in_training_alone() -> None:
    network = build_network(make("gru", False, "max", BUCKETS, False), VOCABULARY_SIZE)
    batch = messages().batch(np.array([4] * 8), 8)
    assert len(set(network(batch, training=True).numpy().round(7).tolist())) > 1
    assert np.ptp(network(batch, training=False).numpy()) < 1e-6


def test_words_are_taken_for_unknown_in_training_alone_and_padding_never() -> None:
    layer = TokenVectors(VOCABULARY_SIZE, EMBEDDING, 0, 0, 0.5, seed=1)
    layer.build()
    batch = messages().batch(np.array([4] * 2), 9)
    plain, *dropped = (layer(batch, training=training).numpy() for training in (False, True, True))
    unknown = layer.words.value[UNKNOWN_ID].numpy()
    for one in dropped:
        changed = np.abs(one - plain).max(axis=2) > 0
        assert 0 < changed[:, :7].sum() < 14
        np.testing.assert_allclose(one[changed], np.broadcast_to(unknown, one[changed].shape))
        assert not changed[:, 7:].any()
    assert not np.array_equal(*dropped)


def test_a_token_s_vector_is_that_of_its_word_its_shape_and_its_n_grams() -> None:
    layer = TokenVectors(VOCABULARY_SIZE, EMBEDDING, BUCKETS, VECTORS, 0.0, seed=1)
    layer.build()
    random = np.random.default_rng(0)
    words, shapes, ngrams = (random.normal(size=weight.shape).astype(np.float32) for weight in layer.weights[:3])
    layer.words.assign(words), layer.shapes.assign(shapes), layer.ngrams.assign(ngrams)
    table = messages().table
    (found,) = layer(messages().batch(np.array([4]), 7)).numpy()
    for row, vector in zip([12, 11, 10, 9, 8, 7, 6], found, strict=True):
        parts = table.ngrams[table.starts[row] : table.starts[row + 1]]
        expected = words[table.words[row]] + shapes[table.shapes[row]]
        expected = expected + ngrams[parts % VECTORS].sum(axis=0) / np.sqrt(len(parts))
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("buckets", "vectors", "rows"), [(31, 13, 13), (31, 99, 31), (0, 99, None), (31, 0, None)])
def test_there_are_no_more_vectors_for_n_grams_than_n_grams(buckets: int, vectors: int, rows: int | None) -> None:
    layer = TokenVectors(VOCABULARY_SIZE, EMBEDDING, buckets, vectors, 0.0, seed=1)
    layer.build()
    assert (layer.ngrams.shape[0] if layer.ngrams is not None else None) == rows
    assert TokenVectors.from_config(layer.get_config()).get_config() == layer.get_config()


def test_no_cell_uses_cudnn() -> None:
    for one in MAKES:
        layer = build_network(one, VOCABULARY_SIZE).get_layer("recurrent")
        for cell in (layer.forward_layer, layer.backward_layer) if one.bidirectional else (layer,):
            assert getattr(cell, "use_cudnn", False) is False


def test_pooling_looks_at_the_tokens_that_are_there() -> None:
    values = np.array([[[1.0, -5.0], [-2.0, -7.0], [9.0, 9.0]], [[-1.0, 0.0], [-3.0, 4.0], [-2.0, 5.0]]], np.float32)
    mask = np.array([[True, True, False], [True, True, True]])
    assert MaskedPooling()(values, mask=mask).numpy().tolist() == [[1.0, -5.0], [-1.0, 5.0]]
    assert MaskedPooling()(values).numpy().tolist() == [[9.0, 9.0], [-1.0, 5.0]]
    both = MaskedPooling(with_mean=True)
    assert both(values, mask=mask).numpy().tolist() == [[1.0, -5.0, -0.5, -6.0], [-1.0, 5.0, -2.0, 3.0]]
    assert both.compute_output_shape((2, 3, 2)) == (2, 4)
