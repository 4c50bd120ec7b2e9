"""Segmentation: the cut in the graph is as likely as the best one that a plain search finds."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.settings import TextSettings
from models.text import segmentation
from models.text.segmentation import MAX_RUN_LETTERS, MAX_WORD_LETTERS, Segmenter
from models.text.vocabulary import SPECIAL_TOKENS, Vocabulary

COUNTS = {
    "free": 400, "win": 300, "now": 300, "you": 250, "have": 200, "won": 150, "prize": 100, "entry": 80, "a": 500,
    "i": 300, "to": 400, "claim": 60, "free entry": 9, "MONEY": 400, "x": 50, "4u": 30, "!": 500, "in": 300, "ok": 40,
    "écran": 30, "congratulations": 20, "supercalifragilistic": 5,
}  # fmt: skip


def vocabulary(counts: dict[str, int]) -> Vocabulary:
    return Vocabulary((*SPECIAL_TOKENS, *counts), (0, 7, *counts.values()), TextSettings())


@functools.cache
def segmenter() -> Callable[[tf.Tensor], tf.Tensor]:
    return tf.function(Segmenter(vocabulary(COUNTS)).__call__, input_signature=[tf.TensorSpec([None], tf.string)])


def cut(runs: list[str]) -> list[str]:
    return [words.decode() for words in segmenter()(tf.constant([run.encode() for run in runs])).numpy().tolist()]


def log_likelihood(word: str) -> float:
    """Computes the log-likelihood of a word in plain Python."""
    count = (
        COUNTS.get(word) if word.isalpha() and word.islower() and (len(word) > 1 or word in ("a", "i", "u")) else None
    )
    total = sum(COUNTS.values()) + 7
    unknown = -segmentation._UNKNOWN_STRETCH - segmentation._UNKNOWN_LETTER * len(word)
    value = math.log(count / total) if count else unknown
    return value - (segmentation._SHORT_COST if len(word) < segmentation._SHORT_WORD else 0.0)


def best_log_likelihood(run: str) -> float:
    """Computes the log-likelihood of the best cut with the textbook Viterbi algorithm."""
    best = [0.0]
    for end in range(1, len(run) + 1):
        sizes = range(1, min(end, MAX_WORD_LETTERS) + 1)
        best.append(max(best[end - size] + log_likelihood(run[end - size : end]) for size in sizes))
    return best[-1]


runs_of_words = st.lists(st.sampled_from([*COUNTS, "zq", "e", "é", "日", "hi"]), min_size=1, max_size=12).map(
    lambda words: "".join(word for word in words if word.isalpha()).lower() or "a"
)
any_runs = st.text("abcefinorwyz", min_size=1, max_size=40) | st.text(
    st.characters(categories=["Ll", "Lo"]), min_size=1, max_size=20
)


@settings(deadline=None, max_examples=200)
@given(runs=st.lists(runs_of_words | any_runs, min_size=1, max_size=5))
@example(runs=["supercalifragilistic" * 3])
def test_no_cut_is_more_likely_than_the_one_found(runs: list[str]) -> None:
    for run, result in zip(runs, cut(runs), strict=True):
        words = result.split(" ")
        assert "".join(words) == run
        assert all(1 <= len(word) <= MAX_WORD_LETTERS for word in words)
        assert sum(map(log_likelihood, words)) == pytest.approx(best_log_likelihood(run), abs=1e-3)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("freeentry", "free entry"),
        ("youhavewonaprize", "you have won a prize"),
        ("winnow", "win now"),
        ("congratulations", "congratulations"),
        ("zzzz", "zzzz"),
        ("freezzzzwin", "free zzzz win"),
        ("free", "free"),
        ("f", "f"),
        ("écranfree", "écran free"),
    ],
)
def test_runs_are_cut_into_the_words_that_a_person_reads(run: str, words: str) -> None:
    assert cut([run]) == [words]


@settings(deadline=None, max_examples=50)
@given(runs=st.lists(runs_of_words | any_runs, min_size=1, max_size=6))
def test_the_cut_of_a_run_does_not_depend_on_the_batch(runs: list[str]) -> None:
    assert cut(runs) == [cut([run])[0] for run in runs]


def test_letters_after_the_maximum_run_length_are_dropped() -> None:
    (found,) = cut(["win" * 500])
    assert found.replace(" ", "") == ("win" * 500)[:MAX_RUN_LETTERS]


def test_without_words_in_the_vocabulary_no_piece_is_longer_than_a_word_may_be() -> None:
    empty = Segmenter(vocabulary({"!": 3, "MONEY": 2}))
    (found,) = empty(tf.constant(["free" * 9])).numpy().tolist()
    assert found.decode().replace(" ", "") == "free" * 9
    assert max(map(len, found.decode().split())) <= MAX_WORD_LETTERS
