"""Which words moved a score: by how much the model's own answer changes without each."""

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
from models.evaluation.explanation import MOST_DECISIVE, MOST_PARTS, SLIGHT, Explanation, Part, explain, word_spans
from models.inference.scorer import Scorer
from models.network.network import INPUTS, TokenVectors, build_network
from models.settings import NetworkSettings, TextSettings, VocabularySettings
from models.text.encoder import TextEncoder
from models.text.vocabulary import UNKNOWN_ID, build_vocabulary

# What a model of known weights gives each word; a logit is their sum.
WEIGHTS = {"free": 2.5, "win": 1.0, "now": 0.25, "lunch": -1.5, "mum": -0.5}
UNKNOWN_WEIGHT = 0.125
VOCABULARY = build_vocabulary([" ".join(WEIGHTS)], VocabularySettings(min_count=1), TextSettings(max_tokens=5000))


@functools.cache
def summing_scorer() -> Scorer:
    """A model whose logit is the sum of its words' weights: what a word changes is its weight."""
    weights = np.array([[WEIGHTS.get(token, 0.0)] for token in VOCABULARY.tokens], np.float32)
    weights[UNKNOWN_ID] = UNKNOWN_WEIGHT
    inputs = {name: keras.Input([None] * (rank - 1), dtype="int32", name=name) for name, rank in INPUTS.items()}
    vectors = TokenVectors(len(VOCABULARY), 1, 0, 0, 0.0, seed=0)
    network = keras.Model(inputs, keras.ops.sum(vectors(inputs), axis=(1, 2)))
    vectors.words.assign(weights)
    # Two devices, for one processor would want the layers that `build_network` makes.
    return Scorer(TextEncoder(VOCABULARY, 0), network, ["/device:CPU:0"] * 2)


@functools.cache
def recurrent_scorer() -> Scorer:
    make = NetworkSettings(embedding_size=4, rnn_units=3, ngram_buckets=32)
    network = build_network(make, len(VOCABULARY), seed=2)
    return Scorer(TextEncoder(VOCABULARY, make.ngram_buckets), network, ["/device:CPU:0"])


def explained(message: str, most_parts: int = MOST_PARTS) -> Explanation:
    return explain(summing_scorer(), [message], most_parts)[0]


known_messages = st.lists(st.sampled_from(sorted(WEIGHTS)), min_size=2, max_size=30)
any_messages = st.text(st.sampled_from(string.ascii_letters + " \n\t£!0?äΩ好ไ\u200b\ud800"), max_size=60)


@settings(deadline=None, max_examples=50)
@given(words=known_messages)
def test_the_change_of_a_word_is_its_weight_in_a_model_that_adds_them_up(words: list[str]) -> None:
    found = explained(" ".join(words))
    assert [part.text for part in found.parts] == words
    np.testing.assert_allclose([part.change for part in found.parts], [WEIGHTS[word] for word in words], atol=1e-4)
    logit = sum(WEIGHTS[word] for word in words)
    assert found.probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)
    for part in found.parts:
        without = 1 / (1 + np.exp(WEIGHTS[part.text] - logit))
        assert part.probability_without == pytest.approx(without, abs=1e-5)


def test_the_strongest_are_those_that_changed_most_whatever_their_sign() -> None:
    found = explained("now FREE lunch unheard mum, win")
    assert [part.text for part in found.strongest(3)] == ["FREE", "lunch", "win"]
    assert found.strongest(0) == []


def test_a_word_that_moved_the_score_too_little_to_say_so_is_none_of_the_strongest() -> None:
    parts = tuple(
        Part("x", place, place + 1, change, 0.5) for place, change in enumerate((SLIGHT, 0.099, -0.099, -0.2))
    )
    assert [part.change for part in Explanation("xxxx", 0.5, parts).strongest(9)] == [-0.2, SLIGHT]


@settings(deadline=None, max_examples=100)
@given(message=any_messages)
def test_the_parts_are_the_words_of_the_message_in_their_order_and_nothing_else(message: str) -> None:
    found = explained(message)
    assert [message[part.start : part.end] for part in found.parts] == [part.text for part in found.parts]
    assert "".join(part.text for part in found.parts) == "".join(message.split())
    assert found.probability == summing_scorer().score([message]).probabilities[0]


