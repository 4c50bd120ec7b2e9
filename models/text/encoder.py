"""Raw messages to what the network reads: cleaned, cut into tokens, each token looked up in the vocabulary and taken
to its parts. All of it as TensorFlow operations.

The tokens of a batch stand in a table, each once, and messages are rows of that table: what a token is made of is
worked out once, however often it occurs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.text.cleaning import TIE, TextCleaner, encode_utf8, most_bytes, traced
from models.text.segmentation import Segmenter
from models.text.tokens import TokenReader
from models.text.vocabulary import PADDING_ID, SPECIAL_TOKENS, UNKNOWN_ID, Vocabulary

# Characters after which a slice of messages ends early: cleaning takes up to ten times their room.
_SLICE_CHARACTERS = 8 * 2**20
_EMPTY = ""


class TextEncoder(tf.Module):
    """Encodes messages: `encoder(texts)` takes string [messages].

    Every message has at least one token (one with nothing in it is a single unknown), and at most
    [text] max_tokens.
    """

    def __init__(self, vocabulary: Vocabulary, buckets: int, asset: Path | None = None) -> None:
        """Takes the tokens from the vocabulary or, for an export that must find them again, from a file of theirs.

        Args:
            vocabulary: what to encode with.
            buckets: [network] ngram_buckets.
            asset: a file with one token a line, special ones left out, as `write_tokens` leaves it.
        """
        super().__init__(name="text_encoder")
        self.vocabulary = vocabulary
        self._clean = TextCleaner(vocabulary.text)
        self._segment = Segmenter(vocabulary)
        self._table = tf.lookup.StaticHashTable(
            self._initializer(asset), default_value=UNKNOWN_ID - len(SPECIAL_TOKENS)
        )
        self.read = TokenReader(lambda keys: self._table.lookup(keys) + len(SPECIAL_TOKENS), UNKNOWN_ID, buckets)
        # Traced once for all calls; kept as bound methods, for an export would trace and write functions as well.
        self.compiled = traced(self).__call__
        self.compiled_fold, self.compiled_tokens = traced(self.fold).__call__, traced(self.tokens).__call__
        self.compiled_read = traced(self.read).__call__

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
            ``rows``, ragged int32 [messages, (tokens)]: places in the table, from 1; and the table, its row 0 being
            that of padding: ``words`` and ``shapes``, int32 [table]; ``ngrams``, ragged int32 [table, (n-grams)].
        """
        tokens = self.tokens(self.fold(texts))
        lengths = tokens.row_lengths()
        # An empty token for each empty message, put where the message's tokens would be.
        filled = tf.maximum(lengths, 1)
        places = tf.where(tf.repeat(lengths > 0, filled))
        flat = tf.tensor_scatter_nd_update(tf.fill([tf.reduce_sum(filled)], _EMPTY), places, tokens.flat_values)
        distinct, rows = tf.unique(flat)
        words, shapes, ngrams = self.read(distinct)
        return {
            "rows": tf.RaggedTensor.from_row_lengths(rows + 1, filled, validate=False),
            "words": tf.concat([[PADDING_ID], words], axis=0),
            "shapes": tf.concat([[0], shapes], axis=0),
            "ngrams": tf.RaggedTensor.from_row_lengths(
                ngrams.flat_values, tf.concat([[0], ngrams.row_lengths()], axis=0), validate=False
            ),
        }

    def fold(self, texts: tf.Tensor) -> tf.Tensor:
        """The first step: `models.text.cleaning.TextCleaner.fold`."""
        return self._clean.fold(texts)

    def tokens(self, folded: tf.Tensor) -> tf.RaggedTensor:
        """The second step: folded messages to their tokens, ragged string [messages, (tokens)], none if empty."""
        return tf.strings.split(self._cut_runs(self._clean.separate(folded)))[:, : self.vocabulary.text.max_tokens]

    def _cut_runs(self, cleaned: tf.Tensor) -> tf.Tensor:
        """Cuts what stands behind a tie into words; string [messages] to string [messages]."""
        with_runs = tf.where(tf.strings.regex_full_match(cleaned, "(?s:.*)" + TIE + "(?s:.*)"))

        def cut() -> tf.Tensor:
            tokens = tf.strings.split(tf.gather_nd(cleaned, with_runs))
            places = tf.where(tf.strings.regex_full_match(tokens.flat_values, TIE + ".*"))
            runs = tf.strings.regex_replace(tf.gather_nd(tokens.flat_values, places), TIE, "")
            words = self._segment(tf.strings.lower(runs, encoding="utf-8"))
            whole = tokens.with_flat_values(tf.tensor_scatter_nd_update(tokens.flat_values, places, words))
            return tf.tensor_scatter_nd_update(cleaned, with_runs, tf.strings.reduce_join(whole, axis=1, separator=" "))

        return tf.cond(tf.size(with_runs) > 0, cut, lambda: cleaned)


@dataclass(eq=False)
class TableMemory:
    """Stands for one table that goes on growing, by being the same object.

    Attributes:
        before: the table that its first rows were taken over from, if any. Who keeps something for each row moves it
            over and sets this to None, or both would be kept.
        shared: how many rows those are, with the same numbers in both.
    """

    before: TableMemory | None = None
    shared: int = 0


