"""The fast token reader gives the features of `models.text.tokens.TokenReader`."""

from __future__ import annotations

import functools

import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.hashing.arrow_strings import join_strings
from models.inference.token_reader import FastTokenReader
from models.settings import TextSettings, VocabularySettings
from models.text.encoder import TextEncoder
from models.text.vocabulary import build_vocabulary

VOCABULARY = build_vocabulary(
    ["free win url number a 4u 7 £5 me@x.test 12345 08712345678"] * 2, VocabularySettings(min_count=1), TextSettings()
)
Features = list[tuple[int, int, list[int]]]

SAMPLES = [
    "free", "FREE", "Win", "wIN", "URL", "A", "a", "7", "4u", "fr33", "FR33", "10:30", "##", "483##", "x483##",
    "087####", "£5", "$5", "£1,000.50", "$123456789012345", "a.b@ex.test", "http://x.test/a?b=1", "WWW.WIN.COM", "!!",
    "é", "日", "Éa", "", "£5pm", "A£5", "££££££££", "£a£b", "£" * 9, "1.2.3", "£x.com", "me@x.test£", "FR33.COM",
    "l33t", "4LL", "7O7", "##a", "a##", "www.£", "HTTP://x", "x" * 13, "x" * 14, "X" * 40, "1" * 20, "a1" * 20, "^a",
    "~a",
]  # fmt: skip
any_tokens = (
    st.from_regex("[A-Za-z]{1,14}", fullmatch=True)
    | st.sampled_from(SAMPLES)
    | st.text(st.characters(exclude_categories=["Z", "C"]), max_size=18)
)


@functools.cache
def encoder(buckets: int) -> TextEncoder:
    return TextEncoder(VOCABULARY, buckets)


@functools.cache
def reader(buckets: int) -> FastTokenReader:
    return FastTokenReader(encoder(buckets))


def read_with_encoder(tokens: list[str], buckets: int) -> Features:
    words, shapes, ngrams = encoder(buckets).read(tf.constant(tokens))
    return list(zip(words.numpy().tolist(), shapes.numpy().tolist(), ngrams.to_list(), strict=True))


def read_fast(tokens: list[str], buckets: int) -> Features:
    features = reader(buckets).read(*join_strings([token.encode() for token in tokens]))
    remaining = iter(features.ngrams.tolist())
    ngrams = [[next(remaining) for _ in range(count)] for count in features.counts]
    assert next(remaining, None) is None
    return list(zip(features.words.tolist(), features.shapes.tolist(), ngrams, strict=True))


@settings(deadline=None)
@given(
    tokens=st.lists(any_tokens, min_size=1, max_size=20, unique=True),
    buckets=st.sampled_from([0, 1, 1000, 2**18]),
)
@example(tokens=SAMPLES, buckets=2**18)
@example(tokens=["a"], buckets=1000)
@example(tokens=["é"], buckets=1000)
@example(tokens=["!"], buckets=1000)
def test_tokens_are_read_as_the_encoder_reads_them(tokens: list[str], buckets: int) -> None:
    assert read_fast(tokens, buckets) == read_with_encoder(tokens, buckets)


@pytest.mark.parametrize("suffix", ["", "9"])
def test_thousands_of_tokens_are_read_as_the_encoder_reads_them(suffix: str) -> None:
    letters = "abcdefghijklmnopqrst"
    tokens = [first + second + third + suffix for first in letters for second in letters for third in letters.upper()]
    tokens += ["xyz" + token for token in tokens]
    assert read_fast(tokens, 5000) == read_with_encoder(tokens, 5000)
