"""The network on a processor gives what the Keras model gives, for every make, and bit by bit in any company."""

from __future__ import annotations

import functools
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from models.inference.message_reader import MessageReader
from models.inference.packed_network import PackedNetwork
from models.inference.scorer import network_logits
from models.network.linear import LinearWeights
from models.network.network import build_network, has_linear, set_linear
from models.settings import NetworkSettings, TextSettings, VocabularySettings
from models.text.encoder import EncodedMessages, TextEncoder
from models.text.vocabulary import build_vocabulary

BUCKETS = 256
WORDS = ["free", "win", "now", "call", "me", "later", "mum", "£7", "087####", "!", "?"]
VOCABULARY = build_vocabulary(WORDS, VocabularySettings(min_count=1), TextSettings())
MAKES = [
    {"cell": cell, "bidirectional": both, "pooling": pooling}
    for cell, both, pooling in itertools.product(["gru", "lstm", "simple"], [True, False], ["max+mean", "max", "last"])
] + [{"linear": False}, {"ngram_vectors": 0}, {"linear": False, "ngram_buckets": 0}, {"ngram_vectors": 64}]


@functools.cache
def network(**make: object) -> keras.Model:
    shape = {"embedding_size": 6, "rnn_units": 5, "ngram_buckets": BUCKETS, "ngram_vectors": BUCKETS, **make}
    built = build_network(NetworkSettings(**shape), len(VOCABULARY), seed=3)
    random = np.random.default_rng(5)
    for weight in built.trainable_weights:
        weight.assign(random.normal(0, 0.7, weight.shape))
    if has_linear(built):
        weights, squares = random.uniform(-1, 1, BUCKETS), random.uniform(0.1, 1, BUCKETS)
        parts = (one.astype(np.float32) for one in (weights, squares, random.uniform(-1, 1, 1)))
        set_linear(built, LinearWeights(*parts))
    return built


@functools.cache
def encoder(buckets: int = BUCKETS) -> TextEncoder:
    return TextEncoder(VOCABULARY, buckets)


@functools.cache
def reader(buckets: int = BUCKETS) -> MessageReader:
    return MessageReader(encoder(buckets))


def texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    words = [*WORDS, *(f"new{number}" for number in range(40))]
    return [" ".join(random.choice(words, length)) for length in random.integers(0, 30, count)]


@pytest.mark.parametrize("make", MAKES, ids=lambda make: " ".join(map(str, make.values())))
def test_every_make_of_network_gives_the_logits_of_keras(make: dict[str, object]) -> None:
    encoded = reader(make.get("ngram_buckets", BUCKETS)).read(texts(70))
    expected = network_logits(network(**make), encoded)
    np.testing.assert_allclose(PackedNetwork(network(**make)).logits(encoded, 32), expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("size", [{}, {"embedding_size": 48, "rnn_units": 32}], ids=["small", "default"])
@settings(deadline=None, max_examples=60)
@given(order=st.permutations(range(60)), count=st.integers(1, 60), batch_size=st.sampled_from([1, 3, 16, 17, 40, 512]))
def test_a_logit_is_the_same_to_the_last_bit_in_any_company(
    size: dict[str, int], order: list[int], count: int, batch_size: int
) -> None:
    some, packed = texts(60, seed=1), packed_network(**size)
    chosen = order[:count]
    alone = packed.logits(reader().read(some), 512)
    # With a reader of its own, whose table has the tokens in another order.
    together = packed.logits(MessageReader(encoder()).read([some[place] for place in chosen]), batch_size)
    np.testing.assert_array_equal(together, alone[chosen])


@functools.cache
def packed_network(**size: int) -> PackedNetwork:
    return PackedNetwork(network(**size))


def test_threads_that_share_a_network_and_a_reader_get_the_logits_of_one() -> None:
    own, packed = MessageReader(encoder(), 60), packed_network()
    parts = [texts(50, seed) for seed in range(12)]
    expected = [packed.logits(reader().read(part)) for part in parts]
    reading = threading.Lock()

    def logits(part: list[str]) -> npt.NDArray[np.float32]:
        with reading:
            encoded = own.read(part)
        return packed.logits(encoded)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(logits, parts))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(deadline=None, max_examples=30)
@given(most=st.integers(10, 60), seed=st.integers(0, 99), order=st.permutations(range(6)))
def test_words_that_are_forgotten_and_words_that_stay_change_no_logit(most: int, seed: int, order: list[int]) -> None:
    forgetful = MessageReader(encoder(), most)
    parts = [texts(10, seed + number % 4) for number in range(6)]
    encoded = [forgetful.read(part) for part in parts]
    packed = PackedNetwork(network())
    for number in order:
        expected = packed_network().logits(reader().read(parts[number]))
        np.testing.assert_array_equal(packed.logits(encoded[number]), expected)


def test_a_thread_that_helps_changes_no_logit() -> None:
    packed, encoded = PackedNetwork(network()), reader().read(texts(60, seed=2))
    expected = packed.logits(encoded, 16)
    helped = 0
    with ThreadPoolExecutor(1) as pool:
        while not helped:  # until a piece was there to be had
            asked = pool.submit(packed.logits, encoded, 1)
            while not asked.done():
                helped += packed.help()
            np.testing.assert_array_equal(asked.result(), expected)


def test_matrix_products_take_one_thread_each() -> None:
    with threadpool_limits(2, "blas"):
        PackedNetwork(network())
        assert {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"} == {1}


def test_no_messages_have_no_logits() -> None:
    assert packed_network().logits(reader().read([])).shape == (0,)


def test_what_is_done_to_the_network_later_changes_nothing() -> None:
    own = build_network(NetworkSettings(embedding_size=4, rnn_units=3, ngram_buckets=64), len(VOCABULARY), seed=1)
    packed, encoded = PackedNetwork(own), reader(64).read(["free win"])
    before = packed.logits(encoded)
    for weight in own.weights:
        weight.assign(weight.value + 1)
    np.testing.assert_array_equal(packed.logits(encoded), before)


def test_messages_encoded_without_a_memory_are_scored_too() -> None:
    table = encoded_without_memory()
    np.testing.assert_allclose(packed_network().logits(table), network_logits(network(), table), rtol=0, atol=1e-5)


def encoded_without_memory() -> EncodedMessages:
    from models.text.encoder import encode_messages

    return encode_messages(encoder(), texts(20))
