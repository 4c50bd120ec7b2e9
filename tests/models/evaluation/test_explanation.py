"""Explanations: the change of a score when a word is removed, and the words that decide the verdict."""

from __future__ import annotations

import functools
import string

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ArtifactError
from models.evaluation import explanation
from models.evaluation.explanation import (
    MAX_DECISIVE,
    MAX_PARTS,
    MIN_CHANGE,
    Explanation,
    Part,
    explain,
    find_word_spans,
)
from models.inference.scorer import Scorer
from models.network.network import INPUTS, TokenVectors, build_network
from models.settings import NetworkSettings, TextSettings, VocabularySettings
from models.text.encoder import TextEncoder
from models.text.vocabulary import UNKNOWN_ID, build_vocabulary

# Weight of each word in the test model; a logit is the sum of the weights.
WEIGHTS = {"free": 2.5, "win": 1.0, "now": 0.25, "lunch": -1.5, "mum": -0.5}
UNKNOWN_WEIGHT = 0.125
VOCABULARY = build_vocabulary([" ".join(WEIGHTS)], VocabularySettings(min_count=1), TextSettings(max_tokens=5000))


@functools.cache
def summing_scorer() -> Scorer:
    """Returns a scorer whose logit is the sum of its words' weights, so that the change of a word is its weight."""
    weights = np.array([[WEIGHTS.get(token, 0.0)] for token in VOCABULARY.tokens], np.float32)
    weights[UNKNOWN_ID] = UNKNOWN_WEIGHT
    inputs = {name: keras.Input([None] * (rank - 1), dtype="int32", name=name) for name, rank in INPUTS.items()}
    vectors = TokenVectors(len(VOCABULARY), 1, 0, 0.0, seed=0)
    network = keras.Model(inputs, keras.ops.sum(vectors(inputs), axis=(1, 2)))
    vectors.words.assign(weights)
    # Two devices: on a single processor the scorer expects the layers of `build_network`.
    return Scorer(TextEncoder(VOCABULARY, 0), network, ["/device:CPU:0"] * 2)


@functools.cache
def recurrent_scorer() -> Scorer:
    architecture = NetworkSettings(embedding_size=4, rnn_units=3, ngram_buckets=32)
    network = build_network(architecture, len(VOCABULARY), seed=2)
    return Scorer(TextEncoder(VOCABULARY, architecture.ngram_vectors), network, ["/device:CPU:0"])


def explain_one(message: str, max_parts: int = MAX_PARTS) -> Explanation:
    return explain(summing_scorer(), [message], max_parts)[0]


vocabulary_messages = st.lists(st.sampled_from(sorted(WEIGHTS)), min_size=2, max_size=30)
any_messages = st.text(st.sampled_from(string.ascii_letters + " \n\t£!0?äΩ好ไ\u200b\ud800"), max_size=60)


@settings(deadline=None, max_examples=50)
@given(words=vocabulary_messages)
def test_the_change_of_a_word_is_its_weight_in_an_additive_model(words: list[str]) -> None:
    result = explain_one(" ".join(words))
    assert [part.text for part in result.parts] == words
    np.testing.assert_allclose([part.change for part in result.parts], [WEIGHTS[word] for word in words], atol=1e-4)
    logit = sum(WEIGHTS[word] for word in words)
    assert result.probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    for part in result.parts:
        without = 1 / (1 + np.exp(WEIGHTS[part.text] - logit))
        assert part.probability_without == pytest.approx(without, abs=1e-5)


def test_strongest_sorts_by_absolute_change() -> None:
    result = explain_one("now FREE lunch unheard mum, win")
    assert [part.text for part in result.strongest(3)] == ["FREE", "lunch", "win"]
    assert result.strongest(0) == []


def test_strongest_leaves_out_changes_below_the_minimum() -> None:
    parts = tuple(
        Part("x", index, index + 1, change, 0.5) for index, change in enumerate((MIN_CHANGE, 0.099, -0.099, -0.2))
    )
    assert [part.change for part in Explanation("xxxx", 0.5, parts).strongest(9)] == [-0.2, MIN_CHANGE]


@settings(deadline=None, max_examples=100)
@given(message=any_messages)
def test_the_parts_are_exactly_the_words_of_the_message_in_order(message: str) -> None:
    result = explain_one(message)
    assert [message[part.start : part.end] for part in result.parts] == [part.text for part in result.parts]
    assert "".join(part.text for part in result.parts) == "".join(message.split())
    assert result.probability == summing_scorer().score([message]).probabilities[0]


