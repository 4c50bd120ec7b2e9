"""Raw messages to what the network reads: the vocabulary's numbers, whatever the message, batch or source of them."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.settings import TextSettings, VocabularySettings
from models.text.cleaning import clean_texts, encode_utf8
from models.text.encoder import EncodedMessages, TextEncoder, TokenTable, encode_messages, write_tokens
from models.text.tokens import CAPITALS, NUMBER, TITLE, word_keys
from models.text.vocabulary import PADDING_ID, UNKNOWN_ID, Vocabulary, build_vocabulary

BUCKETS = 64
TEXT = TextSettings(max_tokens=6)
TRAINING = ["free £5 now !", "call me now now", "FREE caffe 7", "日 本", "you have won", "won a prize"]
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
    "f r e e now",
    "http://x.test/(f r e e)",
    "y o u h a v e w o n",
    "fr33 8 123456",
]

# A token as it stands in a message: its word's number, how it is written, its n-grams.
Token = tuple[int, int, tuple[int, ...]]


def vocabulary(text: TextSettings = TEXT) -> Vocabulary:
    return build_vocabulary(clean_texts(TRAINING, text), VocabularySettings(min_count=1), text)


@functools.cache
def encoder(buckets: int = BUCKETS) -> TextEncoder:
    return TextEncoder(vocabulary(), buckets)


def tokens_of(encoded: EncodedMessages) -> list[list[Token]]:
    """The tokens of each message, by following the table."""
    table = encoded.table

    def token(row: int) -> Token:
        parts = table.ngrams[table.starts[row] : table.starts[row + 1]]
        return int(table.words[row]), int(table.shapes[row]), tuple(parts.tolist())

    return [
        [token(row) for row in encoded.rows[first:last]]
        for first, last in zip(encoded.starts, encoded.starts[1:], strict=False)
    ]


def words_of(encoded: EncodedMessages) -> list[list[int]]:
    return [[word for word, *_ in message] for message in tokens_of(encoded)]


def numbers(vocabulary: Vocabulary, cleaned: list[str]) -> list[list[int]]:
    """What words' numbers should be, by the vocabulary as a dictionary; of messages without leet or letters apart."""
    known = {token: number for number, token in enumerate(vocabulary.tokens)}

    def number(token: str) -> int:
        key, name = (one.numpy()[0].decode() for one in word_keys(tf.constant([token])))
        return known.get(key, known.get(name, UNKNOWN_ID))

    return [[number(token) for token in text.split()[: vocabulary.text.max_tokens]] or [UNKNOWN_ID] for text in cleaned]


def test_words_are_the_numbers_of_the_vocabulary() -> None:
    plain = [message for message in MESSAGES if "r e e" not in message and "33" not in message and "y o" not in message]
    encoded = words_of(encode_messages(encoder(), plain))
    assert encoded == numbers(encoder().vocabulary, clean_texts(plain, TEXT))
    assert encoded[0] == [encoder().vocabulary.tokens.index(token) for token in ("free", "MONEY", "now")]


def test_how_a_word_is_written_stands_beside_it() -> None:
    ((loud, title, small),) = tokens_of(encode_messages(encoder(), ["FREE Free free"]))
    assert (loud[0], title[0]) == (small[0], small[0])
    assert (loud[1], title[1], small[1]) == (CAPITALS, TITLE, 0)
    assert len({loud[2], title[2], small[2]}) == 3


@pytest.mark.parametrize(
    ("message", "read_as"),
    [
        ("f r e e now", "free now"),
        ("F-R-E-E now", "free now"),
        ("y o u h a v e w o n", "you have won"),
        ("y.o.u.w.o.n !", "you won !"),
        ("http://x.test/(f r e e)", "http://x.test/(free)"),
    ],
)
def test_letters_that_stand_apart_are_cut_into_words(message: str, read_as: str) -> None:
    assert tokens_of(encode_messages(encoder(), [message])) == tokens_of(encode_messages(encoder(), [read_as]))


