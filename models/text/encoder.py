"""Encodes raw messages for the network with TensorFlow operations.

A message is cleaned and cut into tokens. Each token is looked up in the vocabulary, and its shape and n-grams are
computed. A batch has a table of its distinct tokens, and messages are rows of that table, so the features of a token
are computed once, however often it occurs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.text.cleaning import TIE, TextCleaner, compile_graph, encode_utf8, max_bytes
from models.text.segmentation import Segmenter
from models.text.tokens import TokenReader
from models.text.vocabulary import PADDING_ID, SPECIAL_TOKENS, UNKNOWN_ID, Vocabulary

# Characters after which a slice of messages ends early, because cleaning needs up to ten times their memory.
_SLICE_CHARACTERS = 8 * 2**20
_EMPTY = ""
# White space as `tf.strings.split` splits it; RE2 does not count the vertical tab.
_WHITE_SPACE = r"[\s\x0b]+"


class TextEncoder(tf.Module):
    """Encodes messages: `encoder(texts)` takes string [messages].

    Every message gets at least one token (an empty message is a single unknown token) and at most [text] max_tokens.
    """

    def __init__(self, vocabulary: Vocabulary, buckets: int, asset: Path | None = None) -> None:
        """Takes the tokens from the vocabulary or, for an export that must contain them, from an asset file.

        Args:
            vocabulary: the vocabulary to encode with.
            buckets: [network] ngram_vectors.
            asset: a file with one token per line, without the special tokens, as `write_tokens` writes it.
        """
        super().__init__(name="text_encoder")
        self.vocabulary = vocabulary
        self._clean = TextCleaner(vocabulary.text)
        self._segment = Segmenter(vocabulary)
        self._table = tf.lookup.StaticHashTable(
            self._initializer(asset), default_value=UNKNOWN_ID - len(SPECIAL_TOKENS)
        )
        self._cut_runs = compile_graph(self._cut_runs_in_words).__call__  # two methods call it
        self.read = TokenReader(lambda keys: self._table.lookup(keys) + len(SPECIAL_TOKENS), UNKNOWN_ID, buckets)
        # Traced once for all calls. They are bound methods, because an export would also write TensorFlow functions.
        self.compiled = compile_graph(self).__call__
        self.compiled_fold, self.compiled_tokens = (
            compile_graph(self.fold).__call__,
            compile_graph(self.tokens).__call__,
        )
        self.compiled_read = compile_graph(self.read).__call__
        self.compiled_characters = compile_graph(self.characters).__call__

    def _initializer(self, asset: Path | None) -> tf.lookup.TextFileInitializer | tf.lookup.KeyValueTensorInitializer:
        if asset is not None:
            return tf.lookup.TextFileInitializer(
                str(asset), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
            )
        tokens = self.vocabulary.tokens[len(SPECIAL_TOKENS) :]
        return tf.lookup.KeyValueTensorInitializer(
            tf.constant(tokens, tf.string, shape=[len(tokens)]), tf.range(len(tokens), dtype=tf.int64)
        )

    def __call__(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Encodes a batch.

        Args:
            texts: string [messages], any bytes.

        Returns:
            ``rows``, ragged int32 [messages, (tokens)]: rows of the token table, from 1. And the table, whose row 0 is
            padding: ``words`` and ``shapes``, int32 [table]; ``ngrams``, ragged int32 [table, (n-grams)]. And
            ``characters``, as the method of that name returns them.
        """
        folded = self.fold(texts)
        tokens = self.tokens(folded)
        lengths = tokens.row_lengths()
        # Each empty message gets an empty token.
        counts = tf.maximum(lengths, 1)
        indices = tf.where(tf.repeat(lengths > 0, counts))
        flat = tf.tensor_scatter_nd_update(tf.fill([tf.reduce_sum(counts)], _EMPTY), indices, tokens.flat_values)
        distinct, rows = tf.unique(flat)
        words, shapes, ngrams = self.read(distinct)
        return {
            "rows": tf.RaggedTensor.from_row_lengths(rows + 1, counts, validate=False),
            "words": tf.concat([[PADDING_ID], words], axis=0),
            "shapes": tf.concat([[0], shapes], axis=0),
            "ngrams": tf.RaggedTensor.from_row_lengths(
                ngrams.flat_values, tf.concat([[0], ngrams.row_lengths()], axis=0), validate=False
            ),
            "characters": self.characters(folded),
        }

    def fold(self, texts: tf.Tensor) -> tf.Tensor:
        """Runs the first step, `models.text.cleaning.TextCleaner.fold`."""
        return self._clean.fold(texts)

    def tokens(self, folded: tf.Tensor) -> tf.RaggedTensor:
        """Runs the second step: cuts folded messages into tokens, ragged string [messages, (tokens)]."""
        return tf.strings.split(self._cut_runs(self._clean.separate(folded)))[:, : self.vocabulary.text.max_tokens]

    def characters(self, folded: tf.Tensor) -> tf.RaggedTensor:
        """Returns the code points of folded messages for the linear part, ragged int32 [messages, (characters)].

        Each word has a space on each side; an empty message is one space. Spaced-out letters are joined and cut into
        words; apart from that, the words are as they were written.
        """
        joined = tf.strings.regex_replace(self._clean.join_letters(folded), TIE + r"[\pL\pM]+", r" \0 ")
        spaced = tf.strings.join([" ", self._cut_runs(joined), " "])
        return tf.strings.unicode_decode(tf.strings.regex_replace(spaced, _WHITE_SPACE, " "), "UTF-8")

    def _cut_runs_in_words(self, cleaned: tf.Tensor) -> tf.Tensor:
        """Cuts the joined letters after a tie into words; string [messages] to string [messages]."""
        with_runs = tf.where(tf.strings.regex_full_match(cleaned, "(?s:.*)" + TIE + "(?s:.*)"))

        def cut() -> tf.Tensor:
            tokens = tf.strings.split(tf.gather_nd(cleaned, with_runs))
            indices = tf.where(tf.strings.regex_full_match(tokens.flat_values, TIE + ".*"))
            runs = tf.strings.regex_replace(tf.gather_nd(tokens.flat_values, indices), TIE, "")
            words = self._segment(tf.strings.lower(runs, encoding="utf-8"))
            whole = tokens.with_flat_values(tf.tensor_scatter_nd_update(tokens.flat_values, indices, words))
            return tf.tensor_scatter_nd_update(cleaned, with_runs, tf.strings.reduce_join(whole, axis=1, separator=" "))

        return tf.cond(tf.size(with_runs) > 0, cut, lambda: cleaned)


