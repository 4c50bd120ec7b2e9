"""Scoring: every message once, in order, with the score it has alone."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encoder import TextEncoder, encode_messages
from models.network import build_network
from models.scoring import DECIMALS, Scorer, length_batches, network_logits
from models.settings import NetworkSettings, TextSettings, VocabularySettings
from models.vocabulary import build_vocabulary

WORDS = ["free", "win", "now", "call", "me", "later", "mum", "MONEY", "PHONE", "!", "?"]
TEXT = TextSettings(max_tokens=50)


@functools.cache
def scorer(batch_size: int = 512) -> Scorer:
    vocabulary = build_vocabulary(WORDS, VocabularySettings(min_count=1), TEXT)
    network = build_network(NetworkSettings(embedding_size=6, rnn_units=4), len(vocabulary), seed=2)
    for weight in network.weights:
        weight.assign(weight.value * 3)  # so that scores lie apart
    return Scorer(TextEncoder(vocabulary), network, ["/device:CPU:0"], batch_size)


messages = st.lists(
    st.lists(st.sampled_from([*WORDS, "unseen", "£5", "\ud800"]), max_size=60).map(" ".join), max_size=12
)


@settings(deadline=None, max_examples=50)
@given(messages=messages, order=st.randoms())
def test_a_score_does_not_depend_on_the_company_the_order_or_the_batches(messages: list[str], order: object) -> None:
    places = order.sample(range(len(messages)), len(messages))
    at_once = scorer().score(messages).probabilities
    shuffled = scorer(3).score([messages[place] for place in places]).probabilities
    np.testing.assert_allclose(shuffled, at_once[places], rtol=0, atol=2e-6)


@settings(deadline=None, max_examples=50)
@given(messages=messages)
def test_scores_are_probabilities_of_six_decimals(messages: list[str]) -> None:
    scored = scorer().score(messages)
    assert scored.probabilities.shape == (len(messages),)
    assert scored.probabilities.dtype == np.float64
    assert ((scored.probabilities >= 0) & (scored.probabilities <= 1)).all()
    assert (np.round(scored.probabilities, DECIMALS) == scored.probabilities).all()
    assert scored.seconds_text >= 0
    assert scored.seconds_network >= 0


def test_scores_are_the_networks_own() -> None:
    texts = ["free win now", "call me later mum", "", "MONEY " * 60]
    encoded = encode_messages(scorer().encoder, texts)
    logits = [scorer_network(encoded.padded(np.array([row]), int(encoded.lengths[row]))) for row in range(len(texts))]
    expected = 1 / (1 + np.exp(-np.array(logits)))
    np.testing.assert_allclose(scorer().score(texts).probabilities, expected, rtol=0, atol=2e-6)
    assert np.ptp(expected) > 0.01


def scorer_network(ids: np.ndarray) -> float:
    """The network without graphs, batches or widths."""
    return float(scorer()._forward[0]._network(ids, training=False).numpy()[0])


def test_no_messages_have_no_scores() -> None:
    assert scorer().score([]).probabilities.shape == (0,)


def test_logits_of_a_network_are_those_of_a_scorer() -> None:
    encoded = encode_messages(scorer().encoder, ["free win now", "call me later mum", "MONEY"])
    network = scorer()._forward[0]._network
    np.testing.assert_array_equal(network_logits(network, encoded), scorer().logits(encoded))


@settings(deadline=None, max_examples=200)
@given(lengths=st.lists(st.integers(1, 10_000) | st.integers(1, 40), max_size=60), batch_size=st.integers(1, 20))
def test_batches_hold_each_message_once_at_a_width_that_fits(lengths: list[int], batch_size: int) -> None:
    batches = length_batches(np.array(lengths, np.int64), batch_size)
    assert sorted(row for rows, _ in batches for row in rows) == list(range(len(lengths)))
    for rows, width in batches:
        assert 1 <= len(rows) <= batch_size
        longest = max(lengths[row] for row in rows)
        assert longest <= width
        assert width <= max(8, 2 * longest)


def test_widths_are_few_however_many_lengths_there_are() -> None:
    batches = length_batches(np.arange(1, 10_001), 512)
    assert len({width for _, width in batches}) <= 16


@pytest.mark.parametrize("batch_size", [1, 2, 512])
def test_the_batch_size_changes_no_score(batch_size: int) -> None:
    texts = [" ".join(WORDS[:count]) for count in range(1, 11)]
    expected = scorer().score(texts).probabilities
    np.testing.assert_allclose(scorer(batch_size).score(texts).probabilities, expected, rtol=0, atol=2e-6)
