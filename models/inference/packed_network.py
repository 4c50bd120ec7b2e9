"""The network on a CPU: the weights of the Keras model, computed over packed sequences.

Messages of a batch are sorted by length, and each step computes only those that still have a token, so there is no
padding. The input part of the recurrence, which does not depend on context, is computed once for each distinct token:
its vector times the kernel (the embedding is "folded" into the input projection). Matrix products and activations are
NumPy's, which releases Python's lock (the GIL), so several threads score several chunks at once.

Every row of a batch is computed by the same operations, whatever the other rows are (`models.inference.row_products`).
So the logit of a message is the same to the last bit in any batch. Other devices than one CPU, training and the export
run the Keras model (`models.network.network`). Tests check that both give equal results.
"""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from threadpoolctl import threadpool_limits

from models.inference.cells import CELLS, FloatArray
from models.inference.growing_array import GrowingArray
from models.inference.shared_work import Piece, SharedWork
from models.network.features import distinct_features
from models.network.network import LINEAR, LOGIT, has_linear
from models.text.encoder import EncodedMessages, TableIdentity, TokenTable

IntArray = npt.NDArray[np.int64]

# Tokens whose features are in memory at once. A token has about twelve features that no other token of its message has,
# of five bytes each.
_MAX_LINEAR_TOKENS = 100_000


