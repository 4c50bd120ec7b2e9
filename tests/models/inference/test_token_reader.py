"""Tokens are read as `models.text.tokens.TokenReader` reads them."""

from __future__ import annotations

import functools

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.inference.token_reader import FastTokenReader
from models.settings import TextSettings, VocabularySettings
from models.text.arrow_tensors import arrow_to_tensor
from models.text.encoder import TextEncoder
from models.text.vocabulary import build_vocabulary

VOCABULARY = build_vocabulary(
    ["free win url number a 4u 7 £5 me@x.test 12345 08712345678"] * 2, VocabularySettings(min_count=1), TextSettings()
)
Read = list[tuple[int, int, list[int]]]

KINDS = [
    "free", "FREE", "Win", "wIN", "URL", "A", "a", "7", "4u", "fr33", "FR33", "10:30", "##", "483##", "x483##",
    "087####", "£5", "$5", "£1,000.50", "$123456789012345", "a.b@ex.test", "http://x.test/a?b=1", "WWW.WIN.COM", "!!",
    "é", "日", "Éa", "", "£5pm", "A£5", "££££££££", "£a£b", "£" * 9, "1.2.3", "£x.com", "me@x.test£", "FR33.COM",
    "l33t", "4LL", "7O7", "##a", "a##", "www.£", "HTTP://x", "x" * 13, "x" * 14, "X" * 40, "1" * 20, "a1" * 20, "^a",
    "~a",
]  # fmt: skip
tokens_of_any_kind = (
    st.from_regex("[A-Za-z]{1,14}", fullmatch=True)
    | st.sampled_from(KINDS)
    | st.text(st.characters(exclude_categories=["Z", "C"]), max_size=18)
)


@functools.cache
def encoder(buckets: int) -> TextEncoder:
    return TextEncoder(VOCABULARY, buckets)


@functools.cache
def reader(buckets: int) -> FastTokenReader:
    return FastTokenReader(encoder(buckets))


def as_the_encoder_reads(tokens: list[str], buckets: int) -> Read:
    words, shapes, ngrams = encoder(buckets).read(arrow_to_tensor(pa.array(tokens)))
    return list(zip(words.numpy().tolist(), shapes.numpy().tolist(), ngrams.to_list(), strict=True))


def as_it_reads(tokens: list[str], buckets: int) -> Read:
    read = reader(buckets).read(pa.array(tokens).cast(pa.binary()))
    each = iter(read.ngrams.tolist())
    ngrams = [[next(each) for _ in range(count)] for count in read.counts]
    assert next(each, None) is None
    return list(zip(read.words.tolist(), read.shapes.tolist(), ngrams, strict=True))


@settings(deadline=None)
@given(
    tokens=st.lists(tokens_of_any_kind, min_size=1, max_size=20, unique=True),
    buckets=st.sampled_from([0, 1, 1000, 2**18]),
)
@example(tokens=KINDS, buckets=2**18)
@example(tokens=["a"], buckets=1000)
@example(tokens=["é"], buckets=1000)
@example(tokens=["!"], buckets=1000)
def test_tokens_are_read_as_the_encoder_reads_them(tokens: list[str], buckets: int) -> None:
    assert as_it_reads(tokens, buckets) == as_the_encoder_reads(tokens, buckets)


@pytest.mark.parametrize("end", ["", "9"])
def test_thousands_of_tokens_are_read_alike(end: str) -> None:
    letters = "abcdefghijklmnopqrst"
    tokens = [one + other + third + end for one in letters for other in letters for third in letters.upper()]
    tokens += ["xyz" + token for token in tokens]
    assert as_it_reads(tokens, 5000) == as_the_encoder_reads(tokens, 5000)
