"""Raw messages to token ids: the vocabulary's numbers, whatever the message, batch or source of the tokens."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encoder import EncodedMessages, TextEncoder, encode_messages, write_tokens
from models.settings import TextSettings, VocabularySettings
from models.text import clean_texts, encode_utf8
from models.vocabulary import UNKNOWN_ID, Vocabulary, build_vocabulary

TEXT = TextSettings(max_tokens=6)
TRAINING = ["free MONEY now !", "call me now now", "CAPS free caffe", "日 本"]
MESSAGES = [
    "FREE £500 now",
    "",
    "who is this",
    "call me " * 10,
    "日本",
    "\ud800",
    "&pound;5 caffè",
    " \t",
    "a\x00b",
    "🎉",
]


@functools.cache
def encoder() -> TextEncoder:
    return TextEncoder(build_vocabulary(TRAINING, VocabularySettings(min_count=1), TEXT))


def ids_of(encoded: EncodedMessages) -> list[list[int]]:
    return [encoded.ids[first:last].tolist() for first, last in zip(encoded.starts, encoded.starts[1:], strict=False)]


def numbers(vocabulary: Vocabulary, cleaned: list[str]) -> list[list[int]]:
    """What ids should be, by the vocabulary as a dictionary."""
    known = {token: number for number, token in enumerate(vocabulary.tokens)}
    tokens = [message.split()[: vocabulary.text.max_tokens] for message in cleaned]
    return [[known.get(token, UNKNOWN_ID) for token in message] or [UNKNOWN_ID] for message in tokens]


def test_ids_are_the_numbers_of_the_tokens_in_the_vocabulary() -> None:
    encoded = ids_of(encode_messages(encoder(), MESSAGES))
    assert encoded == numbers(encoder().vocabulary, clean_texts(MESSAGES, TEXT))
    assert encoded[0] == [encoder().vocabulary.tokens.index(token) for token in ("CAPS", "free", "MONEY", "now")]


def test_an_empty_message_is_one_unknown_token() -> None:
    assert ids_of(encode_messages(encoder(), ["", " ", "\u200b"])) == [[UNKNOWN_ID]] * 3


def test_a_long_message_is_cut_at_max_tokens() -> None:
    assert encode_messages(encoder(), ["now " * 100]).lengths.tolist() == [TEXT.max_tokens]


@settings(deadline=None, max_examples=100)
@given(messages=st.lists(st.text(), max_size=8), batch_size=st.integers(1, 9))
def test_ids_do_not_depend_on_the_slices_and_never_hold_padding(messages: list[str], batch_size: int) -> None:
    at_once = encode_messages(encoder(), messages)
    sliced = encode_messages(encoder(), messages, batch_size)
    assert ids_of(at_once) == ids_of(sliced)
    assert len(at_once) == len(messages)
    assert (at_once.ids > 0).all()
    assert (at_once.ids < len(encoder().vocabulary)).all()
    assert ((at_once.lengths >= 1) & (at_once.lengths <= TEXT.max_tokens)).all()
    assert (at_once.ids.dtype, at_once.starts.dtype) == (np.int32, np.int64)


def test_what_is_cut_off_a_long_message_before_it_is_encoded_changes_no_id() -> None:
    pieces = ["free ", "\u200b", "é ", "😀", "a\u0301", "&amp;", "\ud83d\ude00", "win \ud83d "]
    texts = ["x" * shift + piece * 2000 + " free win" for piece in pieces for shift in range(4)]
    cut_early = replace(TEXT, max_characters=20)
    one = TextEncoder(build_vocabulary(TRAINING, VocabularySettings(min_count=1), cut_early))
    whole = one.compiled(tf.constant(encode_utf8(texts)))
    assert ids_of(encode_messages(one, texts)) == whole.to_list()


def test_tokens_from_a_file_give_the_same_ids_as_tokens_from_memory(tmp_path: Path) -> None:
    asset = write_tokens(encoder().vocabulary, tmp_path / "vocabulary.txt")
    assert asset.read_text(encoding="utf-8").splitlines() == list(encoder().vocabulary.tokens[2:])
    from_file = TextEncoder(encoder().vocabulary, asset)
    assert ids_of(encode_messages(from_file, MESSAGES)) == ids_of(encode_messages(encoder(), MESSAGES))


def test_an_encoder_is_traced_once_however_many_batches_it_encodes() -> None:
    fresh = TextEncoder(encoder().vocabulary)
    for messages in (MESSAGES, MESSAGES * 3, MESSAGES[:1], []):
        encode_messages(fresh, messages)
    assert fresh.compiled.__self__.experimental_get_tracing_count() == 1


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=10), data=st.data())
def test_padding_is_zeros_on_the_right(lengths: list[int], data: st.DataObject) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    messages = EncodedMessages(np.arange(1, starts[-1] + 1, dtype=np.int32), starts)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1)), np.int64)
    width = max(lengths[row] for row in rows) + data.draw(st.integers(0, 5))
    padded = messages.padded(rows, width)
    assert (padded.shape, padded.dtype) == ((len(rows), width), np.int32)
    for row, line in zip(rows, padded, strict=True):
        assert line[: lengths[row]].tolist() == messages.ids[starts[row] : starts[row + 1]].tolist()
        assert not line[lengths[row] :].any()


@pytest.mark.parametrize("cleaning", ["signal", "letters"])
def test_the_encoder_cleans_as_its_vocabulary_says(cleaning: str) -> None:
    text = TextSettings(cleaning=cleaning, max_tokens=20)
    vocabulary = build_vocabulary(clean_texts(MESSAGES, text), VocabularySettings(min_count=1), text)
    assert ids_of(encode_messages(TextEncoder(vocabulary), MESSAGES)) == numbers(
        vocabulary, clean_texts(MESSAGES, text)
    )
