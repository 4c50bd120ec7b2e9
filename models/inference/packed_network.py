"""The network on a CPU: the weights of the Keras model, computed over packed sequences.

Messages of a batch are sorted by length, and each step computes only those that still have a token, so there is no
padding. The input part of the recurrence, which does not depend on context, is computed once for each distinct token:
its vector times the kernel (the embedding is "folded" into the input projection). The loops are compiled, and release
Python's lock (the GIL), so several threads score several chunks at once.

Every row of a batch is computed by the same operations, whatever the other rows are (`models.inference.vectors`). So
the logit of a message is the same to the last bit in any batch. Other devices than one CPU, training and the export run
the Keras model (`models.network.network`). Tests check that both give equal results.
"""

from __future__ import annotations

import math
import threading
import weakref
from functools import partial

import keras
import numpy as np
import numpy.typing as npt

from models.hashing.compiled import compiled
from models.inference.cells import LAST, MAX, MAX_AND_MEAN, Cell, IntArray
from models.inference.growing_array import MIN_CAPACITY, GrowingArray
from models.inference.shared_work import SharedWork
from models.inference.vectors import FloatArray
from models.network.character_ngrams import MAX_SIZE, MIN_SQUARES, collect_features, new_slots
from models.network.network import LINEAR, LOGIT, has_linear
from models.text.encoder import Characters, EncodedMessages, TableIdentity, TokenTable

TokenArray = npt.NDArray[np.int32]

# Capacity of the input cache from the start, 32 MiB. While a large cache is copied, dozens of messages could be scored.
_RESERVED_VALUES = 2**23


class PackedNetwork:
    """Computes logits of encoded messages, on one CPU core for each thread that calls or helps.

    Attributes:
        help: computes a piece of another thread's call; returns False if there is none.
        clock: returns the CPU seconds that the calls of this thread have taken.
    """

    def __init__(self, network: keras.Model) -> None:
        """Copies the weights, so that later changes of the network have no effect."""
        recurrent = network.get_layer("recurrent")
        both = isinstance(recurrent, keras.layers.Bidirectional)
        self._cell = Cell.from_layers([recurrent.forward_layer, recurrent.backward_layer] if both else [recurrent])
        self._inputs = _InputCache(network.get_layer("embedding"), self._cell)
        self._pooling = _find_pooling(network)
        kernel, self._bias = (weight.numpy() for weight in network.get_layer(LOGIT).weights)
        self._kernel = kernel[:, 0]
        self._linear = _LinearScore(network.get_layer(LINEAR)) if has_linear(network) else None
        self._work = SharedWork()
        self.help = self._work.help
        # CPU time of the calling thread's work, so other load on the machine does not count.
        self.clock = self._work.seconds

    def logits(self, messages: EncodedMessages, batch_size: int = 512) -> npt.NDArray[np.float32]:
        """Computes the logits of messages, float32 [messages].

        Args:
            messages: from `models.inference.message_reader` or `models.text.encoder.encode_messages`.
            batch_size: number of messages computed together; does not change the logits.
        """
        logits = np.zeros(len(messages), np.float32)
        inputs = self._inputs.get(messages.table)
        order = np.argsort(-messages.lengths, kind="stable")
        self._work.run([
            partial(self._score, messages, inputs, order[start : start + batch_size], logits)
            for start in range(0, len(order), batch_size)
        ])  # fmt: skip
        return logits

    def _score(
        self, messages: EncodedMessages, inputs: FloatArray, rows: IntArray, logits: npt.NDArray[np.float32]
    ) -> None:
        """Writes the logits of messages, the longest first, to `logits[rows]`."""
        starts = messages.starts[rows]
        lengths = messages.starts[rows + 1] - starts
        pooled = self._cell.run(inputs, messages.rows, starts, lengths, self._pooling)
        logits_of_rows = (pooled * self._kernel).sum(axis=1) + self._bias
        if self._linear is not None:
            logits_of_rows += self._linear.logits(messages.characters, rows)
        logits[rows] = logits_of_rows