def test_leet_is_read_back_where_it_makes_a_word() -> None:
    leet, plain = tokens_of(encode_messages(encoder(), ["fr33 pr1z3", "free prize"]))
    assert leet == plain


def test_a_number_that_the_vocabulary_does_not_hold_is_still_a_number() -> None:
    (known, other) = words_of(encode_messages(encoder(), ["7", "10:30"]))
    assert [encoder().vocabulary.tokens[one] for (one,) in (known, other)] == ["7", NUMBER]


def test_an_empty_message_is_one_unknown_token() -> None:
    assert words_of(encode_messages(encoder(), ["", " ", "\u200b"])) == [[UNKNOWN_ID]] * 3


def test_a_long_message_is_cut_at_max_tokens() -> None:
    lengths = encode_messages(encoder(), ["now " * 100, "y o u h a v e w o n " * 9]).lengths
    assert lengths.tolist() == [TEXT.max_tokens] * 2


awkward = st.lists(
    st.text()
    | st.text("a b.c-d*_f r e://x@0123\u200b£#")
    | st.sampled_from([*MESSAGES, "http://x.test/a-b-c-d", "free now free"]),
    max_size=8,
)


@settings(deadline=None, max_examples=100)
@given(messages=awkward, batch_size=st.integers(1, 9))
@example(messages=["www.x.com/-f r e e", "\u2040f r e e\u2040"], batch_size=1)
def test_what_is_read_does_not_depend_on_the_slices_and_never_is_padding(messages: list[str], batch_size: int) -> None:
    at_once = encode_messages(encoder(), messages)
    assert tokens_of(at_once) == tokens_of(encode_messages(encoder(), messages, batch_size))
    assert len(at_once) == len(messages)
    assert (at_once.rows > 0).all()
    assert ((at_once.table.words[1:] > 0) & (at_once.table.words[1:] < len(encoder().vocabulary))).all()
    assert ((at_once.lengths >= 1) & (at_once.lengths <= TEXT.max_tokens)).all()
    table = at_once.table
    kinds = [one.dtype for one in (at_once.rows, table.words, table.shapes, table.ngrams)]
    assert (kinds, at_once.starts.dtype, table.starts.dtype) == ([np.int32] * 4, np.int64, np.int64)
    assert len(table.words) == len(table.shapes) == len(table.starts) - 1
    assert table.starts[-1] == len(table.ngrams)
    assert (table.words[0], table.starts[1]) == (PADDING_ID, 0)


def test_a_token_stands_in_the_table_once_however_often_it_occurs() -> None:
    encoded = encode_messages(encoder(), ["now free now", "now", "Now"])
    assert encoded.rows.tolist() == [1, 2, 1, 1, 3]


def test_what_is_cut_off_a_long_message_before_it_is_encoded_changes_nothing() -> None:
    pieces = ["free ", "\u200b", "é ", "😀", "a\u0301", "&amp;", "\ud83d\ude00", "win \ud83d "]
    texts = ["x" * shift + piece * 2000 + " free win" for piece in pieces for shift in range(4)]
    one = TextEncoder(vocabulary(replace(TEXT, max_characters=20)), BUCKETS)
    whole = one.compiled(tf.constant(encode_utf8(texts)))
    words = tf.ragged.map_flat_values(lambda rows: tf.gather(whole["words"], rows), whole["rows"])
    assert words_of(encode_messages(one, texts)) == words.to_list()


def test_tokens_from_a_file_give_the_same_as_tokens_from_memory(tmp_path: Path) -> None:
    asset = write_tokens(encoder().vocabulary, tmp_path / "vocabulary.txt")
    assert asset.read_text(encoding="utf-8").splitlines() == list(encoder().vocabulary.tokens[2:])
    from_file = TextEncoder(encoder().vocabulary, BUCKETS, asset)
    assert tokens_of(encode_messages(from_file, MESSAGES)) == tokens_of(encode_messages(encoder(), MESSAGES))


