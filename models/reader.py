"""Messages to encoded ones, with a memory: each distinct word goes through `models.encoder.TextEncoder` once, however
many messages it occurs in.

A message is cut at its white space, and each piece ("word") looked up among those that came before; only new ones are
cleaned, cut into tokens and read. That gives what the encoder makes of the whole message, for its rules look across
white space in few cases, and messages with one of these go through the encoder whole: letters that may stand apart, a
currency sign before a space, signs that are read as white space, messages of which the end is cut off. A test holds the
two equal.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from models.encoder import EncodedMessages, TextEncoder, TokenTable
from models.growing import GrowingArray
from models.text import NOT_PLAIN, SPACED, TIE, encode_utf8, most_bytes
from models.tokens import CURRENCY

IntArray = npt.NDArray[np.int64]
# Messages, as Python's strings or an Arrow array of strings without nulls.
Texts: TypeAlias = "Sequence[str] | pa.Array"

# Beyond so many words or tokens everything is forgotten, so that memory does not grow with the messages: a token takes
# about a kilobyte with what the network knows of it.
MOST_REMEMBERED = 60_000
_SLICE_MESSAGES = 20_000
_SLICE_CHARACTERS = 8 * 2**20
# Words, once folded, that may be part of letters that stand apart, `f.r e.e`: such a word has two, with no letter or
# digit beside them; where it is not ASCII, no such thing is presumed.
_MAY_BE_SPACED = r"(?:^|[^0-9A-Za-z_])\pL[._*+-]\pL(?:$|[^0-9A-Za-z_])|[^\x00-\x7f].*[._*+-]|[._*+-].*[^\x00-\x7f]"
# Words, once folded, that what comes before or after changes, or that are no single word.
_NOT_ALONE = r"[\x00\x01\s\v" + TIE + "]|" + CURRENCY + "$"
_LETTER = r"^\pL$"
# Of a message that is not plain it is not known before it is folded.
_SPACED_OR_FOLDED = f"{SPACED}|{NOT_PLAIN}"
_VERTICAL_TAB = 0x0B


class _Pieces(NamedTuple):
    """Token sequences that messages are put together from: of which message each is, int64 [pieces], in order; where it
    begins in `tokens` and how long it is, int64 [pieces].
    """

    owners: IntArray
    firsts: IntArray
    sizes: IntArray
    tokens: npt.NDArray[np.int32]


class MessageReader:
    """Encodes messages as `models.encoder.encode_messages` does, and remembers words and tokens from call to call.

    Several threads may call it; one reads at a time.
    """

    def __init__(self, encoder: TextEncoder, most_remembered: int = MOST_REMEMBERED) -> None:
        """Begins with an empty memory.

        Args:
            encoder: what words go through.
            most_remembered: words, and tokens, from which on all are forgotten before the next call.
        """
        self._encoder = encoder
        self._text = encoder.vocabulary.text
        self._by_words = self._text.cleaning == "signal"
        self._most = most_remembered
        self._lock = threading.Lock()
        self._fold, self._cut, self._read = (_of_strings(one) for one in (encoder.fold, encoder.tokens, encoder.read))
        self._forget()

    def _forget(self) -> None:
        self._tokens = _Tokens(self._read)
        self._words = _Words(self._fold, self._cut, self._tokens)

    def read(self, texts: Texts) -> EncodedMessages:
        """Encodes messages.

        Args:
            texts: messages.
        """
        with self._lock:
            if max(len(self._tokens), len(self._words)) > self._most:
                self._forget()
            most = most_bytes(self._text)
            parts = [self._read_slice(some) for some in _slices(as_arrow(texts), most)]
            rows = [np.zeros(0, np.int32), *(rows for rows, _ in parts)]
            lengths = [np.zeros(0, np.int64), *(lengths for _, lengths in parts)]
            starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
            return EncodedMessages(np.concatenate(rows), starts, self._tokens.table())

    def _read_slice(self, texts: pa.Array) -> tuple[npt.NDArray[np.int32], IntArray]:
        """Rows of the table, int32 [tokens], and how many are of each message, int64 [messages]."""
        pieces = self._pieces(texts) if self._by_words else self._whole(texts, np.arange(len(texts)))
        rows, lengths = _joined(pieces, len(texts))
        return self._fitted(rows, lengths)

    def _pieces(self, texts: pa.Array) -> _Pieces:
        """The words of messages, and of messages that are not to be read by words all tokens as one piece."""
        lists = pc.ascii_split_whitespace(texts)
        words = self._words.numbers(lists.flatten())
        owners = np.repeat(np.arange(len(texts)), pc.list_value_length(lists).to_numpy(zero_copy_only=False))
        whole = self._may_be_cut(texts) | _holds_vertical_tab(texts)
        whole[owners[self._words.not_alone.values[words]]] = True
        whole[self._spaced(texts, owners, words)] = True
        if not whole.any():
            return self._words.pieces(owners, words)
        alone = ~whole[owners]
        return _merged(self._words.pieces(owners[alone], words[alone]), self._whole(texts, np.flatnonzero(whole)))

    def _spaced(self, texts: pa.Array, owners: IntArray, words: IntArray) -> IntArray:
        """Messages that hold letters that stand apart, or may once they are folded: two such words, or one with two."""
        letter = self._words.is_letter.values[words]
        beside = letter[1:] & letter[:-1] & (owners[1:] == owners[:-1])
        places = np.union1d(owners[1:][beside], owners[self._words.may_be_spaced.values[words]])
        suspects = texts.take(pa.array(places))
        return places[pc.match_substring_regex(suspects, _SPACED_OR_FOLDED).to_numpy(zero_copy_only=False)]

    def _may_be_cut(self, texts: pa.Array) -> npt.NDArray[np.bool_]:
        """Which messages may be longer than is read of them."""
        return pc.binary_length(texts).to_numpy(zero_copy_only=False) > self._text.max_characters

    def _whole(self, texts: pa.Array, places: IntArray) -> _Pieces:
        """Messages that go through the encoder whole, each one piece."""
        tokens = self._cut(self._fold(_tensor(texts.take(pa.array(places)))))
        sizes = tokens.row_lengths().numpy()
        return _Pieces(places, np.cumsum(sizes) - sizes, sizes, self._tokens.numbers(tokens.flat_values))

    def _fitted(self, rows: npt.NDArray[np.int32], lengths: IntArray) -> tuple[npt.NDArray[np.int32], IntArray]:
        """No message longer than [text] max_tokens, none without a token."""
        if lengths.max(initial=0) > self._text.max_tokens:
            within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            rows, lengths = rows[within < self._text.max_tokens], np.minimum(lengths, self._text.max_tokens)
        empty = lengths == 0
        if empty.any():
            rows = np.insert(rows, (np.cumsum(lengths) - lengths)[empty], self._tokens.empty())
            lengths = np.maximum(lengths, 1)
        return rows, lengths


class _Tokens:
    """The tokens that occurred, each with its row in the table; row 0 is padding's."""

    def __init__(self, read: Any) -> None:
        self._read = read
        self._rows: dict[bytes, int] = {}
        self._memory = _Memory()
        self._columns = [GrowingArray(np.int32) for _ in range(3)]
        self._starts = GrowingArray(np.int64)
        padding = np.zeros(1, np.int32)
        self._append(padding, padding, np.zeros(0, np.int32), np.zeros(2, np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def table(self) -> TokenTable:
        """The table as it is now."""
        words, shapes, ngrams = (one.values for one in self._columns)
        return TokenTable(words, shapes, ngrams, self._starts.values, self._memory)

    def empty(self) -> int:
        """The row of a token with nothing in it, which stands for a message with nothing in it."""
        return int(self.numbers(tf.constant([b""]))[0])

    def numbers(self, tokens: tf.Tensor) -> npt.NDArray[np.int32]:
        """Rows of tokens, string [tokens]; new ones are read."""
        said = tokens.numpy().tolist()
        fresh = [token for token in dict.fromkeys(said) if token not in self._rows]
        if fresh:
            words, shapes, ngrams = self._read(tf.constant(fresh, tf.string))
            lengths = ngrams.row_lengths().numpy()
            ends = len(self._columns[2]) + np.cumsum(lengths)
            self._append(words.numpy(), shapes.numpy(), ngrams.flat_values.numpy(), ends)
            # Last, for what raises before must leave no token that has no row.
            self._rows.update(zip(fresh, range(len(self._rows) + 1, len(self._rows) + 1 + len(fresh)), strict=True))
        return np.fromiter(map(self._rows.__getitem__, said), np.int32, len(said))

    def _append(
        self,
        words: npt.NDArray[np.int32],
        shapes: npt.NDArray[np.int32],
        ngrams: npt.NDArray[np.int32],
        ends: IntArray,
    ) -> None:
        for column, values in zip(self._columns, (words, shapes, ngrams), strict=True):
            column.append(values)
        self._starts.append(ends)


class _Memory:
    """Stands for one growing table, by being the same object."""


class _Words:
    """The words that occurred, each with the tokens it is cut into."""

    def __init__(self, fold: Any, cut: Any, tokens: _Tokens) -> None:
        self._fold, self._cut, self._tokens = fold, cut, tokens
        self._numbers: dict[str, int] = {}
        self.not_alone, self.may_be_spaced, self.is_letter = (GrowingArray(np.bool_) for _ in range(3))
        self._firsts, self._sizes = GrowingArray(np.int64), GrowingArray(np.int64)
        self._cuts = GrowingArray(np.int32)

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(self, words: pa.Array) -> IntArray:
        """The number of each word, int64 [words]; new ones are cut."""
        coded = words.dictionary_encode()
        distinct = coded.dictionary.to_pylist()
        known = np.fromiter(map(self._numbers.get, distinct, itertools.repeat(-1)), np.int64, len(distinct))
        fresh = np.flatnonzero(known < 0)
        if len(fresh):
            first = len(self._numbers)
            self._learn(coded.dictionary.take(pa.array(fresh)))
            known[fresh] = first + np.arange(len(fresh))
            self._numbers.update((distinct[place], int(known[place])) for place in fresh.tolist())
        return known[coded.indices.to_numpy()]

    def _learn(self, words: pa.Array) -> None:
        words = self._folded(words)
        tokens = self._cut(_tensor(words))
        rows = self._tokens.numbers(tokens.flat_values)
        sizes = tokens.row_lengths().numpy()
        self._firsts.append(len(self._cuts) + np.cumsum(sizes) - sizes)
        self._sizes.append(sizes)
        self._cuts.append(rows)
        flags = {_NOT_ALONE: self.not_alone, _MAY_BE_SPACED: self.may_be_spaced, _LETTER: self.is_letter}
        for pattern, column in flags.items():
            column.append(pc.match_substring_regex(words, pattern).to_numpy(zero_copy_only=False))

    def _folded(self, words: pa.Array) -> pa.Array:
        """Words as they are read, those that are plain as they are."""
        places = np.flatnonzero(pc.match_substring_regex(words, NOT_PLAIN).to_numpy(zero_copy_only=False))
        if not len(places):
            return words
        source = np.arange(len(words))
        source[places] = len(words) + np.arange(len(places))
        folded = self._fold(_tensor(words.take(pa.array(places)))).numpy().tolist()
        return pa.concat_arrays([words, pa.array(folded, pa.binary()).cast(pa.string())]).take(pa.array(source))

    def pieces(self, owners: IntArray, words: IntArray) -> _Pieces:
        """Words by their numbers, of the messages they are of, as pieces."""
        return _Pieces(owners, self._firsts.values[words], self._sizes.values[words], self._cuts.values)


def as_arrow(texts: Texts) -> pa.Array:
    """Messages as an Arrow array of strings; lone surrogates as U+FFFD."""
    return texts if isinstance(texts, pa.Array) else pa.array(encode_utf8(texts), pa.binary()).cast(pa.string())


def _tensor(texts: pa.Array) -> tf.Tensor:
    return tf.constant(texts.cast(pa.binary()).to_pylist(), tf.string)


def _of_strings(function: Callable[[tf.Tensor], Any]) -> Any:
    """A function of string tensors, traced once."""
    return tf.function(function, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def _holds_vertical_tab(texts: pa.Array) -> npt.NDArray[np.bool_]:
    """Which messages hold a vertical tab: white space to who cuts here, and none to the rules of the cleaning."""
    content = texts.buffers()[2]
    if content is None or _VERTICAL_TAB not in np.frombuffer(content, np.uint8):
        return np.zeros(len(texts), bool)
    return pc.match_substring(texts, "\v").to_numpy(zero_copy_only=False)


def _slices(texts: pa.Array, most: int) -> Iterator[pa.Array]:
    """Messages in slices of bounded size, each cut to the characters that can be among its first `most` bytes."""
    lengths = pc.binary_length(texts).to_numpy(zero_copy_only=False)
    if lengths.max(initial=0) > most:
        texts = pc.utf8_slice_codeunits(texts, 0, most)
    ends = np.cumsum(np.minimum(lengths, most), dtype=np.int64)
    first = 0
    while first < len(texts):
        before = ends[first - 1] if first else 0
        end = int(np.searchsorted(ends, before + _SLICE_CHARACTERS, side="right"))
        end = max(first + 1, min(end, first + _SLICE_MESSAGES))
        yield texts.slice(first, end - first).cast(pa.string())
        first = end


def _merged(some: _Pieces, others: _Pieces) -> _Pieces:
    """Pieces of different messages, put in order."""
    owners = np.concatenate([some.owners, others.owners])
    firsts = np.concatenate([some.firsts, others.firsts + len(some.tokens)])
    sizes = np.concatenate([some.sizes, others.sizes])
    order = np.argsort(owners, kind="stable")
    return _Pieces(owners[order], firsts[order], sizes[order], np.concatenate([some.tokens, others.tokens]))


def _joined(pieces: _Pieces, messages: int) -> tuple[npt.NDArray[np.int32], IntArray]:
    """The tokens of pieces one behind another, and how many each message has."""
    before = np.cumsum(pieces.sizes) - pieces.sizes
    places = np.repeat(pieces.firsts - before, pieces.sizes) + np.arange(int(pieces.sizes.sum()))
    lengths = np.bincount(pieces.owners, weights=pieces.sizes, minlength=messages).astype(np.int64)
    return pieces.tokens[places], lengths
