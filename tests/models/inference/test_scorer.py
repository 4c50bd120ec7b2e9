"""Scoring: the scores of messages do not depend on the batch, and failing messages are isolated."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ArtifactError, DeviceError
from models.inference.scorer import (
    MAX_FAILURES_BY_CHANCE,
    PLAIN_MESSAGE,
    Scorer,
    Scores,
    _BatchSizeTuner,
    batch_by_length,
    network_logits,
    score_isolating_failures,
)
from models.network.linear import LinearWeights
from models.network.network import build_network, set_linear
from models.settings import NetworkSettings, TextSettings, VocabularySettings
from models.statistics.calibration import DECIMALS
from models.text.encoder import EncodedMessages, TextEncoder, TokenTable, encode_messages
from models.text.vocabulary import build_vocabulary

WORDS = ["free", "win", "now", "call", "me", "later", "mum", "£7", "087####", "!", "?"]
BUCKETS = 64
TEXT = TextSettings(max_tokens=50)


@functools.cache
def network_and_encoder() -> tuple[keras.Model, TextEncoder]:
    vocabulary = build_vocabulary(WORDS, VocabularySettings(min_count=1), TEXT)
    architecture = NetworkSettings(embedding_size=6, rnn_units=4, ngram_buckets=BUCKETS)
    network = build_network(architecture, len(vocabulary), seed=2)
    for weight in network.weights:
        weight.assign(weight.value * 3)  # so that scores differ
    random = np.random.default_rng(2)
    weights, squares, bias = (random.uniform(low, 1, count) for low, count in ((-1, BUCKETS), (0.1, BUCKETS), (-1, 1)))
    set_linear(network, LinearWeights(*(values.astype(np.float32) for values in (weights, squares, bias))))
    return network, TextEncoder(vocabulary, BUCKETS)


@functools.cache
def scorer(batch_size: int | str = 512) -> Scorer:
    network, encoder = network_and_encoder()
    return Scorer(encoder, network, ["/device:CPU:0"], batch_size)


messages = st.lists(
    st.lists(
        st.sampled_from(
            [*WORDS, "unseen", "£5", "\ud800", "f r e e", "fr33", "FREE", "\u200b", "http://x.test/(f r e e)"]
        ),
        max_size=60,
    ).map(" ".join),
    max_size=12,
)


@settings(deadline=None, max_examples=50)
@given(messages=messages, order=st.randoms())
def test_a_score_does_not_depend_on_other_messages_the_order_or_the_batch_size(
    messages: list[str], order: object
) -> None:
    permutation = order.sample(range(len(messages)), len(messages))
    at_once = scorer().score(messages).probabilities
    shuffled = scorer(3).score([messages[index] for index in permutation]).probabilities
    np.testing.assert_array_equal(shuffled, at_once[permutation])
    assert [float(scorer(1).score([text]).probabilities[0]) for text in messages] == at_once.tolist()


@settings(deadline=None, max_examples=50)
@given(messages=messages)
def test_scores_are_probabilities_with_six_decimals(messages: list[str]) -> None:
    scores = scorer().score(messages)
    assert scores.probabilities.shape == (len(messages),)
    assert scores.probabilities.dtype == np.float64
    assert ((scores.probabilities >= 0) & (scores.probabilities <= 1)).all()
    assert (np.round(scores.probabilities, DECIMALS) == scores.probabilities).all()
    assert scores.seconds_text >= 0
    assert scores.seconds_network >= 0


def test_scores_equal_those_of_the_network() -> None:
    texts = ["free win now", "call me later mum", "", "MONEY " * 60]
    encoded = encode_messages(network_and_encoder()[1], texts)
    logits = [scorer_network(encoded.batch(np.array([row]), int(encoded.lengths[row]))) for row in range(len(texts))]
    expected = 1 / (1 + np.exp(-np.array(logits)))
    np.testing.assert_allclose(scorer().score(texts).probabilities, expected, rtol=0, atol=2e-6)
    assert np.ptp(expected) > 0.01


def scorer_network(batch: dict[str, np.ndarray]) -> float:
    """Calls the network directly, without graph, batches or padding."""
    return float(network_and_encoder()[0](batch, training=False).numpy()[0])


def test_after_the_warm_up_no_message_makes_tensorflow_trace_a_function() -> None:
    network, _ = network_and_encoder()
    encoder = TextEncoder(network_and_encoder()[1].vocabulary, BUCKETS)
    fresh = Scorer(encoder, network, ["/device:CPU:0"])
    fresh.warm_up()
    functions = [method.__self__ for method in (encoder.compiled_fold, encoder.compiled_tokens, encoder.compiled_read)]
    assert [function.experimental_get_tracing_count() for function in functions] == [1, 1, 1]
    fresh.score(["n e w", "中文 e.g. a_b_c_d", "don't ＦＲＥＥ", "£ 5"])
    assert [function.experimental_get_tracing_count() for function in functions] == [1, 1, 1]


def test_no_messages_have_no_scores() -> None:
    assert scorer().score([]).probabilities.shape == (0,)


def test_network_logits_equal_those_of_the_scorer() -> None:
    network, encoder = network_and_encoder()
    encoded = encode_messages(encoder, ["free win now", "call me later mum", "MONEY"])
    np.testing.assert_allclose(network_logits(network, encoded), scorer().logits(encoded), rtol=0, atol=1e-5)


def test_a_message_that_was_scored_before_has_the_same_score_and_is_not_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh = Scorer(*reversed(network_and_encoder()), ["/device:CPU:0"])
    before = fresh.score(["free win now", "call me", "free win now"]).probabilities
    assert before[0] == before[2]
    texts_read = []
    monkeypatch.setattr(
        fresh._reader,
        "read_buffers",
        lambda content, starts: texts_read.append(content.tobytes()) or scorer()._reader.read_buffers(content, starts),
    )
    after = fresh.score(["call me", "later mum", "free win now", "later mum"]).probabilities
    assert texts_read == [b"later mum"]
    assert after[[0, 2]].tolist() == before[[1, 0]].tolist()


@pytest.mark.parametrize("devices", [1, 2])
def test_messages_scored_by_several_threads_at_once_have_the_same_scores(devices: int) -> None:
    parts = [[f"free win {number} call", f"mum {number * 7}", "call me"] for number in range(40)] + [[]]
    fresh = Scorer(*reversed(network_and_encoder()), ["/device:CPU:0"] * devices)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fresh.score, parts))
    for part, scores in zip(parts, together, strict=True):
        expected, tolerance = scorer().score(part).probabilities, 0 if devices == 1 else 1e-5
        np.testing.assert_allclose(scores.probabilities, expected, rtol=0, atol=tolerance)


def test_devices_run_one_call_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Scorer(*reversed(network_and_encoder()), ["/device:CPU:0"] * 2)
    active, max_active = [0], [0]

    def logits(messages: EncodedMessages) -> np.ndarray:
        active[0] += 1
        max_active[0] = max(max_active[0], active[0])
        time.sleep(0.01)
        active[0] -= 1
        return np.zeros(len(messages), np.float32)

    monkeypatch.setattr(fresh, "logits", logits)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fresh.score, [[f"free win {number}"] for number in range(12)]))
    assert (fresh.threads, max_active[0]) == (2, 1)


def test_an_automatic_batch_size_changes_no_score() -> None:
    texts = [f"free win now {number} call me {number * 7}" for number in range(9000)]
    np.testing.assert_array_equal(scorer("auto").score(texts).probabilities, scorer(300).score(texts).probabilities)


def test_each_batch_size_is_tried_twice_and_then_the_fastest_is_used() -> None:
    clock_seconds, batch_sizes = [0.0], []

    class Network:
        """A network that takes a second per call, and half a second with batches of 1024."""

        def clock(self) -> float:
            return clock_seconds[0]

        def logits(self, messages: EncodedMessages, batch_size: int) -> np.ndarray:
            batch_sizes.append(batch_size)
            clock_seconds[0] += 0.5 if batch_size == 1024 else 1.0
            return np.zeros(len(messages), np.float32)

    tuner, messages = _BatchSizeTuner("auto"), encoded_words(2000)
    for _ in range(10):
        tuner.logits(Network(), messages)
    assert sorted(batch_sizes[:8]) == sorted([256, 512, 1024, 2048] * 2)
    assert batch_sizes[8:] == [1024, 1024]
    tuner.logits(Network(), encoded_words(10))
    assert batch_sizes[-1] == 512  # too few to measure


def encoded_words(count: int) -> EncodedMessages:
    return EncodedMessages(np.ones(count, np.int32), np.arange(count + 1), TokenTable.from_words([2]))


@settings(deadline=None, max_examples=200)
@given(lengths=st.lists(st.integers(1, 10_000) | st.integers(1, 40), max_size=60), batch_size=st.integers(1, 20))
def test_batches_contain_each_message_once_at_a_width_that_fits(lengths: list[int], batch_size: int) -> None:
    batches = batch_by_length(np.array(lengths, np.int64), batch_size)
    assert sorted(row for rows, _ in batches for row in rows) == list(range(len(lengths)))
    for rows, width in batches:
        assert 1 <= len(rows) <= batch_size
        longest = max(lengths[row] for row in rows)
        assert longest <= width
        assert width <= max(8, 2 * longest)


def test_widths_are_few_however_many_lengths_there_are() -> None:
    batches = batch_by_length(np.arange(1, 10_001), 512)
    assert len({width for _, width in batches}) <= 16


@pytest.mark.parametrize("batch_size", [1, 2, 512])
def test_the_batch_size_changes_no_score(batch_size: int) -> None:
    texts = [" ".join(WORDS[:count]) for count in range(1, 11)]
    expected = scorer().score(texts).probabilities
    np.testing.assert_allclose(scorer(batch_size).score(texts).probabilities, expected, rtol=0, atol=2e-6)


class Failing:
    """A scorer for which some messages are poison: it raises an error or returns NaN for them. Counts its calls."""

    def __init__(self, poison: Callable[[str], Exception | float | None], max_messages: int = 10**9) -> None:
        self.poison = poison
        self.max_messages = max_messages
        self.calls = 0

    def score(self, texts: Sequence[str]) -> Scores:
        self.calls += 1
        if len(texts) > self.max_messages:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor")
        poisons = {place: poison for place, text in enumerate(texts) if (poison := self.poison(text)) is not None}
        for poison in poisons.values():
            if isinstance(poison, Exception):
                raise poison
        scores = scorer().score(texts)
        scores.probabilities[list(poisons)] = list(poisons.values())
        return scores


def poisoned(text: str) -> Exception | None:
    return ValueError("no such thing") if "poison" in text else None


@settings(deadline=None, max_examples=50)
@given(bad=st.lists(st.booleans(), max_size=40))
def test_exactly_the_failing_messages_are_isolated_and_the_others_scored_as_without_them(bad: list[bool]) -> None:
    texts = [f"{'poison' if is_bad else 'free'} win {' '.join(WORDS[: index % 9])}" for index, is_bad in enumerate(bad)]
    failing = Failing(poisoned)
    if all(bad) and len(bad) > MAX_FAILURES_BY_CHANCE:
        with pytest.raises(ArtifactError, match="none of"):
            score_isolating_failures(failing, texts)
    else:
        result = score_isolating_failures(failing, texts)
        assert result.failures == {index: "ValueError: no such thing" for index, is_bad in enumerate(bad) if is_bad}
        sound = [index for index, is_bad in enumerate(bad) if not is_bad]
        expected = scorer().score([texts[index] for index in sound]).probabilities
        np.testing.assert_array_equal(result.scores.probabilities[sound], expected)
        assert np.isnan(result.scores.probabilities[np.flatnonzero(bad)]).all()
    halvings = 2 * len(bad).bit_length()
    assert failing.calls <= 2 + sum(bad) * (halvings + 1)
    assert failing.calls <= 2 + 3 * len(bad)


def test_messages_without_a_failure_are_scored_in_one_call() -> None:
    failing = Failing(poisoned)
    result = score_isolating_failures(failing, WORDS)
    np.testing.assert_array_equal(result.scores.probabilities, scorer().score(WORDS).probabilities)
    assert (result.failures, failing.calls) == ({}, 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (tf.errors.InvalidArgumentError(None, None, "indices[0] = 9 is not in [0, 9)\nmore"), "is not in [0, 9)"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), "ResourceExhaustedError: OOM"),
        (tf.errors.InternalError(None, None, "x"), "InternalError: x"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), "UnicodeEncodeError: 'utf-8' codec"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("a\x1b[31m\u202eb"), "RuntimeError: a [31m b"),
        (ValueError("cannot read 'poison and more\tof it'"), "ValueError: cannot read '…'"),
        (ValueError("cannot read 'poison and more\\tof it'"), "ValueError: cannot read '…'"),
        (KeyError("k" * 1000), "KeyError: 'kkkk"),
    ],
)
def test_any_error_of_a_message_is_described_on_a_short_line(error: Exception, expected: str) -> None:
    failing = Failing(lambda text: error if "poison" in text else None)
    result = score_isolating_failures(failing, ["free", "poison and more\tof it", "win"])
    (description,) = result.failures.values()
    assert expected in description
    assert description.startswith(type(error).__name__)
    assert len(description) <= 300
    assert description.isprintable()
    assert "poison" not in description


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_probability_that_is_not_finite_is_a_failure_of_its_message_only(value: float) -> None:
    failing = Failing(lambda text: value if text == "win" else None)
    result = score_isolating_failures(failing, WORDS)
    assert result.failures == {WORDS.index("win"): "FloatingPointError: the probability is not a finite number"}
    sound = [index for index, word in enumerate(WORDS) if word != "win"]
    np.testing.assert_array_equal(result.scores.probabilities[sound], scorer().score(WORDS).probabilities[sound])


def test_messages_that_fail_only_together_are_all_scored() -> None:
    result = score_isolating_failures(Failing(poisoned, max_messages=3), [*WORDS, "poison"])
    assert list(result.failures) == [len(WORDS)]
    np.testing.assert_allclose(result.scores.probabilities[:-1], scorer().score(WORDS).probabilities, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (ValueError("a weight is missing"), ArtifactError),
        (tf.errors.UnavailableError(None, None, "the device is gone"), DeviceError),
        (np.nan, ArtifactError),
    ],
)
@pytest.mark.parametrize("count", [1, 3000])
def test_a_failure_on_any_message_is_an_error_of_the_model_or_the_device(
    fault: Exception | float, kind: type[Exception], count: int
) -> None:
    failing = Failing(lambda _: fault)
    with pytest.raises(kind, match=r"gone|missing|not a finite number"):
        score_isolating_failures(failing, ["win"] * count)
    assert failing.calls < 20


def test_all_of_few_messages_may_fail_but_not_all_of_many() -> None:
    failures = score_isolating_failures(Failing(poisoned), ["poison"] * MAX_FAILURES_BY_CHANCE).failures
    assert list(failures) == list(range(MAX_FAILURES_BY_CHANCE))
    with pytest.raises(ArtifactError, match=r"none of 11 messages can be scored\. .*ValueError: no such thing"):
        score_isolating_failures(Failing(poisoned), ["poison"] * (MAX_FAILURES_BY_CHANCE + 1))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), OSError("disk"), ArtifactError("other")])
def test_errors_that_no_message_causes_are_raised_unchanged(error: BaseException) -> None:
    def score(texts: Sequence[str]) -> Scores:
        raise error

    failing = Failing(poisoned)
    failing.score = score
    with pytest.raises(type(error)) as caught:
        score_isolating_failures(failing, WORDS)
    assert caught.value is error


def test_the_plain_message_has_a_score() -> None:
    assert np.isfinite(scorer().score([PLAIN_MESSAGE]).probabilities).all()
