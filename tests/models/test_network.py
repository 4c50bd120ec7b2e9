"""The recurrent network in all its makes: shapes, sizes, seeds, and logits that padding does not change."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from models.checkpoints import weights_sha256
from models.network import MaskedMaxPooling, build_network
from models.settings import NetworkSettings

VOCABULARY_SIZE, EMBEDDING, UNITS = 11, 5, 3
MAKES = [
    NetworkSettings(cell, bidirectional, EMBEDDING, UNITS, pooling, dropout=0.5)
    for cell, bidirectional, pooling in itertools.product(("gru", "lstm", "simple"), (False, True), ("max", "last"))
]
# The books' network: letters only, one layer of 15 simple units over vectors of 25, read left to right.
BOOKS = NetworkSettings(
    cell="simple", bidirectional=False, embedding_size=25, rnn_units=15, pooling="last", dropout=0.0
)
every_make = pytest.mark.parametrize(
    "make", MAKES, ids=lambda one: f"{one.cell}-{'both' if one.bidirectional else 'one'}-{one.pooling}"
)


def parameters(make: NetworkSettings, vocabulary_size: int) -> int:
    """Weights there should be: embedding, gates (a GRU has two biases, Cho et al. 2014 as in cuDNN), dense layer."""
    gates = {"gru": 3, "lstm": 4, "simple": 1}[make.cell]
    biases = 2 if make.cell == "gru" else 1
    directions = 2 if make.bidirectional else 1
    units = make.rnn_units
    recurrent = directions * gates * units * (make.embedding_size + units + biases)
    return vocabulary_size * make.embedding_size + recurrent + directions * units + 1


@every_make
def test_ids_become_one_logit_a_message(make: NetworkSettings) -> None:
    network = build_network(make, VOCABULARY_SIZE)
    ids = np.array([[1, 2, 3, 0], [4, 0, 0, 0], [10, 9, 8, 7]], np.int32)
    logits = network(ids, training=False).numpy()
    assert (logits.shape, logits.dtype) == ((3,), np.float32)
    assert np.isfinite(logits).all()
    assert network.count_params() == parameters(make, VOCABULARY_SIZE)
    assert network.input_shape == (None, None)
    assert network.output_shape == (None,)


@every_make
def test_neither_padding_nor_company_changes_a_logit(make: NetworkSettings) -> None:
    network = build_network(make, VOCABULARY_SIZE, seed=3)
    messages = [[1], [5, 1, 1, 7], [4, 4, 4, 4, 4, 4, 10]]
    alone = [network(np.array([message], np.int32), training=False).numpy()[0] for message in messages]
    for width in (7, 30):
        padded = np.array([message + [0] * (width - len(message)) for message in messages], np.int32)
        np.testing.assert_allclose(network(padded, training=False).numpy(), alone, rtol=0, atol=1e-5)


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


def test_the_books_network_builds() -> None:
    network = build_network(BOOKS, vocabulary_size=500)
    assert network.count_params() == 500 * 25 + 15 * (25 + 15 + 1) + 15 + 1
    assert isinstance(network.get_layer("recurrent"), keras.layers.SimpleRNN)


def test_dropout_works_in_training_alone() -> None:
    network = build_network(NetworkSettings(embedding_size=8, rnn_units=8, dropout=0.5), VOCABULARY_SIZE)
    ids = np.array([[1, 2, 3, 4]] * 8, np.int32)
    assert len(set(network(ids, training=True).numpy().round(7).tolist())) > 1
    assert np.ptp(network(ids, training=False).numpy()) < 1e-6


def test_no_cell_uses_cudnn() -> None:
    for make in MAKES:
        layer = build_network(make, VOCABULARY_SIZE).get_layer("recurrent")
        for one in (layer.forward_layer, layer.backward_layer) if make.bidirectional else (layer,):
            assert getattr(one, "use_cudnn", False) is False


def test_pooling_takes_the_largest_value_of_the_tokens_that_are_there() -> None:
    values = np.array([[[1.0, -5.0], [-2.0, -7.0], [9.0, 9.0]], [[-1.0, 0.0], [-3.0, 4.0], [-2.0, 5.0]]], np.float32)
    mask = np.array([[True, True, False], [True, True, True]])
    assert MaskedMaxPooling()(values, mask=mask).numpy().tolist() == [[1.0, -5.0], [-1.0, 5.0]]
    assert MaskedMaxPooling()(values).numpy().tolist() == [[9.0, 9.0], [-1.0, 5.0]]
