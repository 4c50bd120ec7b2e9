"""The encoder: features of tokens, independent of the batch, the slices and the source of the vocabulary."""

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

# A token in a message: number of its word, shape, and n-grams.
Token = tuple[int, int, tuple[int, ...]]


def vocabulary(text: TextSettings = TEXT) -> Vocabulary:
    return build_vocabulary(clean_texts(TRAINING, text), VocabularySettings(min_count=1), text)


@functools.cache
def encoder(buckets: int = BUCKETS) -> TextEncoder:
    return TextEncoder(vocabulary(), buckets)


def get_tokens(encoded: EncodedMessages) -> list[list[Token]]:
    """Returns the tokens of each message from the token table."""
    table = encoded.table

    def token(row: int) -> Token:
        parts = table.ngrams[table.starts[row] : table.starts[row + 1]]
        return int(table.words[row]), int(table.shapes[row]), tuple(parts.tolist())

    return [
        [token(row) for row in encoded.rows[first:last]]
        for first, last in zip(encoded.starts, encoded.starts[1:], strict=False)
    ]


def get_words(encoded: EncodedMessages) -> list[list[int]]:
    return [[word for word, *_ in message] for message in get_tokens(encoded)]


def expected_numbers(vocabulary: Vocabulary, cleaned: list[str]) -> list[list[int]]:
    """Returns the expected numbers of words, for messages without leet or spaced-out letters."""
    numbers_by_token = {token: number for number, token in enumerate(vocabulary.tokens)}

    def number(token: str) -> int:
        key, name = (strings.numpy()[0].decode() for strings in word_keys(tf.constant([token])))
        return numbers_by_token.get(key, numbers_by_token.get(name, UNKNOWN_ID))

    return [[number(token) for token in text.split()[: vocabulary.text.max_tokens]] or [UNKNOWN_ID] for text in cleaned]


def test_words_have_the_numbers_of_the_vocabulary() -> None:
    plain = [message for message in MESSAGES if "r e e" not in message and "33" not in message and "y o" not in message]
    encoded = get_words(encode_messages(encoder(), plain))
    assert encoded == expected_numbers(encoder().vocabulary, clean_texts(plain, TEXT))
    assert encoded[0] == [encoder().vocabulary.tokens.index(token) for token in ("free", "MONEY", "now")]


def test_a_token_has_a_shape_in_addition_to_its_word() -> None:
    ((capitals, title, lower),) = get_tokens(encode_messages(encoder(), ["FREE Free free"]))
    assert (capitals[0], title[0]) == (lower[0], lower[0])
    assert (capitals[1], title[1], lower[1]) == (CAPITALS, TITLE, 0)
    assert len({capitals[2], title[2], lower[2]}) == 3


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
def test_spaced_out_letters_are_cut_into_words(message: str, read_as: str) -> None:
    assert get_tokens(encode_messages(encoder(), [message])) == get_tokens(encode_messages(encoder(), [read_as]))


def test_leet_is_read_as_letters_if_the_result_is_a_word() -> None:
    leet, plain = get_tokens(encode_messages(encoder(), ["fr33 pr1z3", "free prize"]))
    assert leet == plain


def test_a_number_that_is_not_in_the_vocabulary_has_the_class_of_numbers() -> None:
    (known, unknown) = get_words(encode_messages(encoder(), ["7", "10:30"]))
    assert [encoder().vocabulary.tokens[number] for (number,) in (known, unknown)] == ["7", NUMBER]


def test_an_empty_message_is_one_unknown_token() -> None:
    assert get_words(encode_messages(encoder(), ["", " ", "\u200b"])) == [[UNKNOWN_ID]] * 3


def test_a_long_message_is_truncated_to_max_tokens() -> None:
    lengths = encode_messages(encoder(), ["now " * 100, "y o u h a v e w o n " * 9]).lengths
    assert lengths.tolist() == [TEXT.max_tokens] * 2


hostile_messages = st.lists(
    st.text()
    | st.text("a b.c-d*_f r e://x@0123\u200b£#")
    | st.sampled_from([*MESSAGES, "http://x.test/a-b-c-d", "free now free"]),
    max_size=8,
)


@settings(deadline=None, max_examples=100)
@given(messages=hostile_messages, batch_size=st.integers(1, 9))
@example(messages=["www.x.com/-f r e e", "\u2040f r e e\u2040"], batch_size=1)
def test_the_result_does_not_depend_on_the_slices_and_has_no_padding(messages: list[str], batch_size: int) -> None:
    at_once = encode_messages(encoder(), messages)
    assert get_tokens(at_once) == get_tokens(encode_messages(encoder(), messages, batch_size))
    assert len(at_once) == len(messages)
    assert (at_once.rows > 0).all()
    assert ((at_once.table.words[1:] > 0) & (at_once.table.words[1:] < len(encoder().vocabulary))).all()
    assert ((at_once.lengths >= 1) & (at_once.lengths <= TEXT.max_tokens)).all()
    table = at_once.table
    dtypes = [array.dtype for array in (at_once.rows, table.words, table.shapes, table.ngrams)]
    assert (dtypes, at_once.starts.dtype, table.starts.dtype) == ([np.int32] * 4, np.int64, np.int64)
    assert len(table.words) == len(table.shapes) == len(table.starts) - 1
    assert table.starts[-1] == len(table.ngrams)
    assert (table.words[0], table.starts[1]) == (PADDING_ID, 0)


