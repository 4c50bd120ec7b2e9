"""Single words are folded and cut in Python as the graph folds and cuts them."""

from __future__ import annotations

import functools

import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from models.settings import TextSettings, VocabularySettings
from models.text.encoder import TextEncoder
from models.text.vocabulary import build_vocabulary
from models.text.word_rules import cut_word, fold_word

ENTITIES = [
    "&amp;", "&lt;#&gt;", "&nbsp;", "&bogus;", "&ampx;", "&AMP;", "&notit;", "&;", "&#39;", "&#x27;", "&#X41;",
    "&#0;", "&#00065;", "&#128;", "&#13;", "&#11;", "&#127;", "&#xD800;", "&#xFFFF;", "&#xFDD0;", "&#x10FFFF;",
    "&#x110000;", "&#12345678;", "&#xx;", "&#32;", "&amp;lt;", "&fjlig;", "&NotEqualTilde;", "\x00", "\x01",
]  # fmt: skip
PIECES = [
    "http://", "www.", ".com", "me", "@", "a", "B", "7", "12345", "1234567", "£", "$", ".", ",", ":", "!", "?", "*",
    "'", "-", "_", "+", "#", "##", "<#>", "<TIME>", "/", "(", "%", "~", "f.r.e.e", "1.5", "x", "!!", "...",
]  # fmt: skip


@functools.cache
def encoder() -> TextEncoder:
    text = TextSettings(max_characters=40)
    return TextEncoder(build_vocabulary(["free"] * 2, VocabularySettings(min_count=1), text), 64)


@given(
    words=st.lists(
        st.text(max_size=6) | st.lists(st.sampled_from([*ENTITIES, "a", "é", "…"]), max_size=4).map("".join), min_size=1
    )
)
@example(words=ENTITIES)
@example(
    words=["ＦＲＥＥ", "d’", "½", "ⅷ", "İ", "ﷺ", "\u200b", "🅰", "\x85", "\x1c", "\ue000", "\U000f0000", "日本", "ß"]
)
def test_words_are_folded_as_the_graph_folds_them(words: list[str]) -> None:
    folded = encoder().compiled_fold(tf.constant([word.encode() for word in words])).numpy()
    assert [fold_word(word).encode() for word in words] == folded.tolist()


@given(words=st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), min_size=1))
@example(words=["x" * 90, "1.5" * 20, "a'b'c", "(f.r.e.e)", "a@b.c", "", "f.r.e.e", "x" * 101])
def test_words_are_cut_as_the_graph_cuts_them(words: list[str]) -> None:
    expected = encoder().compiled_tokens(tf.constant([word.encode() for word in words])).to_list()
    for word, tokens in zip(words, expected, strict=True):
        assert cut_word(word, 40) in (tokens, None)


@pytest.mark.parametrize("word", ["don't", "www.x", "£5.", "a-b", "<#>", "x" * 100, "me@x.test"])
def test_words_of_ascii_and_pound_signs_need_no_graph(word: str) -> None:
    assert cut_word(word, 200) is not None


@pytest.mark.parametrize("word", ["日", "€5", "x" * 101, "f.r.e.e", "a_b_c_d"])
def test_long_words_other_characters_and_spaced_out_letters_are_left_to_the_graph(word: str) -> None:
    assert cut_word(word, 200) is None
