"""The recurrent cells over inputs that are projected already, for all messages of a batch and all directions at once.

Each follows the Keras layer of its name, with one change: a sigmoid is computed as (tanh(x / 2) + 1) / 2, half as dear,
and the halving is put into the weights. Arrays are [directions, messages, units].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import numpy.typing as npt

from models.inference.row_products import RowProducts

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


class _Cell(ABC):
    """Weights of one layer a direction: kernel [size, gates * units], recurrent kernel, bias.

    `groups` are the gates whose activations are computed together, by how many there are of each.
    """

    groups: ClassVar[tuple[int, ...]] = ()
    halved: ClassVar[tuple[bool, ...]] = ()

    def __init__(self, weights: Sequence[Sequence[FloatArray]]) -> None:
        self.directions, self.units = len(weights), weights[0][1].shape[0]
        self._kernels = RowProducts(self._groups_of([one[0] for one in weights]))
        self._biases = self._groups_of([self._input_bias(one[2])[np.newaxis] for one in weights])
        self.recurrent = RowProducts(self._groups_of([self._recurrent_kernel(one[1]) for one in weights]))

    def _input_bias(self, bias: FloatArray) -> FloatArray:
        return bias

    def _recurrent_kernel(self, kernel: FloatArray) -> FloatArray:
        return kernel

    def _groups_of(self, values: Sequence[FloatArray]) -> list[FloatArray]:
        """Values of all gates, [size, gates * units] for each direction, by group, [directions, size, gates * units].

        Those of gates whose activation is a sigmoid are halved.
        """
        halves = [0.5 if half else 1.0 for half in self.halved]
        scaled = (np.stack(values) * np.repeat(halves, np.array(self.groups) * self.units)).astype(np.float32)
        return np.split(scaled, np.cumsum(np.array(self.groups[:-1]) * self.units), axis=-1)

    def project(self, vectors: FloatArray) -> list[FloatArray]:
        """What tokens give to each group of gates before there is any context.

        Args:
            vectors: float32 [tokens, size].

        Returns:
            Of each direction each group, float32 [tokens, gates * units]: the directions' first groups, and so on.
        """
        rows = self._kernels.filled_up(len(vectors))
        products = self._kernels.room(rows).of(np.pad(vectors, [(0, rows - len(vectors)), (0, 0)]))
        groups = ((product + bias)[:, : len(vectors)] for product, bias in zip(products, self._biases, strict=True))
        return [one for group in groups for one in group]

    @abstractmethod
    def begin(self, messages: int) -> Any:
        """A run over messages, states at nought."""


class _Run:
    """States and room to compute in, for one batch."""

    def __init__(self, cell: Any, messages: int) -> None:
        self.cell = cell
        shape = (cell.directions, messages, cell.units)
        self.state = np.zeros(shape, np.float32)
        self.room = [np.empty((*shape[:2], cell.units * gates), np.float32) for gates in cell.groups]
        self.products = cell.recurrent.room(messages)

    def _take(self, inputs: Sequence[FloatArray], tokens: Sequence[IntArray]) -> list[FloatArray]:
        """What the next token of each message gives, by group of gates, in room that is used again."""
        rows = len(tokens[0])
        for group, room in enumerate(self.room):
            for direction, some in enumerate(tokens):
                table = inputs[group * self.cell.directions + direction]
                table.take(some, axis=0, out=room[direction, :rows], mode="clip")
        return [one[:, :rows] for one in self.room]


class Gru(_Cell):
    """`keras.layers.GRU` with its `reset_after`; Cho et al. 2014. Groups: update and reset gate; candidate."""

    groups, halved = (2, 1), (True, False)

    def __init__(self, weights: Sequence[Sequence[FloatArray]]) -> None:
        super().__init__(weights)
        # The candidate's own recurrent bias is reset with the state.
        biases = [one[2][1, 2 * self.units :] * np.float32(0.5) for one in weights]
        self.candidate_bias = np.stack(biases)[:, np.newaxis]

    def _recurrent_kernel(self, kernel: FloatArray) -> FloatArray:
        # What the candidate remembers is halved, for the gate that it is reset with comes as twice itself.
        return np.concatenate([kernel[:, : 2 * self.units], kernel[:, 2 * self.units :] * np.float32(0.5)], axis=1)

    def _input_bias(self, bias: FloatArray) -> FloatArray:
        gates = bias[1].copy()
        gates[2 * self.units :] = 0
        return bias[0] + gates

    def begin(self, messages: int) -> _GruRun:
        """A run over messages, states at nought."""
        return _GruRun(self, messages)


class _GruRun(_Run):
    def __init__(self, cell: Any, messages: int) -> None:
        super().__init__(cell, messages)
        self.reset = np.empty_like(self.state)

    def step(self, inputs: Sequence[FloatArray], tokens: Sequence[IntArray]) -> FloatArray:
        """Reads a token of each message, int32 [messages] a direction; gives the states, in room used again."""
        units, rows = self.cell.units, len(tokens[0])
        gates, candidate = self._take(inputs, tokens)
        state, reset = self.state[:, :rows], self.reset[:, :rows]
        gates_remembered, candidate_remembered = self.products.of(state)
        gates += gates_remembered
        np.tanh(gates, out=gates)
        gates += 1
        np.add(candidate_remembered, self.cell.candidate_bias, out=reset)
        reset *= gates[:, :, units:]
        candidate += reset
        np.tanh(candidate, out=candidate)
        # update * state + (1 - update) * candidate
        gates *= np.float32(0.5)
        state -= candidate
        state *= gates[:, :, :units]
        state += candidate
        return state


class Lstm(_Cell):
    """`keras.layers.LSTM`; Hochreiter and Schmidhuber 1997. Groups: input and forget gate; candidate; output gate."""

    groups, halved = (2, 1, 1), (True, False, True)

    def begin(self, messages: int) -> _LstmRun:
        """A run over messages, states at nought."""
        return _LstmRun(self, messages)


class _LstmRun(_Run):
    def __init__(self, cell: Any, messages: int) -> None:
        super().__init__(cell, messages)
        self.carried = np.zeros_like(self.state)

    def step(self, inputs: Sequence[FloatArray], tokens: Sequence[IntArray]) -> FloatArray:
        """Reads a token of each message, int32 [messages] a direction; gives the states, in room used again."""
        units, rows = self.cell.units, len(tokens[0])
        groups = self._take(inputs, tokens)
        state, carried = self.state[:, :rows], self.carried[:, :rows]
        for group, remembered in zip(groups, self.products.of(state), strict=True):
            group += remembered
            np.tanh(group, out=group)
        gates, candidate, output = groups
        for one in (gates, output):
            one += 1
            one *= np.float32(0.5)
        carried *= gates[:, :, units:]
        candidate *= gates[:, :, :units]
        carried += candidate
        np.tanh(carried, out=state)
        state *= output
        return state


class Simple(_Cell):
    """`keras.layers.SimpleRNN`; Elman 1990."""

    groups, halved = (1,), (False,)

    def begin(self, messages: int) -> _SimpleRun:
        """A run over messages, states at nought."""
        return _SimpleRun(self, messages)


class _SimpleRun(_Run):
    def step(self, inputs: Sequence[FloatArray], tokens: Sequence[IntArray]) -> FloatArray:
        """Reads a token of each message, int32 [messages] a direction; gives the states, in room used again."""
        (given,) = self._take(inputs, tokens)
        state = self.state[:, : len(tokens[0])]
        given += self.products.of(state)[0]
        return np.tanh(given, out=state)


CELLS: Mapping[type, type[_Cell]] = {
    keras.layers.GRU: Gru,
    keras.layers.LSTM: Lstm,
    keras.layers.SimpleRNN: Simple,
}