def test_an_encoder_is_traced_once_however_many_batches_it_encodes() -> None:
    fresh = TextEncoder(encoder().vocabulary, BUCKETS)
    for messages in (MESSAGES, MESSAGES * 3, MESSAGES[:1], []):
        encode_messages(fresh, messages)
    assert fresh.compiled.__self__.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("buckets", [0, 1, BUCKETS])
def test_n_grams_are_below_the_buckets_and_none_where_there_are_none(buckets: int) -> None:
    table = encode_messages(encoder(buckets), MESSAGES).table
    assert (table.ngrams < max(buckets, 1)).all()
    assert (np.diff(table.starts)[1:] > 0).all() == (buckets > 0)


@functools.cache
def encoded() -> EncodedMessages:
    return encode_messages(encoder(), MESSAGES, batch_size=3)


@settings(deadline=None, max_examples=100)
@given(chosen=st.lists(st.integers(0, len(MESSAGES) - 1), max_size=6), more=st.integers(0, 5), without=st.booleans())
def test_a_batch_is_what_plain_python_makes_of_the_messages(chosen: list[int], more: int, without: bool) -> None:
    messages = encode_messages(encoder(0), MESSAGES) if without else encoded()
    rows = np.array(chosen, np.int64)
    width = int(max(messages.lengths[rows], default=0)) + more
    batch = messages.batch(rows, width)
    assert {name: values.dtype for name, values in batch.items()} == dict.fromkeys(batch, np.dtype(np.int32))
    assert batch["rows"].shape == (len(chosen), width)
    parts: list[list[int]] = [[] for _ in batch["words"]]
    for part, owner in zip(batch["ngrams"].tolist(), batch["owners"].tolist(), strict=True):
        parts[owner].append(part)
    assert batch["owners"].tolist() == sorted(batch["owners"].tolist())
    table = [
        (word, shape, tuple(own))
        for word, shape, own in zip(batch["words"].tolist(), batch["shapes"].tolist(), parts, strict=True)
    ]
    assert table[0] == (PADDING_ID, 0, ())
    everything = tokens_of(messages)
    for message, line in zip(chosen, batch["rows"].tolist(), strict=True):
        length = len(everything[message])
        assert [table[row] for row in line[:length]] == everything[message]
        assert all(row > 0 for row in line[:length])
        assert not any(line[length:])
    assert set(batch["rows"].ravel().tolist()) | {0} == set(range(len(table)))


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=10), data=st.data())
def test_padding_is_noughts_on_the_right(lengths: list[int], data: st.DataObject) -> None:
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    table = TokenTable.from_words(np.arange(1, starts[-1] + 1))
    messages = EncodedMessages(np.arange(1, starts[-1] + 1, dtype=np.int32), starts, table)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1)), np.int64)
    width = max(lengths[row] for row in rows) + data.draw(st.integers(0, 5))
    batch = messages.batch(rows, width)
    for row, line in zip(rows, batch["words"][batch["rows"]], strict=True):
        assert line[: lengths[row]].tolist() == messages.rows[starts[row] : starts[row + 1]].tolist()
        assert not line[lengths[row] :].any()


@pytest.mark.parametrize("cleaning", ["signal", "letters"])
def test_the_encoder_cleans_as_its_vocabulary_says(cleaning: str) -> None:
    one = vocabulary(TextSettings(cleaning=cleaning, max_tokens=20))
    texts = ["FREE £5 now", "caffè 7", "日本", ""]
    assert words_of(encode_messages(TextEncoder(one, 0), texts)) == numbers(one, clean_texts(texts, one.text))


def test_a_vocabulary_of_another_script_encodes_as_well() -> None:
    text = TextSettings()
    chinese = build_vocabulary(["日 本", "日"], VocabularySettings(min_count=1), text)
    assert words_of(encode_messages(TextEncoder(chinese, BUCKETS), ["日", "f r e e"])) == [[2], [UNKNOWN_ID]]
