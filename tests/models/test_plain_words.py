"""Plain words are read as `models.tokens.TokenReader` reads all tokens."""

from __future__ import annotations

import functools
import re

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.encoder import TextEncoder
from models.plain_words import PLAIN_WORD, PlainWordReader
from models.remembered import tensor_of
from models.settings import TextSettings, VocabularySettings
from models.vocabulary import build_vocabulary

VOCABULARY = build_vocabulary(["free win url number a"] * 2, VocabularySettings(min_count=1), TextSettings())
Read = tuple[list[int], list[int], list[list[int]]]

words = st.from_regex(PLAIN_WORD, fullmatch=True) | st.sampled_from(["free", "FREE", "Win", "wIN", "URL", "A", "a"])


@functools.cache
def encoder(buckets: int) -> TextEncoder:
    return TextEncoder(VOCABULARY, buckets)


def by_tensorflow(tokens: list[str], buckets: int) -> Read:
    numbers, shapes, ngrams = encoder(buckets).read(tensor_of(pa.array(tokens)))
    return numbers.numpy().tolist(), shapes.numpy().tolist(), ngrams.to_list()


def by_numpy(tokens: list[str], buckets: int) -> Read:
    read = PlainWordReader(VOCABULARY, buckets).read(pa.array(tokens))
    each = iter(read.ngrams.tolist())
    ngrams = [[next(each) for _ in range(count)] for count in read.counts]
    assert next(each, None) is None
    return read.words.tolist(), read.shapes.tolist(), ngrams


@settings(deadline=None)
@given(tokens=st.lists(words, min_size=1, max_size=20), buckets=st.sampled_from([0, 1, 1000, 2**18]))
@example(tokens=["a"], buckets=1000)
@example(tokens=["abcdefghijklm", "ABCDEFGHIJKLM", "Abcdefghijklm"], buckets=2**18)
def test_plain_words_are_read_as_the_encoder_reads_them(tokens: list[str], buckets: int) -> None:
    assert by_numpy(tokens, buckets) == by_tensorflow(tokens, buckets)


def test_more_words_than_are_read_at_once_are_read_alike() -> None:
    letters = "abcdefghijklmnopqrst"
    tokens = [one + other + third for one in letters for other in letters for third in letters.upper()]
    tokens += [token + "xyz" for token in tokens]
    assert by_numpy(tokens, 5000) == by_tensorflow(tokens, 5000)


@pytest.mark.parametrize("token", ["", "abcdefghijklmn", "a1", "é", "a.b", "a b", "a\n"])
def test_a_token_with_anything_else_or_more_is_not_plain(token: str) -> None:
    assert not re.search(PLAIN_WORD.replace("$", r"\Z"), token)