@dataclass(frozen=True)
class TokenTable:
    """Tokens, each a row; row 0 is padding's. Some may be there twice.

    Attributes:
        words: number in the vocabulary, int32 [table].
        shapes: as `models.text.tokens.shapes_of` has it, int32 [table].
        ngrams: hashed n-grams of all tokens, one token after another, int32.
        starts: int64 [table + 1], where each token begins in `ngrams`.
        memory: what the table is the present state of, where it goes on growing: rows that are there stay as they are.
    """

    words: npt.NDArray[np.int32]
    shapes: npt.NDArray[np.int32]
    ngrams: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    memory: TableMemory | None = None

    @classmethod
    def of_words(cls, words: npt.ArrayLike) -> TokenTable:
        """A table of words without n-grams, written in small letters; padding's row is put before them."""
        numbers = np.concatenate([[PADDING_ID], np.asarray(words)]).astype(np.int32)
        return cls(numbers, np.zeros_like(numbers), np.zeros(0, np.int32), np.zeros(len(numbers) + 1, np.int64))


class EncodedMessages:
    """Many messages, without padding.

    Attributes:
        rows: rows of the table, int32 [tokens of all messages], one message after another.
        starts: int64 [messages + 1], where each message begins in `rows`.
        table: the tokens.
    """

    def __init__(self, rows: npt.NDArray[np.int32], starts: npt.NDArray[np.int64], table: TokenTable) -> None:
        self.rows = rows
        self.starts = starts
        self.table = table

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each message, int64 [messages]."""
        return np.diff(self.starts)

    def part(self, first: int, end: int) -> EncodedMessages:
        """The messages from `first` up to but not including `end`, of the same table."""
        starts = self.starts[first : end + 1]
        return EncodedMessages(self.rows[starts[0] : starts[-1]], starts - starts[0], self.table)

    def batch(self, messages: npt.NDArray[np.int64], width: int) -> dict[str, npt.NDArray[np.int32]]:
        """The chosen messages as the network takes them, padded on the right. No message may be longer than the width.

        Returns:
            ``rows`` [messages, width], 0 where padded, and of the tokens that occur ``words``, ``shapes`` [table],
            ``ngrams`` [n-grams of all], ``owners`` [n-grams of all], the row each belongs to; all int32.
        """
        places = np.arange(width)
        lengths = self.starts[messages + 1] - self.starts[messages]
        taken = np.minimum(self.starts[messages, np.newaxis] + places, max(len(self.rows) - 1, 0))
        padded = np.where(places < lengths[:, np.newaxis], self.rows[taken] if len(self.rows) else 0, 0)
        used, rows = np.unique(np.append(padded.ravel(), 0), return_inverse=True)
        counts = self.table.starts[used + 1] - self.table.starts[used]
        owners = np.repeat(np.arange(len(used)), counts)
        return {
            "rows": rows[:-1].reshape(padded.shape).astype(np.int32),
            "words": self.table.words[used],
            "shapes": self.table.shapes[used],
            "ngrams": self.table.ngrams[places_of(self.table.starts[used], counts)],
            "owners": owners.astype(np.int32),
        }


def places_of(firsts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The places of runs, one run after another.

    Args:
        firsts: where each begins, int64 [runs].
        sizes: how long each is, int64 [runs].
    """
    places: npt.NDArray[np.int64] = np.repeat(firsts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
    return places


def encode_messages(encoder: TextEncoder, texts: Sequence[str], batch_size: int = 10_000) -> EncodedMessages:
    """Encodes messages in slices of up to `batch_size`, so that memory stays bounded by what comes out."""
    rows, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    words, shapes, ngrams = ([np.zeros(one, np.int32)] for one in (1, 1, 0))
    counts = [np.zeros(1, np.int64)]
    before = 0  # tokens of the slices before, which go in front of this one's
    for some in _slices(texts, batch_size, most_bytes(encoder.vocabulary.text)):
        encoded = encoder.compiled(tf.constant(encode_utf8(some), tf.string))
        rows.append(encoded["rows"].flat_values.numpy() + np.int32(before))
        lengths.append(encoded["rows"].row_lengths().numpy())
        words.append(encoded["words"].numpy()[1:])
        shapes.append(encoded["shapes"].numpy()[1:])
        ngrams.append(encoded["ngrams"].flat_values.numpy())
        counts.append(encoded["ngrams"].row_lengths().numpy()[1:])
        before += len(words[-1])
    table = TokenTable(np.concatenate(words), np.concatenate(shapes), np.concatenate(ngrams), _starts(counts))
    return EncodedMessages(np.concatenate(rows), _starts(lengths), table)


def _starts(lengths: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Where things of such lengths begin when they stand one after another, and where the last ends."""
    return np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)


def _slices(texts: Sequence[str], batch_size: int, most: int) -> Iterator[list[str]]:
    """Messages in slices, each cut to the characters that can be among its first `most` bytes."""
    some: list[str] = []
    characters = 0
    for text in texts:
        some.append(text[:most])
        characters += len(some[-1])
        if len(some) == batch_size or characters >= _SLICE_CHARACTERS:
            yield some
            some, characters = [], 0
    if some:
        yield some


def write_tokens(vocabulary: Vocabulary, path: Path) -> Path:
    """Writes the tokens one a line, special ones left out: what `TextEncoder` reads as its asset."""
    path.write_text("".join(f"{token}\n" for token in vocabulary.tokens[len(SPECIAL_TOKENS) :]), encoding="utf-8")
    return path
