"""Raw messages to token ids: the cleaning and the vocabulary together, as TensorFlow operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.text import TextCleaner, encode_utf8, most_bytes
from models.vocabulary import SPECIAL_TOKENS, UNKNOWN_ID, Vocabulary

# Characters after which a slice of messages ends early: cleaning takes up to ten times their room.
_SLICE_CHARACTERS = 8 * 2**20


class TextEncoder(tf.Module):
    """Encodes messages: `encoder(texts)` takes string [messages] and gives ragged int64 [messages, (tokens)].

    Every message has at least one token (one with nothing in it is a single unknown), and at most
    [text] max_tokens. Number 0 never occurs: it pads.
    """

    def __init__(self, vocabulary: Vocabulary, asset: Path | None = None) -> None:
        """Takes the tokens from the vocabulary or, for an export that must find them again, from a file of theirs.

        Args:
            vocabulary: what to encode with.
            asset: a file with one token a line, special ones left out, as `write_tokens` leaves it.
        """
        super().__init__(name="text_encoder")
        self.vocabulary = vocabulary
        self._clean = TextCleaner(vocabulary.text)
        self._table = tf.lookup.StaticHashTable(
            self._initializer(asset), default_value=UNKNOWN_ID - len(SPECIAL_TOKENS)
        )
        # Traced once for all calls; kept as a bound method, for an export would trace and write a function as well.
        self.compiled = tf.function(self, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False).__call__

    def _initializer(self, asset: Path | None) -> tf.lookup.TextFileInitializer | tf.lookup.KeyValueTensorInitializer:
        if asset is not None:
            return tf.lookup.TextFileInitializer(
                str(asset), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
            )
        tokens = self.vocabulary.tokens[len(SPECIAL_TOKENS) :]
        return tf.lookup.KeyValueTensorInitializer(
            tf.constant(tokens, tf.string, shape=[len(tokens)]), tf.range(len(tokens), dtype=tf.int64)
        )

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Encodes a batch; see the class."""
        tokens = tf.strings.split(self._clean(texts))[:, : self.vocabulary.text.max_tokens]
        ids = self._table.lookup(tokens.flat_values) + len(SPECIAL_TOKENS)
        lengths = tokens.row_lengths()
        # One unknown token for each empty message, put where the message's tokens would be.
        filled = tf.maximum(lengths, 1)
        places = tf.repeat(tf.cast(lengths > 0, tf.int64), filled)
        ids = tf.tensor_scatter_nd_update(
            tf.fill([tf.reduce_sum(filled)], tf.constant(UNKNOWN_ID, tf.int64)), tf.where(places > 0), ids
        )
        return tf.RaggedTensor.from_row_lengths(ids, filled, validate=False)


class EncodedMessages:
    """Token ids of many messages, without padding.

    Attributes:
        ids: int32 [tokens of all messages], one message after another.
        starts: int64 [messages + 1], where each message begins in `ids`.
    """

    def __init__(self, ids: npt.NDArray[np.int32], starts: npt.NDArray[np.int64]) -> None:
        self.ids = ids
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each message, int64 [messages]."""
        return np.diff(self.starts)

    def padded(self, rows: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.int32]:
        """The chosen messages, padded on the right with zeros: int32 [rows, width]. No row may be longer."""
        places = np.arange(width)
        lengths = self.starts[rows + 1] - self.starts[rows]
        taken = np.minimum(self.starts[rows, np.newaxis] + places, len(self.ids) - 1)
        return np.where(places < lengths[:, np.newaxis], self.ids[taken], 0).astype(np.int32)


def encode_messages(encoder: TextEncoder, texts: Sequence[str], batch_size: int = 10_000) -> EncodedMessages:
    """Encodes messages in slices of up to `batch_size`, so that memory stays bounded by the ids."""
    ids, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for some in _slices(texts, batch_size, most_bytes(encoder.vocabulary.text)):
        encoded = encoder.compiled(tf.constant(encode_utf8(some), tf.string))
        ids.append(encoded.flat_values.numpy().astype(np.int32))
        lengths.append(encoded.row_lengths().numpy())
    return EncodedMessages(
        np.concatenate(ids), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    )


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