@functools.lru_cache(maxsize=1)
def shared_encoder(vocabulary: Vocabulary, buckets: int) -> TextEncoder:
    """Returns one encoder for all networks that a process trains with this vocabulary: tracing it takes seconds."""
    return TextEncoder(vocabulary, buckets)


@dataclass(eq=False)
class TableIdentity:
    """The identity of a growing table. All states of the table share one object.

    Attributes:
        previous: the table from which its first rows were copied, if any. A cache that has an entry for each row copies
            the entries and sets this to None, so that the previous table can be freed.
        shared_rows: number of these rows. They have the same row numbers in both tables.
    """

    previous: TableIdentity | None = None
    shared_rows: int = 0


@dataclass(frozen=True)
class TokenTable:
    """Tokens, one per row. Row 0 is padding. A token may occur twice.

    Attributes:
        words: numbers in the vocabulary, int32 [table].
        shapes: as `models.text.tokens.find_shapes` returns them, int32 [table].
        ngrams: hashed n-grams of all tokens, in order, int32.
        starts: index in `ngrams` of each token's first n-gram, followed by the length of `ngrams`, int64 [table + 1].
        identity: identity of the table if it grows; None otherwise. Existing rows of a growing table do not change.
    """

    words: npt.NDArray[np.int32]
    shapes: npt.NDArray[np.int32]
    ngrams: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    identity: TableIdentity | None = None

    @classmethod
    def from_words(cls, words: npt.ArrayLike) -> TokenTable:
        """Builds a table of lower-case words without n-grams, with padding as its first row."""
        numbers = np.concatenate([[PADDING_ID], np.asarray(words)]).astype(np.int32)
        return cls(numbers, np.zeros_like(numbers), np.zeros(0, np.int32), np.zeros(len(numbers) + 1, np.int64))


class Characters(NamedTuple):
    """The code points of messages, concatenated, as `TextEncoder.characters` returns them.

    Attributes:
        codes: int32 [characters of all messages].
        starts: index in `codes` of each message's first character, followed by the length of `codes`, int64
            [messages + 1].
    """

    codes: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]


