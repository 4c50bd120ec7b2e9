"""The network on a processor: the same weights as the Keras model's, computed over packed sequences.

Messages of a batch are sorted by length, and at each step only those that still have a token are computed, so there is
no padding at all. What a token gives to the recurrence before it has any context is computed once for each distinct
token: its vector times the kernel ("folding" the embedding into the input projection). Matrix products and activations
are NumPy's, which release Python's lock: several threads score several chunks at once.

Every row of a batch is computed by the same operations whatever stands beside it (`models.inference.row_products`),
so the logit
of a message is the same to the last bit in any company. Devices other than one processor, training and the export run
the Keras model (`models.network.network`); tests hold the two equal.
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
from models.text.encoder import EncodedMessages, TableMemory, TokenTable

IntArray = npt.NDArray[np.int64]

# Tokens whose features are held at once: each has some twelve, of five bytes, which no other token of its message has.
_LINEAR_TOKENS = 100_000


class PackedNetwork:
    """Logits of encoded messages, on one processor core for each thread that asks or helps.

    Attributes:
        help: does a piece of what another thread asked for; False if there is none.
        clock: seconds of a processor that went into what this thread asked for.
    """

    def __init__(self, network: keras.Model) -> None:
        """Takes the weights; what is done to the network later changes nothing here.

        From here on NumPy's matrix products take one thread each in this process, whoever asks for them: threads of
        ours share the work, and a row's bits would hang on how many share a product.
        """
        threadpool_limits(1, "blas")
        recurrent = network.get_layer("recurrent")
        both = isinstance(recurrent, keras.layers.Bidirectional)
        layers = [recurrent.forward_layer, recurrent.backward_layer] if both else [recurrent]
        self._cell = CELLS[type(layers[0])]([[weight.numpy() for weight in layer.weights] for layer in layers])
        self._projections = _Projections(network.get_layer("embedding"), self._cell)
        self._pooling = _pooling_of(network)
        kernel, self._bias = (weight.numpy() for weight in network.get_layer(LOGIT).weights)
        self._kernel = kernel[:, 0]
        self._linear = _LinearScore(network.get_layer(LINEAR)) if has_linear(network) else None
        self._work = SharedWork()
        self.help = self._work.help
        # What it takes is the asking thread's own time, whoever else has the machine.
        self.clock = self._work.seconds

    def logits(self, messages: EncodedMessages, batch_size: int = 512) -> npt.NDArray[np.float32]:
        """Logits of messages, float32 [messages].

        Args:
            messages: as `models.inference.message_reader` or `models.text.encoder.encode_messages` gives them.
            batch_size: messages computed together; changes no logit.
        """
        recurrent, linear = np.zeros(len(messages), np.float32), np.zeros(len(messages))
        pieces = [] if self._linear is None else self._linear.pieces(messages, linear)
        inputs, lengths = self._projections.of(messages.table), messages.lengths
        order = np.argsort(-lengths, kind="stable")
        for at in range(0, len(order), batch_size):
            pieces.append(partial(self._score, messages, inputs, order[at : at + batch_size], recurrent))
        self._work.run(pieces)
        recurrent += linear
        return recurrent

    def _score(
        self, messages: EncodedMessages, inputs: list[FloatArray], rows: IntArray, logits: npt.NDArray[np.float32]
    ) -> None:
        """The recurrent part's logits of some messages, the longest first; each to its place."""
        starts = messages.starts[rows]
        pooled = self._read(inputs, messages.rows, starts, messages.starts[rows + 1] - starts)
        logits[rows] = (pooled * self._kernel).sum(axis=1) + self._bias

    def _read(
        self,
        inputs: list[FloatArray],
        tokens: npt.NDArray[np.int32],
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> FloatArray:
        """Runs the recurrence over messages sorted by length, the longest first; what is pooled, [messages, units]."""
        count = len(starts)
        padded = self._cell.recurrent.filled_up(count)
        run = self._cell.begin(padded)
        pooled = self._pooling(self._cell.directions, count, self._cell.units)
        first = np.zeros(padded, np.int64)
        first[:count] = starts
        last = np.zeros(padded, np.int64)
        last[:count] = starts + lengths - 1
        active = np.searchsorted(-lengths, -np.arange(lengths[0]), side="left").tolist()
        for step, messages in enumerate(active):
            rows = self._cell.recurrent.filled_up(messages)
            places = (first[:rows] + step, last[:rows] - step)[: self._cell.directions]
            states = run.step(inputs, [tokens.take(one, mode="clip") for one in places])
            pooled.add(states[:, :messages], active[step + 1] if step + 1 < len(active) else 0)
        return pooled.result(lengths)


class _Projections:
    """What the recurrence takes of each token, worked out once for each row of a table that goes on growing."""

    def __init__(self, embedding: keras.layers.Layer, cell: Any) -> None:
        self._words, self._shapes = embedding.words.numpy(), embedding.shapes.numpy()
        self._ngrams = None if embedding.ngrams is None else embedding.ngrams.numpy()
        self._cell = cell
        self._known: weakref.WeakKeyDictionary[TableMemory, list[GrowingArray]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, table: TokenTable) -> list[FloatArray]:
        """The inputs of the recurrence by row of a table, as the cell has them."""
        if table.memory is None:
            return self._projected(table, 0, len(table.words))
        with self._lock:
            known = self._known.get(table.memory) or self._begun(table.memory, table)
            rows = len(known[0])
            if rows < len(table.words):
                for one, fresh in zip(known, self._projected(table, rows, len(table.words)), strict=True):
                    one.append(fresh)
            return [one.values for one in known]

    def _begun(self, memory: TableMemory, table: TokenTable) -> list[GrowingArray]:
        """What is known of the rows that a table has from one before it."""
        begun = [GrowingArray(np.float32, one.shape[1:]) for one in self._projected(table, 0, 0)]
        if memory.before is not None:
            for one, before in zip(begun, self._known.get(memory.before, begun), strict=True):
                one.append(before.values[: memory.shared])
            memory.before = None
        self._known[memory] = begun
        return begun

    def _projected(self, table: TokenTable, first: int, end: int) -> list[FloatArray]:
        return self._cell.project(self._vectors(table, first, end))

    def _vectors(self, table: TokenTable, first: int, end: int) -> FloatArray:
        """Vectors of some tokens, float32 [tokens, size], as `models.network.network.TokenVectors` has them."""
        vectors = self._words[table.words[first:end]] + self._shapes[table.shapes[first:end]]
        if self._ngrams is not None and end > first:
            starts = table.starts[first : end + 1]
            buckets = table.ngrams[starts[0] : starts[-1]] % len(self._ngrams)
            within = (np.ones(len(buckets), np.float32), buckets, starts - starts[0])
            sums = sp.csr_matrix(within, shape=(end - first, len(self._ngrams))) @ self._ngrams
            vectors += sums / np.sqrt(np.maximum(np.diff(starts), 1))[:, np.newaxis].astype(np.float32)
        return vectors


class _LinearScore:
    """`models.network.network.LinearScore` on a processor: what the distinct features of a message have to say."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        weights, squares, bias = layer.get_weights()
        self._weights, self._squares = weights, squares
        self._bias, self._buckets = float(bias[0]), layer.buckets

    def pieces(self, messages: EncodedMessages, logits: npt.NDArray[np.float64]) -> list[Piece]:
        """What is to be done for the linear part's logits; `logits`, float64 [messages], takes them."""
        pieces: list[Piece] = []
        first = 0
        while first < len(messages):
            end = int(np.searchsorted(messages.starts, messages.starts[first] + _LINEAR_TOKENS, side="right")) - 1
            end = max(end, first + 1)
            pieces.append(partial(self._score, messages.part(first, end), logits[first:end]))
            first = end
        return pieces

    def _score(self, messages: EncodedMessages, logits: npt.NDArray[np.float64]) -> None:
        logits[:] = self._of(messages)

    def _of(self, messages: EncodedMessages) -> npt.NDArray[np.float64]:
        features = distinct_features(messages, self._buckets)
        said, lengths = (
            np.add.reduceat(one[features.indices], features.indptr[:-1], dtype=np.float64)
            for one in (self._weights, self._squares)
        )
        return said / np.sqrt(np.maximum(lengths, 1e-12)) + self._bias


def _pooling_of(network: keras.Model) -> Any:
    if not any(layer.name == "pooling" for layer in network.layers):
        return _Last
    return _LargestAndMean if network.get_layer("pooling").with_mean else _Largest


class _Largest:
    """The largest value of each unit over the tokens of a message."""

    def __init__(self, directions: int, messages: int, units: int) -> None:
        self._largest = np.full((directions, messages, units), np.finfo(np.float32).min, np.float32)

    def add(self, states: FloatArray, _left: int) -> None:
        """Takes the states, [directions, messages that have a token, units], after a step."""
        largest = self._largest[:, : states.shape[1]]
        np.maximum(largest, states, out=largest)

    def result(self, _lengths: npt.NDArray[np.int64]) -> FloatArray:
        """Float32 [messages, units of all directions]."""
        return np.concatenate(list(self._largest), axis=1)


class _LargestAndMean(_Largest):
    """That, and the mean."""

    def __init__(self, directions: int, messages: int, units: int) -> None:
        super().__init__(directions, messages, units)
        self._sums = np.zeros((directions, messages, units), np.float32)

    def add(self, states: FloatArray, left: int) -> None:
        """Takes the states after a step."""
        super().add(states, left)
        self._sums[:, : states.shape[1]] += states

    def result(self, lengths: npt.NDArray[np.int64]) -> FloatArray:
        """Float32 [messages, twice the units of all directions]."""
        means = self._sums / lengths[:, np.newaxis].astype(np.float32)
        return np.concatenate([super().result(lengths), *means], axis=1)


class _Last:
    """The state after a message's last token."""

    def __init__(self, directions: int, messages: int, units: int) -> None:
        self._states = np.zeros((directions, messages, units), np.float32)

    def add(self, states: FloatArray, left: int) -> None:
        """Takes the states after a step, of those messages that have no token `left`."""
        self._states[:, left : states.shape[1]] = states[:, left:]

    def result(self, _lengths: npt.NDArray[np.int64]) -> FloatArray:
        """Float32 [messages, units of all directions]."""
        return np.concatenate(list(self._states), axis=1)