class PackedNetwork:
    """Computes logits of encoded messages, on one CPU core for each thread that calls or helps.

    Attributes:
        help: computes a piece of another thread's call; returns False if there is none.
        clock: returns the CPU seconds that the calls of this thread have taken.
    """

    def __init__(self, network: keras.Model) -> None:
        """Copies the weights, so that later changes of the network have no effect.

        From now on every NumPy matrix product in this process uses one thread: the threads that score share the work
        instead, and the bits of a row would depend on the number of threads that share a product.
        """
        threadpool_limits(1, "blas")
        recurrent = network.get_layer("recurrent")
        both = isinstance(recurrent, keras.layers.Bidirectional)
        layers = [recurrent.forward_layer, recurrent.backward_layer] if both else [recurrent]
        self._cell = CELLS[type(layers[0])]([[weight.numpy() for weight in layer.weights] for layer in layers])
        self._inputs = _InputCache(network.get_layer("embedding"), self._cell)
        self._pooling = _choose_pooling(network)
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
        logits, linear = np.zeros(len(messages), np.float32), np.zeros(len(messages))
        pieces = [] if self._linear is None else self._linear.pieces(messages, linear)
        inputs, lengths = self._inputs.get(messages.table), messages.lengths
        order = np.argsort(-lengths, kind="stable")
        for start in range(0, len(order), batch_size):
            pieces.append(partial(self._score, messages, inputs, order[start : start + batch_size], logits))
        self._work.run(pieces)
        logits += linear
        return logits

    def _score(
        self, messages: EncodedMessages, inputs: list[FloatArray], rows: IntArray, logits: npt.NDArray[np.float32]
    ) -> None:
        """Writes the logits of the recurrent part for messages, the longest first, to `logits[rows]`."""
        starts = messages.starts[rows]
        pooled = self._run(inputs, messages.rows, starts, messages.starts[rows + 1] - starts)
        logits[rows] = (pooled * self._kernel).sum(axis=1) + self._bias

    def _run(
        self,
        inputs: list[FloatArray],
        tokens: npt.NDArray[np.int32],
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> FloatArray:
        """Runs the recurrence over messages sorted by length, the longest first.

        Returns:
            The pooled states, [messages, units].
        """
        count = len(starts)
        padded = self._cell.recurrent.pad_count(count)
        run = self._cell.start(padded)
        pooled = self._pooling(self._cell.directions, count, self._cell.units)
        first = np.zeros(padded, np.int64)
        first[:count] = starts
        last = np.zeros(padded, np.int64)
        last[:count] = starts + lengths - 1
        active = np.searchsorted(-lengths, -np.arange(lengths[0]), side="left").tolist()
        for step, messages in enumerate(active):
            rows = self._cell.recurrent.pad_count(messages)
            positions = (first[:rows] + step, last[:rows] - step)[: self._cell.directions]
            states = run.step(inputs, [tokens.take(indices, mode="clip") for indices in positions])
            pooled.add(states[:, :messages], active[step + 1] if step + 1 < len(active) else 0)
        return pooled.result(lengths)


class _InputCache:
    """A cache of the inputs of the recurrence, for each row of token tables that grow."""

    def __init__(self, embedding: keras.layers.Layer, cell: Any) -> None:
        self._words, self._shapes = embedding.words.numpy(), embedding.shapes.numpy()
        self._ngrams = None if embedding.ngrams is None else embedding.ngrams.numpy()
        self._cell = cell
        self._columns: weakref.WeakKeyDictionary[TableIdentity, list[GrowingArray]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def get(self, table: TokenTable) -> list[FloatArray]:
        """Returns the inputs of the recurrence for each row of a table, as `project` of the cell returns them."""
        if table.identity is None:
            return self._project(table, 0, len(table.words))
        with self._lock:
            columns = self._columns.get(table.identity) or self._create(table.identity, table)
            rows = len(columns[0])
            if rows < len(table.words):
                for column, values in zip(columns, self._project(table, rows, len(table.words)), strict=True):
                    column.append(values)
            return [column.values for column in columns]

    def _create(self, identity: TableIdentity, table: TokenTable) -> list[GrowingArray]:
        """Creates the entry of a table, with the rows that it shares with the previous table."""
        columns = [GrowingArray(np.float32, column.shape[1:]) for column in self._project(table, 0, 0)]
        if identity.previous is not None:
            for column, previous_column in zip(columns, self._columns.get(identity.previous, columns), strict=True):
                column.append(previous_column.values[: identity.shared_rows])
            identity.previous = None
        self._columns[identity] = columns
        return columns

    def _project(self, table: TokenTable, start: int, stop: int) -> list[FloatArray]:
        return self._cell.project(self._vectors(table, start, stop))

    def _vectors(self, table: TokenTable, start: int, stop: int) -> FloatArray:
        """Computes token vectors as `models.network.network.TokenVectors` does, float32 [tokens, size]."""
        vectors = self._words[table.words[start:stop]] + self._shapes[table.shapes[start:stop]]
        if self._ngrams is not None and stop > start:
            starts = table.starts[start : stop + 1]
            buckets = table.ngrams[starts[0] : starts[-1]] % len(self._ngrams)
            matrix = (np.ones(len(buckets), np.float32), buckets, starts - starts[0])
            sums = sp.csr_matrix(matrix, shape=(stop - start, len(self._ngrams))) @ self._ngrams
            vectors += sums / np.sqrt(np.maximum(np.diff(starts), 1))[:, np.newaxis].astype(np.float32)
        return vectors


class _LinearScore:
    """`models.network.network.LinearScore` on a CPU: the linear score of the distinct features of each message."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        weights, squares, bias = layer.get_weights()
        self._weights, self._squares = weights, squares
        self._bias, self._buckets = float(bias[0]), layer.buckets

    def pieces(self, messages: EncodedMessages, logits: npt.NDArray[np.float64]) -> list[Piece]:
        """Returns the pieces of work that compute the logits of the linear part into `logits`, float64 [messages]."""
        pieces: list[Piece] = []
        start = 0
        while start < len(messages):
            stop = int(np.searchsorted(messages.starts, messages.starts[start] + _MAX_LINEAR_TOKENS, side="right")) - 1
            stop = max(stop, start + 1)
            pieces.append(partial(self._score, messages.slice(start, stop), logits[start:stop]))
            start = stop
        return pieces

    def _score(self, messages: EncodedMessages, logits: npt.NDArray[np.float64]) -> None:
        logits[:] = self._compute(messages)

    def _compute(self, messages: EncodedMessages) -> npt.NDArray[np.float64]:
        features = distinct_features(messages, self._buckets)
        sums, squared_norms = (
            np.add.reduceat(values[features.indices], features.indptr[:-1], dtype=np.float64)
            for values in (self._weights, self._squares)
        )
        return sums / np.sqrt(np.maximum(squared_norms, 1e-12)) + self._bias


def _choose_pooling(network: keras.Model) -> Any:
    if not any(layer.name == "pooling" for layer in network.layers):
        return _LastPooling
    return _MaxAndMeanPooling if network.get_layer("pooling").with_mean else _MaxPooling


class _MaxPooling:
    """The maximum of each unit over the tokens of a message."""

    def __init__(self, directions: int, messages: int, units: int) -> None:
        self._maxima = np.full((directions, messages, units), np.finfo(np.float32).min, np.float32)

    def add(self, states: FloatArray, _remaining: int) -> None:
        """Adds the states after a step, [directions, messages that have a token, units]."""
        maxima = self._maxima[:, : states.shape[1]]
        np.maximum(maxima, states, out=maxima)

    def result(self, _lengths: npt.NDArray[np.int64]) -> FloatArray:
        """Returns the pooled states, float32 [messages, units of all directions]."""
        return np.concatenate(list(self._maxima), axis=1)


class _MaxAndMeanPooling(_MaxPooling):
    """The maximum and the mean."""

    def __init__(self, directions: int, messages: int, units: int) -> None:
        super().__init__(directions, messages, units)
        self._sums = np.zeros((directions, messages, units), np.float32)

    def add(self, states: FloatArray, remaining: int) -> None:
        """Adds the states after a step."""
        super().add(states, remaining)
        self._sums[:, : states.shape[1]] += states

    def result(self, lengths: npt.NDArray[np.int64]) -> FloatArray:
        """Returns the pooled states, float32 [messages, twice the units of all directions]."""
        means = self._sums / lengths[:, np.newaxis].astype(np.float32)
        return np.concatenate([super().result(lengths), *means], axis=1)


class _LastPooling:
    """The state after the last token of a message."""

    def __init__(self, directions: int, messages: int, units: int) -> None:
        self._states = np.zeros((directions, messages, units), np.float32)

    def add(self, states: FloatArray, remaining: int) -> None:
        """Keeps the states after a step of the messages that end with it: all after the first `remaining`."""
        self._states[:, remaining : states.shape[1]] = states[:, remaining:]

    def result(self, _lengths: npt.NDArray[np.int64]) -> FloatArray:
        """Returns the pooled states, float32 [messages, units of all directions]."""
        return np.concatenate(list(self._states), axis=1)
