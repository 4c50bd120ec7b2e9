"""The cached reader gives the same result as the encoder, on hostile messages too."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from real_corpus import real_messages

from models.inference.message_reader import MessageReader
from models.settings import TextSettings, VocabularySettings
from models.text.encoder import EncodedMessages, TextEncoder, encode_messages
from models.text.vocabulary import build_vocabulary

WORDS = ["free", "win", "call", "me", "a", "i", "u", "it's", "£", "5", "f r e e", "to day"]
TEXT = {"signal": TextSettings(max_tokens=12, max_characters=60), "letters": TextSettings(cleaning="letters")}


@functools.cache
def encoder(cleaning: str = "signal") -> TextEncoder:
    text = TEXT[cleaning]
    return TextEncoder(build_vocabulary([" ".join(WORDS)] * 2, VocabularySettings(min_count=1), text), 512)


@functools.cache
def reader(cleaning: str = "signal", max_cached: int = 40) -> MessageReader:
    """A reader with a small cache, so that words are dropped often."""
    return MessageReader(encoder(cleaning), max_cached)


Token = tuple[int, int, tuple[int, ...]]


def contents(encoded: EncodedMessages) -> list[tuple[list[Token], str]]:
    """Returns word, shape and n-grams of each token of each message, and its characters."""
    table = encoded.table
    features = [
        (int(word), int(shape), tuple(table.ngrams[start:end].tolist()))
        for word, shape, start, end in zip(
            table.words, table.shapes, table.starts[:-1], table.starts[1:], strict=True
        )
    ]  # fmt: skip
    rows = np.split(encoded.rows, encoded.starts[1:-1])
    codes = np.split(encoded.characters.codes, encoded.characters.starts[1:-1])
    return (
        [
            ([features[row] for row in message], "".join(map(chr, message_codes)))
            for message, message_codes in zip(rows, codes, strict=True)
        ]
        if len(encoded)
        else []
    )


pieces = st.sampled_from([
    *WORDS, "FREE", "fr33", "e.g", "w.i.n", "K.i", "a.b", "x", "é", "aé.b", "c", "d", "$", "£", "€5", "100",
    "08712345678", "http://a.test/x?y", "me@x.test", "&amp;", "&lt;#&gt;", "&nbsp;", "&#32;", "&", "\u200b", "\u00a0",
    "\u3000", "\u2040", "ＦＲＥＥ", "\x00", "\x01", "\v", "\f", "\n", "\t", "\r", "!!!", "...", "中文", "f\u200b", "…",
    "<#>", "£7.50", "1.5", "12345", ".", ",", "?", "(", "/", "me", ".com", "www.", "*", "+",
    "don't", "'", "-", "_", "a_b", "a-b-c-d", "(f.r.e.e)", "\U0001f600", "0", "\x1c", "\x85", "٣", "ⅷ",
])  # fmt: skip
messages = st.lists(st.lists(pieces | st.sampled_from([" ", "  "]), max_size=14).map("".join) | st.lists(
    pieces, max_size=14).map(" ".join) | st.text(max_size=80), max_size=8)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(texts=messages)
@example(texts=["f r e e", "aé b c d", "x é b c d", "f.r e.e", "£ 5", "f  r  e  e", "a\u00a0b c d", "f\u200b r e e"])
@example(
    texts=[
        "x't a b c",
        "don't i u r x",
        "(a b c d)",
        "aé b c d",
        "a b c dé",
        "a b é c",
        "a b c -d",
        "a b c",
        "x a b c d",
    ]
)
@example(texts=["a_b a_b_a", "a_b.a_b_a c", "f.r.e.e", "(f-r-e-e)", "x*y*z*w*", "fr.ee.no"])
@example(texts=["£5", "$5,000.50pm", "£12345", "£1234.56789", "£5.me", "££5", "£", "a£ 5", "$ &lt;#&gt;", "a£\u00a05"])
@example(texts=["£ 5 a", "a £", "5 b", "£ a", "£", "7"])
@example(
    texts=["1.5", "1.5me", "1:30pm", "1.2:3,4x", "12345.6", "5.me", "a1.5", "5,a", "1,,5", "5.", ".5", "08712345678."]
)
@example(texts=["go!!now", "go!!!now", "go....now", "go?!?!", "a,b", "**a***", "a--b", "==", "ok...(no)", "'a'", "a'b"])
@example(
    texts=["www.x", "WWW.x.y", "http:a", "https://a", "x.com", "x.com.", "a.me/b", "a.mex", "a-b.co!", "x@y.z", "a@"]
)
@example(texts=["1234567.a", "a1234567,b", "12345-67890", "1234567890a1234567", "a<#>b", "<time>", "a#b##c", "a_b-c"])
@example(texts=["a_a_a é", "b ü_a_é.b_", "a_b_c_d", "a_b c d", "a b_c d_", "_a_b c d"])
@example(texts=["a12345", "12345a", "a1b2", "12345a67890", "a1234567b89012c", "1234a5678", "0a", "a0"])
@example(texts=["x" * 200, "i u " * 40, "\ud800", "", " ", "\v", "http://a\vb c", "a\x1cb"])
def test_any_message_is_read_as_the_encoder_reads_it(texts: list[str]) -> None:
    assert contents(reader().read(texts)) == contents(encode_messages(encoder(), texts))


@settings(deadline=None, max_examples=20)
@given(texts=messages)
def test_messages_with_the_other_cleaning_are_read_as_the_encoder_reads_them(texts: list[str]) -> None:
    assert contents(reader("letters").read(texts)) == contents(encode_messages(encoder("letters"), texts))


def test_the_published_corpus_is_read_as_the_encoder_reads_it() -> None:
    texts = real_messages()
    assert contents(MessageReader(encoder()).read(texts)) == contents(encode_messages(encoder(), texts))


def test_results_do_not_change_when_more_is_read_or_the_cache_is_emptied() -> None:
    reader = MessageReader(encoder(), 30)
    parts = [[f"free w{number} win{number}" for number in range(at, at + 10)] for at in range(0, 60, 10)]
    results = [reader.read(part) for part in parts]
    assert len({id(result.table.identity) for result in results}) > 1
    for part, result in zip(parts, results, strict=True):
        assert contents(result) == contents(encode_messages(encoder(), part))


def test_recurring_words_keep_their_rows_when_other_words_are_dropped() -> None:
    reader = MessageReader(encoder(), 30)
    first = reader.read(["free win call"])
    for at in range(0, 60, 10):
        last = reader.read([f"free win w{number}" for number in range(at, at + 10)])
    assert last.table.identity is not first.table.identity
    assert len(last.table.words) < 60
    # "call" occurred once and was dropped, so the rows after it moved up.
    assert [reader.read([word]).rows.tolist() for word in ("free", "win")] == [[row] for row in first.rows[:2]]
    again = reader.read(["free win call"])
    assert contents(again) == contents(first)


def test_the_cache_is_emptied_if_too_many_words_recur() -> None:
    reader = MessageReader(encoder(), 10)
    text = " ".join(f"w{number}" for number in range(12))
    for _ in range(3):
        assert contents(reader.read([text])) == contents(encode_messages(encoder(), [text]))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_arrow_strings_are_read_like_python_strings(kind: pa.DataType) -> None:
    texts = ["free é", "", "win\v"]
    assert contents(reader().read(pa.array(texts, kind))) == contents(encode_messages(encoder(), texts))
    sliced = pa.array(["x\vy", *texts, "z"], kind).slice(1, 3)
    assert contents(reader().read(sliced)) == contents(encode_messages(encoder(), texts))
