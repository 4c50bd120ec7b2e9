"""The word cutter cuts each word as the encoder does."""

from __future__ import annotations

import functools
import itertools

import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.hashing.arrow_strings import join_strings
from models.inference.word_cutter import MANY_WORDS, WordCutter
from models.settings import TextSettings, VocabularySettings
from models.text.encoder import TextEncoder
from models.text.vocabulary import build_vocabulary

SIGNS = list(".,;:!?()\"'/=+%&*-_#<>@$£€^|é日")
words = st.lists(
    st.lists(
        st.from_regex("[a-zA-Z]{1,3}|[0-9]{1,8}", fullmatch=True)
        | st.sampled_from([*SIGNS, "com", "www", "http", "##"]),
        min_size=1,
        max_size=8,
    ).map("".join),
    max_size=12,
    unique=True,
)


@functools.cache
def encoder() -> TextEncoder:
    return TextEncoder(build_vocabulary(["free"] * 2, VocabularySettings(min_count=1), TextSettings()), 64)


@functools.cache
def cutter() -> WordCutter:
    return WordCutter(encoder())


def cut_fast(texts: list[str]) -> list[list[bytes]]:
    cut = cutter().cut(*join_strings([text.encode() for text in texts]))
    runs = list(zip(cut.firsts.tolist(), cut.sizes.tolist(), strict=True))
    tokens = [cut.content[start:stop].tobytes() for start, stop in itertools.pairwise(cut.starts)]
    assert sum(size for _, size in runs) == len(tokens)
    return [tokens[first : first + size] for first, size in runs]


def cut_by_rules(texts: list[str]) -> list[list[bytes]]:
    cut = encoder().tokens(encoder().fold(tf.constant(texts, tf.string, [len(texts)])))
    return cut.to_list()


@settings(deadline=None, max_examples=300)
@given(texts=words)
@example(texts=["free", "5.", "x,y", "go!!!", "....", "£5", "1.5", "don't", "a.com", "f.r.e.e"])
@example(texts=["1234567a1234567", "a12345,12345b", "&amp;", "&lt;#&gt;x", "!?!?", "???!!!", "-", "&", "a&b", "5%"])
def test_words_are_cut_as_the_cleaning_rules_cut_them(texts: list[str]) -> None:
    assert cut_fast(texts) == cut_by_rules(texts)


def test_many_words_have_the_tokens_of_few() -> None:
    texts = [f"don't{number},a{number}.com" for number in range(2 * MANY_WORDS)]
    assert cut_fast(texts) == [tokens for text in texts for tokens in cut_fast([text])]
    assert cut_fast(texts) == cut_by_rules(texts)


def test_whole_messages_are_cut_by_the_cleaning_rules() -> None:
    (content, starts), sizes, characters = cutter().cut_whole([b"f r e e now", b"", "£ 5!".encode()])
    assert sizes.tolist() == [2, 0, 2]
    tokens = [content[start:stop].tobytes().decode() for start, stop in itertools.pairwise(starts)]
    assert tokens == ["free", "now", "£5", "!"]
    assert "".join(map(chr, characters.codes)) == " free now   £ 5! "
    assert characters.starts.tolist() == [0, 10, 11, 17]
