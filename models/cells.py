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
        self._kernels = [self._scaled(one[0]) for one in weights]
        self._biases = [self._scaled(self._input_bias(one[2])) for one in weights]
        recurrent = [self._divided(self._scaled(one[1])) for one in weights]
        self.recurrent = [np.ascontiguousarray(np.stack(group)) for group in zip(*recurrent, strict=True)]

    def _input_bias(self, bias: FloatArray) -> FloatArray:
        return bias

    def _scaled(self, values: FloatArray) -> FloatArray:
        """Gates whose activation is a sigmoid, halved."""
        factors = np.repeat([0.5 if half else 1.0 for half in self.halved], np.array(self.groups) * self.units)
        return (values * factors).astype(np.float32)

    def _divided(self, values: FloatArray) -> list[FloatArray]:
        """Values of all gates, by their groups, along the last axis."""
        return np.split(values, np.cumsum(np.array(self.groups[:-1]) * self.units), axis=-1)

    def project(self, vectors: FloatArray) -> list[FloatArray]:
        """What tokens give to each group of gates before there is any context.

        Args:
            vectors: float32 [tokens, size].

        Returns:
            Of each direction each group, float32 [tokens, gates * units]: the directions' first groups, and so on.
        """
        rows = -(-max(len(vectors), 1) // 16) * 16
        padded = np.zeros((rows, vectors.shape[1]), np.float32)
        padded[: len(vectors)] = vectors
        given = [padded @ kernel + bias for kernel, bias in zip(self._kernels, self._biases, strict=True)]
        groups = zip(*(self._divided(one[: len(vectors)]) for one in given), strict=True)
        return [np.ascontiguousarray(one) for group in groups for one in group]

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
        self.products = [np.empty_like(one) for one in self.room]

    def _take(self, inputs: Sequence[FloatArray], tokens: Sequence[IntArray]) -> list[FloatArray]:
        """What the next token of each message gives, by group of gates, in room that is used again."""
        rows = len(tokens[0])
        for group, room in enumerate(self.room):
            for direction, some in enumerate(tokens):
                table = inputs[group * self.cell.directions + direction]
                table.take(some, axis=0, out=room[direction, :rows], mode="clip")
        return [one[:, :rows] for one in self.room]

    def _remember(self, group: int, state: FloatArray) -> FloatArray:
        """What the state gives to a group of gates."""
        return np.matmul(state, self.cell.recurrent[group], out=self.products[group][:, : state.shape[1]])


class Gru(_Cell):
    """`keras.layers.GRU` with its `reset_after`; Cho et al. 2014. Groups: update and reset gate; candidate."""

    groups, halved = (2, 1), (True, False)

    def __init__(self, weights: Sequence[Sequence[FloatArray]]) -> None:
        super().__init__(weights)
        # The candidate's own recurrent bias is reset with the state. Halved, for the gate comes as twice itself.
        self.recurrent[1] *= np.float32(0.5)
        biases = [one[2][1, 2 * self.units :] * np.float32(0.5) for one in weights]
        self.candidate_bias = np.stack(biases)[:, np.newaxis]

    def _input_bias(self, bias: FloatArray) -> FloatArray:
        gates = bias[1].copy()
        gates[2 * self.units :] = 0
        return bias[0] + gates

    def begin(self, messages: int) -> _GruRun:
        """A run over messages, states at nought."""
        return _GruRun(self, messages)


class _GruRun(_Run):
    def step(self, inputs: Sequence[FloatArray], tokens: Sequence[IntArray]) -> FloatArray:
        """Reads a token of each message, int32 [messages] a direction; gives the states, in room used again."""
        units = self.cell.units
        gates, candidate = self._take(inputs, tokens)
        state = self.state[:, : len(tokens[0])]
        gates += self._remember(0, state)
        np.tanh(gates, out=gates)
        gates += 1
        remembered = self._remember(1, state)
        remembered += self.cell.candidate_bias
        remembered *= gates[:, :, units:]
        candidate += remembered
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
        for number, group in enumerate(groups):
            group += self._remember(number, state)
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
        given += self._remember(0, state)
        return np.tanh(given, out=state)


CELLS: Mapping[type, type[_Cell]] = {
    keras.layers.GRU: Gru,
    keras.layers.LSTM: Lstm,
    keras.layers.SimpleRNN: Simple,
}