class EncodedMessages:
    """Encoded messages, concatenated without padding.

    Attributes:
        rows: rows of the token table for all messages, in order, int32 [tokens of all messages].
        starts: index in `rows` of each message's first token, followed by the length of `rows`, int64 [messages + 1].
        table: the token table.
        characters: the characters of the messages.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.int32],
        starts: npt.NDArray[np.int64],
        table: TokenTable,
        characters: Characters | None = None,
    ) -> None:
        """Takes the tokens and, unless only the recurrent part reads the messages, the characters."""
        self.rows = rows
        self.starts = starts
        self.table = table
        self.characters = characters or Characters(np.zeros(0, np.int32), np.zeros_like(starts))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of tokens of each message, int64 [messages]."""
        return np.diff(self.starts)

    def batch(self, messages: npt.NDArray[np.int64], width: int) -> dict[str, npt.NDArray[np.int32]]:
        """Returns messages in the form that the network takes, padded on the right.

        Args:
            messages: indices of the messages.
            width: tokens to pad each message to; none may be longer.

        Returns:
            ``rows`` [messages, width], 0 for padding; for the tokens that occur ``words`` and ``shapes`` [table],
            ``ngrams`` [n-grams of all] and ``owners`` [n-grams of all], the row of each n-gram; and ``characters``
            [characters of all] and ``character_counts`` [messages]. All are int32.
        """
        columns = np.arange(width)
        lengths = self.starts[messages + 1] - self.starts[messages]
        indices = np.minimum(self.starts[messages, np.newaxis] + columns, max(len(self.rows) - 1, 0))
        padded = np.where(columns < lengths[:, np.newaxis], self.rows[indices] if len(self.rows) else 0, 0)
        used, rows = np.unique(np.append(padded.ravel(), 0), return_inverse=True)
        counts = self.table.starts[used + 1] - self.table.starts[used]
        owners = np.repeat(np.arange(len(used)), counts)
        first_characters = self.characters.starts[messages]
        character_counts = self.characters.starts[messages + 1] - first_characters
        return {
            "rows": rows[:-1].reshape(padded.shape).astype(np.int32),
            "words": self.table.words[used],
            "shapes": self.table.shapes[used],
            "ngrams": self.table.ngrams[expand_runs(self.table.starts[used], counts)],
            "owners": owners.astype(np.int32),
            "characters": self.characters.codes[expand_runs(first_characters, character_counts)],
            "character_counts": character_counts.astype(np.int32),
        }


def expand_runs(firsts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns the indices of all elements of runs, in order, int64.

    Args:
        firsts: first index of each run, int64 [runs].
        sizes: length of each run, int64 [runs].
    """
    indices: npt.NDArray[np.int64] = np.repeat(firsts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
    return indices


def encode_messages(encoder: TextEncoder, texts: Sequence[str], batch_size: int = 10_000) -> EncodedMessages:
    """Encodes messages in slices of up to `batch_size`, so that memory is bounded by the size of the result."""
    rows, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    words, shapes, ngrams = ([np.zeros(size, np.int32)] for size in (1, 1, 0))
    counts = [np.zeros(1, np.int64)]
    codes, code_counts = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    offset = 0  # number of tokens of the previous slices
    for texts_slice in _slice_messages(texts, batch_size, max_bytes(encoder.vocabulary.text)):
        encoded = encoder.compiled(tf.constant(encode_utf8(texts_slice), tf.string))
        rows.append(encoded["rows"].flat_values.numpy() + np.int32(offset))
        lengths.append(encoded["rows"].row_lengths().numpy())
        words.append(encoded["words"].numpy()[1:])
        shapes.append(encoded["shapes"].numpy()[1:])
        ngrams.append(encoded["ngrams"].flat_values.numpy())
        counts.append(encoded["ngrams"].row_lengths().numpy()[1:])
        codes.append(encoded["characters"].flat_values.numpy())
        code_counts.append(encoded["characters"].row_lengths().numpy())
        offset += len(words[-1])
    table = TokenTable(np.concatenate(words), np.concatenate(shapes), np.concatenate(ngrams), _compute_starts(counts))
    characters = Characters(np.concatenate(codes), _compute_starts(code_counts))
    return EncodedMessages(np.concatenate(rows), _compute_starts(lengths), table, characters)


def read_characters(encoder: TextEncoder, texts: Sequence[str], batch_size: int = 10_000) -> Characters:
    """Reads the characters of messages, without their tokens, in slices as `encode_messages` does."""
    codes, counts = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for texts_slice in _slice_messages(texts, batch_size, max_bytes(encoder.vocabulary.text)):
        folded = encoder.compiled_fold(tf.constant(encode_utf8(texts_slice), tf.string))
        characters = encoder.compiled_characters(folded)
        codes.append(characters.flat_values.numpy())
        counts.append(characters.row_lengths().numpy())
    return Characters(np.concatenate(codes), _compute_starts(counts))


def _compute_starts(lengths: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Returns the start of each item of the given lengths, and the end of the last one."""
    return np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)


def _slice_messages(texts: Sequence[str], batch_size: int, limit: int) -> Iterator[list[str]]:
    """Yields slices of messages. A message is cut to `limit` characters, which include its first `limit` bytes."""
    messages: list[str] = []
    characters = 0
    for text in texts:
        messages.append(text[:limit])
        characters += len(messages[-1])
        if len(messages) == batch_size or characters >= _SLICE_CHARACTERS:
            yield messages
            messages, characters = [], 0
    if messages:
        yield messages


def write_tokens(vocabulary: Vocabulary, path: Path) -> Path:
    """Writes the tokens without the special ones, one per line, as the asset that `TextEncoder` reads."""
    path.write_text("".join(f"{token}\n" for token in vocabulary.tokens[len(SPECIAL_TOKENS) :]), encoding="utf-8")
    return path
