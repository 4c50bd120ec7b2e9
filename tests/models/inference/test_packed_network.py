"""The packed network gives the logits of the Keras model for every architecture, and the same bits in any batch."""

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
ARCHITECTURES = [
    {"cell": cell, "bidirectional": both, "pooling": pooling}
    for cell, both, pooling in itertools.product(["gru", "lstm", "simple"], [True, False], ["max+mean", "max", "last"])
] + [{"linear": False}, {"ngram_vectors": 0}, {"linear": False, "ngram_vectors": 0}, {"ngram_vectors": 64}]


@functools.cache
def network(**architecture: object) -> keras.Model:
    sizes = {"embedding_size": 6, "rnn_units": 5, "ngram_buckets": BUCKETS, "ngram_vectors": BUCKETS, **architecture}
    built = build_network(NetworkSettings(**sizes), len(VOCABULARY), seed=3)
    random = np.random.default_rng(5)
    for weight in built.trainable_weights:
        weight.assign(random.normal(0, 0.7, weight.shape))
    if has_linear(built):
        weights, squares = random.uniform(-1, 1, BUCKETS), random.uniform(0.1, 1, BUCKETS)
        parts = (values.astype(np.float32) for values in (weights, squares, random.uniform(-1, 1, 1)))
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


@pytest.mark.parametrize(
    "architecture", ARCHITECTURES, ids=lambda architecture: " ".join(map(str, architecture.values()))
)
def test_every_architecture_gives_the_logits_of_keras(architecture: dict[str, object]) -> None:
    encoded = reader(architecture.get("ngram_vectors", BUCKETS)).read(texts(70))
    expected = network_logits(network(**architecture), encoded)
    np.testing.assert_allclose(PackedNetwork(network(**architecture)).logits(encoded, 32), expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("size", [{}, {"embedding_size": 48, "rnn_units": 32}], ids=["small", "default"])
@settings(deadline=None, max_examples=60)
@given(order=st.permutations(range(60)), count=st.integers(1, 60), batch_size=st.sampled_from([1, 3, 16, 17, 40, 512]))
def test_a_logit_has_the_same_bits_in_any_batch(
    size: dict[str, int], order: list[int], count: int, batch_size: int
) -> None:
    messages, packed = texts(60, seed=1), packed_network(**size)
    chosen = order[:count]
    expected = packed.logits(reader().read(messages), 512)
    # Read with a new reader, whose table has the tokens in another order.
    together = packed.logits(MessageReader(encoder()).read([messages[index] for index in chosen]), batch_size)
    np.testing.assert_array_equal(together, expected[chosen])


@functools.cache
def packed_network(**size: int) -> PackedNetwork:
    return PackedNetwork(network(**size))


def test_threads_that_share_a_network_and_a_reader_get_the_logits_of_one_thread() -> None:
    shared_reader, packed = MessageReader(encoder(), 60), packed_network()
    parts = [texts(50, seed) for seed in range(12)]
    expected = [packed.logits(reader().read(part)) for part in parts]
    reading = threading.Lock()

    def logits(part: list[str]) -> npt.NDArray[np.float32]:
        with reading:
            encoded = shared_reader.read(part)
        return packed.logits(encoded)

    with ThreadPoolExecutor(4) as pool:
        logits_of_parts = list(pool.map(logits, parts))
    for actual, expected_part in zip(logits_of_parts, expected, strict=True):
        np.testing.assert_array_equal(actual, expected_part)


@settings(deadline=None, max_examples=30)
@given(max_cached=st.integers(10, 60), seed=st.integers(0, 99), order=st.permutations(range(6)))
def test_dropped_and_cached_words_change_no_logit(max_cached: int, seed: int, order: list[int]) -> None:
    small_reader = MessageReader(encoder(), max_cached)
    parts = [texts(10, seed + number % 4) for number in range(6)]
    encoded = [small_reader.read(part) for part in parts]
    packed = PackedNetwork(network())
    for number in order:
        expected = packed_network().logits(reader().read(parts[number]))
        np.testing.assert_array_equal(packed.logits(encoded[number]), expected)


def test_a_thread_that_helps_changes_no_logit() -> None:
    packed, encoded = PackedNetwork(network()), reader().read(texts(60, seed=2))
    expected = packed.logits(encoded, 16)
    helped = 0
    with ThreadPoolExecutor(1) as pool:
        while not helped:  # until there was a piece to take
            call = pool.submit(packed.logits, encoded, 1)
            while not call.done():
                helped += packed.help()
            np.testing.assert_array_equal(call.result(), expected)


def test_no_messages_have_no_logits() -> None:
    assert packed_network().logits(reader().read([])).shape == (0,)


def test_later_changes_of_the_network_have_no_effect() -> None:
    built = build_network(NetworkSettings(embedding_size=4, rnn_units=3, ngram_buckets=64), len(VOCABULARY), seed=1)
    packed, encoded = PackedNetwork(built), reader(64).read(["free win"])
    before = packed.logits(encoded)
    for weight in built.weights:
        weight.assign(weight.value + 1)
    np.testing.assert_array_equal(packed.logits(encoded), before)


def test_messages_encoded_without_a_cache_are_scored() -> None:
    table = encoded_without_cache()
    np.testing.assert_allclose(packed_network().logits(table), network_logits(network(), table), rtol=0, atol=1e-5)


def encoded_without_cache() -> EncodedMessages:
    from models.text.encoder import encode_messages

    return encode_messages(encoder(), texts(20))