@settings(deadline=None, max_examples=25)
@given(messages=st.lists(any_messages, max_size=5))
def test_an_explanation_does_not_depend_on_the_other_messages(messages: list[str]) -> None:
    together = explain(recurrent_scorer(), messages)
    for message, result in zip(messages, together, strict=True):
        (alone,) = explain(recurrent_scorer(), [message])
        assert [part.text for part in alone.parts] == [part.text for part in result.parts]
        np.testing.assert_allclose(
            [part.change for part in alone.parts], [part.change for part in result.parts], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("message", ["", " ", "\n\t\u3000"])
def test_a_message_without_a_word_has_no_parts(message: str) -> None:
    assert explain_one(message).parts == ()


def test_a_message_of_one_word_is_compared_with_the_empty_message() -> None:
    (part,) = explain_one("free").parts
    empty = summing_scorer().score([""]).probabilities[0]
    assert (part.probability_without, part.change) == (empty, pytest.approx(2.5 - UNKNOWN_WEIGHT))


@settings(deadline=None, max_examples=100)
@given(words=st.integers(0, 900), max_spans=st.integers(1, 300))
def test_a_long_message_is_divided_into_a_bounded_number_of_runs_that_contain_every_word(
    words: int, max_spans: int
) -> None:
    message = " ".join(f"w{number}" for number in range(words))
    spans = find_word_spans(message, max_spans)
    assert len(spans) == min(words, max_spans)
    assert " ".join(message[start:end] for start, end in spans) == message
    lengths = [len(message[start:end].split()) for start, end in spans]
    assert not lengths or max(lengths) - min(lengths) <= 1


def test_a_script_without_spaces_is_split_into_characters() -> None:
    assert ["免费 win!"[start:end] for start, end in find_word_spans("免费 win!")] == ["免", "费", "win!"]


def test_a_long_message_needs_a_bounded_number_of_scores() -> None:
    scored: list[int] = []

    class Counting:
        encode = staticmethod(summing_scorer().encode)

        def logits(self, messages: object) -> np.ndarray:
            scored.append(len(messages))  # type: ignore[arg-type]
            return np.zeros(len(messages), np.float32)  # type: ignore[arg-type]

    explain(Counting(), ["win " * 50_000])  # type: ignore[arg-type]
    assert scored == [MAX_PARTS + 1]


def test_a_score_that_is_not_finite_raises_an_error() -> None:
    class Broken:
        encode = staticmethod(summing_scorer().encode)

        def logits(self, messages: object) -> np.ndarray:
            return np.full(len(messages), np.nan, np.float32)  # type: ignore[arg-type]

    with pytest.raises(ArtifactError, match="expected finite scores, received NaN"):
        explain(Broken(), ["win now"])  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(words=vocabulary_messages, threshold=st.sampled_from([0.02, 0.3, 0.5, 0.7, 0.98]))
def test_without_the_decisive_words_the_verdict_flips_and_each_of_them_is_needed(
    words: list[str], threshold: float
) -> None:
    (result,) = explain(summing_scorer(), [" ".join(words)], threshold=threshold)
    flagged = result.probability >= threshold
    assert {part.start for part in result.decisive} <= {part.start for part in result.parts}
    assert len(result.decisive) <= MAX_DECISIVE

    def verdict(removed: list[Part]) -> bool:
        starts = [part.start for part in removed]
        rest = " ".join(part.text for part in result.parts if part.start not in starts)
        return bool(summing_scorer().score([rest]).probabilities[0] >= threshold)

    if result.decisive:
        assert verdict(list(result.decisive)) != flagged
        for part in result.decisive:
            assert verdict([other for other in result.decisive if other is not part]) == flagged
    else:  # in a sum, removing the words with the largest weights changes the score most
        best = sorted(result.parts, key=lambda part: -part.change if flagged else part.change)[:MAX_DECISIVE]
        assert verdict(best[: len(result.parts) - 1]) == flagged


def test_decisive_words_are_found_if_no_single_word_decides() -> None:
    (result,) = explain(summing_scorer(), ["free win mum free now"], threshold=0.5)
    assert [part.text for part in result.decisive] == ["free", "win", "free"]
    assert explain_one("free win mum free now").decisive == ()  # no threshold given


def test_a_word_that_later_removals_make_unnecessary_is_not_decisive(monkeypatch: pytest.MonkeyPatch) -> None:
    # A model that is not additive: "a" alone changes the score most, but "b" and "c" together are enough.
    logits = {"a": 1.0, "b": 1.5, "c": 1.5, "a b": 0.5, "a c": 0.4, "b c": -1.0, "a b c": -2.0}

    def answer(_: Scorer, texts: list[str]) -> np.ndarray:
        removed = [" ".join(word for word in "abcd" if word not in text.split()) for text in texts]
        return np.array([logits.get(words, 2.0) for words in removed])

    monkeypatch.setattr(explanation, "_compute_logits", answer)
    (result,) = explain(summing_scorer(), ["a b c d"], threshold=0.5)
    assert [part.text for part in result.decisive] == ["b", "c"]
