"""Features of tokens: vocabulary keys and classes, shapes, and n-grams."""

from __future__ import annotations

import functools
import string
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.settings import TextSettings
from models.text.cleaning import clean_texts
from models.text.tokens import (
    AS_WRITTEN,
    CAPITALS,
    CLASSES,
    CODE,
    EMAIL,
    MONEY,
    NGRAM_SIZES,
    NUMBER,
    PHONE,
    TITLE,
    URL,
    TokenReader,
    find_shapes,
    word_keys,
)

BUCKETS = 4096
UNKNOWN = 1
WORDS = {"free": 2, "win": 3, "prize": 4, "4u": 5, "URL": 6, "NUMBER": 7, "7": 8, "s3": 9}

# Any token that cleaning may return: no white space, no control characters.
any_tokens = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=8)


def strings(tokens: list[str]) -> tf.Tensor:
    return tf.constant([token.encode() for token in tokens], tf.string, shape=[len(tokens)])


@functools.cache
def compiled(function: Callable[[tf.Tensor], object]) -> Callable[[tf.Tensor], object]:
    return tf.function(function, input_signature=[tf.TensorSpec([None], tf.string)])


def get_keys(tokens: list[str]) -> list[tuple[str, str]]:
    keys, classes = (strings.numpy().tolist() for strings in compiled(word_keys)(strings(tokens)))
    return [(key.decode(), name.decode()) for key, name in zip(keys, classes, strict=True)]


def look_up(keys: tf.Tensor) -> tf.Tensor:
    numbers = tf.fill(tf.shape(keys), tf.constant(UNKNOWN, tf.int64))
    for word, number in WORDS.items():
        numbers = tf.where(keys == word, tf.constant(number, tf.int64), numbers)
    return numbers


@functools.cache
def reader(buckets: int = BUCKETS) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.RaggedTensor]]:
    return compiled(TokenReader(look_up, UNKNOWN, buckets).__call__)


def read(tokens: list[str], buckets: int = BUCKETS) -> tuple[list[int], list[int], list[list[int]]]:
    words, shapes, ngrams = reader(buckets)(strings(tokens))
    return words.numpy().tolist(), shapes.numpy().tolist(), ngrams.to_list()


@pytest.mark.parametrize(
    ("token", "key", "name"),
    [
        ("free", "free", "free"),
        ("FREE", "free", "free"),
        ("Free", "free", "free"),
        ("URL", "url", "url"),
        ("7", "7", NUMBER),
        ("10:30", "10:30", NUMBER),
        ("3.50", "3.50", NUMBER),
        ("##", NUMBER, NUMBER),
        ("483##", CODE, CODE),
        ("x483##", CODE, CODE),
        ("087####", PHONE, PHONE),
        ("£5", MONEY, MONEY),
        ("£1,000.50", MONEY, MONEY),
        ("$5k", MONEY, MONEY),
        ("£123##", MONEY, MONEY),
        ("£", "£", "£"),
        ("a.b+c@ex-ample.co.uk", EMAIL, EMAIL),
        ("http://x.test/a?b=1", URL, URL),
        ("WWW.WIN.COM", URL, URL),
        ("win.co.uk/123##", URL, URL),
        ("txt2win", "txt2win", "txt2win"),
        ("fr33", "fr33", "fr33"),
        ("!!", "!!", "!!"),
        ("#", "#", "#"),
        ("日", "日", "日"),
        ("", "", ""),
    ],
)  # fmt: skip
def test_a_token_counts_as_its_word_or_its_class(token: str, key: str, name: str) -> None:
    assert get_keys([token]) == [(key, name)]


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("http://x.test/a-b-c-d", URL), ("HTTPS://X.ZZ/A", URL), ("win.com", URL), ("a@b.com", EMAIL),
        ("£ 12345", MONEY),
        ("€9", MONEY), ("08712345678", PHONE), ("48392", CODE), ("&lt;#&gt;", NUMBER), ("٧", NUMBER),
    ],
)  # fmt: skip
def test_tokens_that_cleaning_keeps_whole_have_a_class(message: str, name: str) -> None:
    (token,) = clean_texts([message], TextSettings())[0].split()
    assert [found for _, found in get_keys([token])] == [name]


@settings(deadline=None, max_examples=200)
@given(token=any_tokens)
def test_no_word_is_mistaken_for_a_class(token: str) -> None:
    ((key, name),) = get_keys([token])
    assert key not in CLASSES or key == name
    assert (key in CLASSES or name in CLASSES) or key == name
    ((capitals_key, _),) = get_keys([token.upper()]) if token.isascii() else ((key, name),)
    assert capitals_key == key


