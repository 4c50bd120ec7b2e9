"""Recurrent cells over projected inputs, for all messages of a batch and all directions at once.

Each cell computes what the Keras layer of its name computes, with one change: a sigmoid is computed as
(tanh(x / 2) + 1) / 2, which costs half as much. The division by two is folded into the weights. Arrays are
[directions, messages, units].
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
    """The weights of a recurrent layer for each direction: kernel [size, gates * units], recurrent kernel, bias.

    Attributes:
        groups: gates that are computed together, as the number of gates in each group.
        halves_inputs: for each group, whether its activation is a sigmoid, whose weights are halved.
    """

    groups: ClassVar[tuple[int, ...]] = ()
    halves_inputs: ClassVar[tuple[bool, ...]] = ()

    def __init__(self, weights: Sequence[Sequence[FloatArray]]) -> None:
        self.directions, self.units = len(weights), weights[0][1].shape[0]
        self._kernels = RowProducts(self._split_groups([layer[0] for layer in weights]))
        self._biases = self._split_groups([self._input_bias(layer[2])[np.newaxis] for layer in weights])
        self.recurrent = RowProducts(self._split_groups([self._recurrent_kernel(layer[1]) for layer in weights]))

    def _input_bias(self, bias: FloatArray) -> FloatArray:
        return bias

    def _recurrent_kernel(self, kernel: FloatArray) -> FloatArray:
        return kernel

    def _split_groups(self, values: Sequence[FloatArray]) -> list[FloatArray]:
        """Splits the values of all gates into groups, and halves those of sigmoid gates.

        Args:
            values: [size, gates * units] for each direction.

        Returns:
            For each group, [directions, size, gates * units].
        """
        factors = [0.5 if is_halved else 1.0 for is_halved in self.halves_inputs]
        scaled = (np.stack(values) * np.repeat(factors, np.array(self.groups) * self.units)).astype(np.float32)
        return np.split(scaled, np.cumsum(np.array(self.groups[:-1]) * self.units), axis=-1)

    def project(self, vectors: FloatArray) -> list[FloatArray]:
        """Computes the input part of each group of gates, which does not depend on context.

        Args:
            vectors: float32 [tokens, size].

        Returns:
            For each group and direction, float32 [tokens, gates * units]: first all directions of the first group, then
            those of the next.
        """
        rows = self._kernels.pad_count(len(vectors))
        products = self._kernels.allocate(rows).multiply(np.pad(vectors, [(0, rows - len(vectors)), (0, 0)]))
        groups = ((product + bias)[:, : len(vectors)] for product, bias in zip(products, self._biases, strict=True))
        return [inputs for group in groups for inputs in group]

    @abstractmethod
    def start(self, messages: int) -> Any:
        """Starts a run over messages, with all states zero."""


class _Run:
    """States and buffers for one batch."""

    def __init__(self, cell: Any, messages: int) -> None:
        self.cell = cell
        shape = (cell.directions, messages, cell.units)
        self.state = np.zeros(shape, np.float32)
        self.buffers = [np.empty((*shape[:2], cell.units * gates), np.float32) for gates in cell.groups]
        self.products = cell.recurrent.allocate(messages)

    def _gather_inputs(self, inputs: Sequence[FloatArray], tokens: Sequence[IntArray]) -> list[FloatArray]:
        """Gathers the inputs of the next token of each message, by group of gates, into reused buffers."""
        rows = len(tokens[0])
        for group, buffer in enumerate(self.buffers):
            for direction, indices in enumerate(tokens):
                table = inputs[group * self.cell.directions + direction]
                table.take(indices, axis=0, out=buffer[direction, :rows], mode="clip")
        return [buffer[:, :rows] for buffer in self.buffers]


class Gru(_Cell):
    """`keras.layers.GRU` with its `reset_after`; Cho et al. 2014. Groups: update and reset gate; candidate."""

    groups, halves_inputs = (2, 1), (True, False)

    def __init__(self, weights: Sequence[Sequence[FloatArray]]) -> None:
        super().__init__(weights)
        # The reset gate also applies to the candidate's recurrent bias, so this bias is kept apart.
        biases = [layer[2][1, 2 * self.units :] * np.float32(0.5) for layer in weights]
        self.candidate_bias = np.stack(biases)[:, np.newaxis]

    def _recurrent_kernel(self, kernel: FloatArray) -> FloatArray:
        # The candidate's recurrent kernel is halved, because `step` multiplies by twice the reset gate.
        return np.concatenate([kernel[:, : 2 * self.units], kernel[:, 2 * self.units :] * np.float32(0.5)], axis=1)

    def _input_bias(self, bias: FloatArray) -> FloatArray:
        gates = bias[1].copy()
        gates[2 * self.units :] = 0
        return bias[0] + gates

    def start(self, messages: int) -> _GruRun:
        """Starts a run over messages, with all states zero."""
        return _GruRun(self, messages)


class _GruRun(_Run):
    def __init__(self, cell: Any, messages: int) -> None:
        super().__init__(cell, messages)
        self.reset = np.empty_like(self.state)

    def step(self, inputs: Sequence[FloatArray], tokens: Sequence[IntArray]) -> FloatArray:
        """Processes the next token of each message, and returns the states in a reused buffer.

        Args:
            inputs: as `_Cell.project` returns them.
            tokens: rows of `inputs` for each direction, int32 [messages].
        """
        units, rows = self.cell.units, len(tokens[0])
        gates, candidate = self._gather_inputs(inputs, tokens)
        state, reset = self.state[:, :rows], self.reset[:, :rows]
        gates_from_state, candidate_from_state = self.products.multiply(state)
        gates += gates_from_state
        np.tanh(gates, out=gates)
        gates += 1
        np.add(candidate_from_state, self.cell.candidate_bias, out=reset)
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

    groups, halves_inputs = (2, 1, 1), (True, False, True)

    def start(self, messages: int) -> _LstmRun:
        """Starts a run over messages, with all states zero."""
        return _LstmRun(self, messages)


class _LstmRun(_Run):
    def __init__(self, cell: Any, messages: int) -> None:
        super().__init__(cell, messages)
        self.carry = np.zeros_like(self.state)

    def step(self, inputs: Sequence[FloatArray], tokens: Sequence[IntArray]) -> FloatArray:
        """Processes the next token of each message, and returns the states in a reused buffer.

        Args:
            inputs: as `_Cell.project` returns them.
            tokens: rows of `inputs` for each direction, int32 [messages].
        """
        units, rows = self.cell.units, len(tokens[0])
        groups = self._gather_inputs(inputs, tokens)
        state, carry = self.state[:, :rows], self.carry[:, :rows]
        for group, from_state in zip(groups, self.products.multiply(state), strict=True):
            group += from_state
            np.tanh(group, out=group)
        gates, candidate, output = groups
        for gate in (gates, output):
            gate += 1
            gate *= np.float32(0.5)
        carry *= gates[:, :, units:]
        candidate *= gates[:, :, :units]
        carry += candidate
        np.tanh(carry, out=state)
        state *= output
        return state


class Simple(_Cell):
    """`keras.layers.SimpleRNN`; Elman 1990."""

    groups, halves_inputs = (1,), (False,)

    def start(self, messages: int) -> _SimpleRun:
        """Starts a run over messages, with all states zero."""
        return _SimpleRun(self, messages)


class _SimpleRun(_Run):
    def step(self, inputs: Sequence[FloatArray], tokens: Sequence[IntArray]) -> FloatArray:
        """Processes the next token of each message, and returns the states in a reused buffer.

        Args:
            inputs: as `_Cell.project` returns them.
            tokens: rows of `inputs` for each direction, int32 [messages].
        """
        (values,) = self._gather_inputs(inputs, tokens)
        state = self.state[:, : len(tokens[0])]
        values += self.products.multiply(state)[0]
        return np.tanh(values, out=state)


CELLS: Mapping[type, type[_Cell]] = {
    keras.layers.GRU: Gru,
    keras.layers.LSTM: Lstm,
    keras.layers.SimpleRNN: Simple,
}