def test_a_token_is_in_the_table_once_however_often_it_occurs() -> None:
    encoded = encode_messages(encoder(), ["now free now", "now", "Now"])
    assert encoded.rows.tolist() == [1, 2, 1, 1, 3]


def test_truncating_a_long_message_before_encoding_changes_nothing() -> None:
    pieces = ["free ", "\u200b", "é ", "😀", "a\u0301", "&amp;", "\ud83d\ude00", "win \ud83d "]
    texts = ["x" * shift + piece * 2000 + " free win" for piece in pieces for shift in range(4)]
    encoder = TextEncoder(vocabulary(replace(TEXT, max_characters=20)), BUCKETS)
    whole = encoder.compiled(tf.constant(encode_utf8(texts)))
    words = tf.ragged.map_flat_values(lambda rows: tf.gather(whole["words"], rows), whole["rows"])
    assert get_words(encode_messages(encoder, texts)) == words.to_list()


def test_tokens_from_a_file_give_the_same_as_tokens_from_memory(tmp_path: Path) -> None:
    asset = write_tokens(encoder().vocabulary, tmp_path / "vocabulary.txt")
    assert asset.read_text(encoding="utf-8").splitlines() == list(encoder().vocabulary.tokens[2:])
    from_file = TextEncoder(encoder().vocabulary, BUCKETS, asset)
    assert get_tokens(encode_messages(from_file, MESSAGES)) == get_tokens(encode_messages(encoder(), MESSAGES))


def test_an_encoder_is_traced_once_however_many_batches_it_encodes() -> None:
    fresh = TextEncoder(encoder().vocabulary, BUCKETS)
    for messages in (MESSAGES, MESSAGES * 3, MESSAGES[:1], []):
        encode_messages(fresh, messages)
    assert fresh.compiled.__self__.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("buckets", [0, 1, BUCKETS])
def test_n_grams_are_below_the_number_of_buckets_and_there_are_none_without_buckets(buckets: int) -> None:
    table = encode_messages(encoder(buckets), MESSAGES).table
    assert (table.ngrams < max(buckets, 1)).all()
    assert (np.diff(table.starts)[1:] > 0).all() == (buckets > 0)


@functools.cache
def encoded() -> EncodedMessages:
    return encode_messages(encoder(), MESSAGES, batch_size=3)


@settings(deadline=None, max_examples=100)
@given(
    chosen=st.lists(st.integers(0, len(MESSAGES) - 1), max_size=6),
    extra=st.integers(0, 5),
    without_ngrams=st.booleans(),
)
def test_a_batch_has_the_tokens_of_its_messages(chosen: list[int], extra: int, without_ngrams: bool) -> None:
    messages = encode_messages(encoder(0), MESSAGES) if without_ngrams else encoded()
    rows = np.array(chosen, np.int64)
    width = int(max(messages.lengths[rows], default=0)) + extra
    batch = messages.batch(rows, width)
    assert {name: values.dtype for name, values in batch.items()} == dict.fromkeys(batch, np.dtype(np.int32))
    assert batch["rows"].shape == (len(chosen), width)
    ngrams: list[list[int]] = [[] for _ in batch["words"]]
    for ngram, owner in zip(batch["ngrams"].tolist(), batch["owners"].tolist(), strict=True):
        ngrams[owner].append(ngram)
    assert batch["owners"].tolist() == sorted(batch["owners"].tolist())
    table = [
        (word, shape, tuple(token_ngrams))
        for word, shape, token_ngrams in zip(batch["words"].tolist(), batch["shapes"].tolist(), ngrams, strict=True)
    ]
    assert table[0] == (PADDING_ID, 0, ())
    all_tokens = get_tokens(messages)
    for message, line in zip(chosen, batch["rows"].tolist(), strict=True):
        length = len(all_tokens[message])
        assert [table[row] for row in line[:length]] == all_tokens[message]
        assert all(row > 0 for row in line[:length])
        assert not any(line[length:])
    assert set(batch["rows"].ravel().tolist()) | {0} == set(range(len(table)))


@settings(deadline=None, max_examples=50)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=10), data=st.data())
def test_padding_is_zeros_on_the_right(lengths: list[int], data: st.DataObject) -> None:
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
def test_the_encoder_uses_the_cleaning_of_its_vocabulary(cleaning: str) -> None:
    vocab = vocabulary(TextSettings(cleaning=cleaning, max_tokens=20))
    texts = ["FREE £5 now", "caffè 7", "日本", ""]
    assert get_words(encode_messages(TextEncoder(vocab, 0), texts)) == expected_numbers(
        vocab, clean_texts(texts, vocab.text)
    )


def test_a_vocabulary_of_another_script_works() -> None:
    text = TextSettings()
    chinese = build_vocabulary(["日 本", "日"], VocabularySettings(min_count=1), text)
    assert get_words(encode_messages(TextEncoder(chinese, BUCKETS), ["日", "f r e e"])) == [[2], [UNKNOWN_ID]]