@pytest.mark.parametrize(
    ("token", "shape"),
    [
        ("free", AS_WRITTEN), ("FREE", CAPITALS), ("Free", TITLE), ("fREE", AS_WRITTEN), ("FREe", TITLE), ("I", TITLE),
        ("OK", CAPITALS), ("A1", TITLE), ("A1B", CAPITALS), ("1ST", CAPITALS), ("1A", AS_WRITTEN), ("7", AS_WRITTEN),
        ("!!", AS_WRITTEN), ("日", AS_WRITTEN), ("", AS_WRITTEN), ("WWW.X.COM", CAPITALS), ("A@b.com", AS_WRITTEN),
    ],
)  # fmt: skip
def test_the_shape_of_a_token_is_how_it_is_written(token: str, shape: int) -> None:
    assert compiled(find_shapes)(strings([token])).numpy().tolist() == [shape]


@settings(deadline=None, max_examples=100)
@given(word=st.text(string.ascii_letters, min_size=2, max_size=9))
def test_lower_case_capitals_and_titles_have_different_shapes(word: str) -> None:
    shapes = compiled(find_shapes)(strings([word.lower(), word.upper(), word.capitalize()]))
    assert shapes.numpy().tolist() == [AS_WRITTEN, CAPITALS, TITLE]


@pytest.mark.parametrize(
    ("token", "number"),
    [
        ("free", 2),
        ("FREE", 2),
        ("fr33", 2),
        ("FR33", 2),
        ("w1n", 3),
        ("pr1z3", 4),
        ("4u", 5),  # a word as it is written
        ("s3", 9),
        ("w2n", UNKNOWN),
        ("x1y", UNKNOWN),
        ("http://x.test", 6),
        ("7", 8),
        ("8", 7),  # not in the vocabulary, but a number
        ("10:30", 7),
        ("##", 7),
        ("483##", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_a_token_has_the_number_of_its_word_its_leet_reading_or_its_class(token: str, number: int) -> None:
    assert read([token])[0] == [number]


def test_leet_has_the_n_grams_of_the_word_that_it_is_read_as() -> None:
    _, _, (leet, word, inside, plain) = read(["fr33", "free", "v14gra", "viagra"])
    assert leet == word
    assert inside == plain


@pytest.mark.parametrize(
    ("token", "other_token"), [("free", "FREE"), ("free", "Free"), ("Free", "FREE"), ("5", "6"), ("", "a")]
)
def test_tokens_that_are_written_differently_have_different_n_grams(token: str, other_token: str) -> None:
    first, second = read([token, other_token])[2]
    assert first[-1] != second[-1]


def test_all_email_addresses_have_the_same_n_grams_and_web_addresses_do_not() -> None:
    first, second, web, other_web = read(["a.b@x.com", "c@y.org", "http://x.com", "http://y.org"])[2]
    assert first == second
    assert web != other_web


@settings(deadline=None, max_examples=200)
@given(token=st.text(string.ascii_lowercase, max_size=10))
def test_n_grams_include_the_edges_of_the_word_and_the_last_one_is_the_whole_word(token: str) -> None:
    padded = f" {token} "
    parts = [padded[at : at + size] for size in NGRAM_SIZES for at in range(len(padded) - size + 1)]
    expected = tf.strings.to_hash_bucket_fast([*parts, padded], BUCKETS).numpy().tolist()
    assert read([token])[2] == [expected]


@settings(deadline=None, max_examples=100)
@given(tokens=st.lists(any_tokens, max_size=6))
def test_features_do_not_depend_on_the_batch_and_are_in_range(tokens: list[str]) -> None:
    words, shapes, ngrams = read(tokens)
    separately = [read([token]) for token in tokens]
    assert words == [features[0][0] for features in separately]
    assert shapes == [features[1][0] for features in separately]
    assert ngrams == [features[2][0] for features in separately]
    assert all(parts and min(parts) >= 0 and max(parts) < BUCKETS for parts in ngrams)
    assert set(words) <= {UNKNOWN, *WORDS.values()}


def test_without_buckets_there_are_no_n_grams() -> None:
    words, shapes, ngrams = read(["free", "WIN", "?"], buckets=0)
    assert (words, shapes, ngrams) == ([2, 3, UNKNOWN], [AS_WRITTEN, CAPITALS, AS_WRITTEN], [[], [], []])


def test_numbers_shapes_and_n_grams_are_32_bit_integers() -> None:
    assert [values.dtype for values in reader()(strings(["free"]))] == [tf.int32] * 3
    assert all(np.array(values).dtype == np.int32 for values in reader()(strings(["free"]))[:2])