class _InputCache:
    """A cache of the inputs of the recurrence, for each row of token tables that grow."""

    def __init__(self, embedding: keras.layers.Layer, cell: Cell) -> None:
        self._words, self._shapes = embedding.words.numpy(), embedding.shapes.numpy()
        no_ngrams = np.zeros((0, self._words.shape[1]), np.float32)
        self._ngrams = no_ngrams if embedding.ngrams is None else embedding.ngrams.numpy()
        self._cell = cell
        self._inputs: weakref.WeakKeyDictionary[TableIdentity, GrowingArray] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(self, table: TokenTable) -> FloatArray:
        """Returns the inputs of the recurrence for each row of a table, as `project` of the cell returns them."""
        if table.identity is None:
            return self._project(table, 0)
        with self._lock:
            inputs = self._inputs.get(table.identity) or self._create(table.identity)
            if len(inputs) < len(table.words):
                inputs.append(self._project(table, len(inputs)))
            return inputs.values

    def _create(self, identity: TableIdentity) -> GrowingArray:
        """Creates the entry of a table, with the rows that it shares with the previous table."""
        columns = self._cell.biases.size
        inputs = GrowingArray(np.float32, (columns,), max(_RESERVED_VALUES // columns, MIN_CAPACITY))
        if identity.previous is not None:
            if previous := self._inputs.get(identity.previous):
                inputs.append(previous.values[: identity.shared_rows])
            identity.previous = None
        self._inputs[identity] = inputs
        return inputs

    def _project(self, table: TokenTable, start: int) -> FloatArray:
        """Computes the inputs of the rows of a table from `start` on."""
        vectors = np.empty((len(table.words) - start, self._words.shape[1]), np.float32)
        _compute_vectors(
            table.words[start:], table.shapes[start:], table.ngrams, table.starts[start:],
            self._words, self._shapes, self._ngrams, vectors,
        )  # fmt: skip
        return self._cell.project(vectors)


@compiled
def _compute_vectors(
    words: TokenArray,
    shapes: TokenArray,
    ngrams: TokenArray,
    starts: IntArray,
    word_vectors: FloatArray,
    shape_vectors: FloatArray,
    ngram_vectors: FloatArray,
    vectors: FloatArray,
) -> None:
    """Computes token vectors as `models.network.network.TokenVectors` does, into the last argument."""
    for token in range(len(words)):
        vector, total = vectors[token], np.zeros(vectors.shape[1], np.float32)
        vector[:] = word_vectors[words[token]] + shape_vectors[shapes[token]]
        if len(ngram_vectors):
            for index in range(starts[token], starts[token + 1]):
                total += ngram_vectors[ngrams[index]]
            vector += total / np.float32(math.sqrt(max(starts[token + 1] - starts[token], 1)))


class _LinearScore:
    """`models.network.network.LinearScore` on a CPU."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        weights, squares, bias = layer.get_weights()
        # Next to each other, so that both of a feature are in one cache line.
        self._weights, self._bias = np.stack([weights, squares], axis=1), float(bias[0])

    def logits(self, characters: Characters, rows: IntArray) -> npt.NDArray[np.float64]:
        """Computes the logits of the linear part for the messages at the indices `rows`, float64 [rows]."""
        logits = np.empty(len(rows))
        _score_features(characters.codes, characters.starts, rows, self._weights, self._bias, logits)
        return logits


@compiled
def _score_features(
    codes: TokenArray,
    starts: IntArray,
    rows: IntArray,
    weights: FloatArray,
    bias: float,
    logits: npt.NDArray[np.float64],
) -> None:
    """Computes what `models.network.linear.LinearWeights` says for some messages, into the last argument."""
    capacity = 0
    for row in rows:
        capacity = max(capacity, MAX_SIZE * (starts[row + 1] - starts[row]))
    slots, features, frequencies = new_slots(capacity), np.empty(capacity, np.int32), np.empty(capacity)
    for message in range(len(rows)):
        start, stop = starts[rows[message]], starts[rows[message] + 1]
        count = collect_features(codes[start:stop], len(weights), message, slots, features, frequencies)
        score = squares = 0.0
        for index in range(count):
            feature, frequency = features[index], frequencies[index]
            score += frequency * weights[feature, 0]
            squares += frequency * frequency * weights[feature, 1]
        logits[message] = score / math.sqrt(max(squares, MIN_SQUARES)) + bias


def _find_pooling(network: keras.Model) -> int:
    if not any(layer.name == "pooling" for layer in network.layers):
        return LAST
    return MAX_AND_MEAN if network.get_layer("pooling").with_mean else MAX