@settings(deadline=None, max_examples=25)
@given(messages=st.lists(any_messages, max_size=5))
def test_a_message_is_explained_alike_alone_and_among_others(messages: list[str]) -> None:
    together = explain(recurrent_scorer(), messages)
    for message, found in zip(messages, together, strict=True):
        (alone,) = explain(recurrent_scorer(), [message])
        assert [part.text for part in alone.parts] == [part.text for part in found.parts]
        np.testing.assert_allclose(
            [part.change for part in alone.parts], [part.change for part in found.parts], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("message", ["", " ", "\n\t\u3000"])
def test_a_message_without_a_word_has_no_parts(message: str) -> None:
    assert explained(message).parts == ()


def test_of_a_message_of_one_word_what_is_left_is_the_empty_message() -> None:
    (part,) = explained("free").parts
    empty = summing_scorer().score([""]).probabilities[0]
    assert (part.probability_without, part.change) == (empty, pytest.approx(2.5 - UNKNOWN_WEIGHT))


@settings(deadline=None, max_examples=100)
@given(words=st.integers(0, 900), most=st.integers(1, 300))
def test_a_long_message_is_divided_into_a_bounded_number_of_runs_that_hold_every_word(words: int, most: int) -> None:
    message = " ".join(f"w{number}" for number in range(words))
    spans = word_spans(message, most)
    assert len(spans) == min(words, most)
    assert " ".join(message[start:end] for start, end in spans) == message
    lengths = [len(message[start:end].split()) for start, end in spans]
    assert not lengths or max(lengths) - min(lengths) <= 1


def test_a_script_without_spaces_is_taken_character_by_character() -> None:
    assert ["免费 win!"[start:end] for start, end in word_spans("免费 win!")] == ["免", "费", "win!"]


def test_a_long_message_costs_a_bounded_number_of_scores() -> None:
    scored: list[int] = []

    class Counting:
        encode = staticmethod(summing_scorer().encode)

        def logits(self, messages: object) -> np.ndarray:
            scored.append(len(messages))  # type: ignore[arg-type]
            return np.zeros(len(messages), np.float32)  # type: ignore[arg-type]

    explain(Counting(), ["win " * 50_000])  # type: ignore[arg-type]
    assert scored == [MOST_PARTS + 1]


def test_a_score_that_is_no_number_is_an_error() -> None:
    class Broken:
        encode = staticmethod(summing_scorer().encode)

        def logits(self, messages: object) -> np.ndarray:
            return np.full(len(messages), np.nan, np.float32)  # type: ignore[arg-type]

    with pytest.raises(ArtifactError, match="expected scores that are numbers"):
        explain(Broken(), ["win now"])  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(words=known_messages, threshold=st.sampled_from([0.02, 0.3, 0.5, 0.7, 0.98]))
def test_without_the_decisive_words_the_verdict_is_another_and_each_of_them_is_needed(
    words: list[str], threshold: float
) -> None:
    (found,) = explain(summing_scorer(), [" ".join(words)], threshold=threshold)
    flagged = found.probability >= threshold
    assert {part.start for part in found.decisive} <= {part.start for part in found.parts}
    assert len(found.decisive) <= MOST_DECISIVE

    def verdict(gone: list[Part]) -> bool:
        starts = [part.start for part in gone]
        rest = " ".join(part.text for part in found.parts if part.start not in starts)
        return bool(summing_scorer().score([rest]).probabilities[0] >= threshold)

    if found.decisive:
        assert verdict(list(found.decisive)) != flagged
        for part in found.decisive:
            assert verdict([one for one in found.decisive if one is not part]) == flagged
    else:  # of a sum, the best that few words can do is to go where they weigh most
        best = sorted(found.parts, key=lambda part: -part.change if flagged else part.change)[:MOST_DECISIVE]
        assert verdict(best[: len(found.parts) - 1]) == flagged


def test_the_decisive_words_are_named_where_none_alone_decides() -> None:
    (found,) = explain(summing_scorer(), ["free win mum free now"], threshold=0.5)
    assert [part.text for part in found.decisive] == ["free", "win", "free"]
    assert explained("free win mum free now").decisive == ()  # not asked


def test_a_word_that_the_ones_taken_later_make_needless_is_not_decisive(monkeypatch: pytest.MonkeyPatch) -> None:
    # A model that no sum stands for: "a" alone moves it furthest, yet "b" and "c" together are enough.
    logits = {"a": 1.0, "b": 1.5, "c": 1.5, "a b": 0.5, "a c": 0.4, "b c": -1.0, "a b c": -2.0}

    def answer(_: Scorer, texts: list[str]) -> np.ndarray:
        gone = [" ".join(word for word in "abcd" if word not in text.split()) for text in texts]
        return np.array([logits.get(one, 2.0) for one in gone])

    monkeypatch.setattr(explanation, "_logits", answer)
    (found,) = explain(summing_scorer(), ["a b c d"], threshold=0.5)
    assert [part.text for part in found.decisive] == ["b", "c"]
