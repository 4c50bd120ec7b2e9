"""Recurrent cells: the weights of a Keras layer in the form in which compiled loops run them, and these loops.

Each cell computes what the Keras layer of its name computes, with one change: a sigmoid is computed as
(tanh(x / 2) + 1) / 2, which costs half as much. The division by two is folded into the weights.

The input part of a recurrence does not depend on context, so it is computed once for each distinct token. Each step
adds to it the product of the states with the recurrent kernel. The first axis of weights and states is the direction.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt

from models.hashing.compiled import compiled
from models.inference.vectors import FloatArray, apply_loop, find_loop, multiply_rows

TokenArray = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.int64]

GRU, LSTM, SIMPLE = range(3)
MAX_AND_MEAN, MAX, LAST = range(3)
_ONE, _HALF = np.float32(1), np.float32(0.5)
_LOWEST = np.finfo(np.float32).min
# For each cell, by gate, whether its activation is a sigmoid, whose weights are halved.
_SIGMOIDS = {
    GRU: (True, True, False),  # update, reset, candidate
    LSTM: (True, True, False, True),  # input, forget, candidate, output
    SIMPLE: (False,),
}
_KINDS: Mapping[type, int] = {keras.layers.GRU: GRU, keras.layers.LSTM: LSTM, keras.layers.SimpleRNN: SIMPLE}


@dataclass(frozen=True)
class Cell:
    """The weights of a recurrent layer, for each direction.

    Attributes:
        kind: `GRU`, `LSTM` or `SIMPLE`.
        kernels: of the inputs, float32 [directions, size, gates * units].
        biases: of the inputs, float32 [directions, gates * units].
        recurrent_kernels: of the states, float32 [directions, units, gates * units].
        candidate_biases: of a GRU's candidate, to which the reset gate also applies, float32 [directions, units].
    """

    kind: int
    kernels: FloatArray
    biases: FloatArray
    recurrent_kernels: FloatArray
    candidate_biases: FloatArray

    @classmethod
    def from_layers(cls, layers: Sequence[keras.layers.Layer]) -> Cell:
        """Copies the weights of a layer for each direction."""
        kind = _KINDS[type(layers[0])]
        kernels, recurrent_kernels, biases = (
            np.stack([layer.weights[index].numpy() for layer in layers]) for index in range(3)
        )
        units = recurrent_kernels.shape[1]
        factors = np.repeat([_HALF if is_sigmoid else _ONE for is_sigmoid in _SIGMOIDS[kind]], units)
        candidate_biases = np.zeros((len(layers), units), np.float32)
        if kind == GRU:  # with `reset_after`; Cho et al. 2014
            # The step multiplies what belongs to the candidate by twice the reset gate.
            recurrent_kernels[:, :, 2 * units :] *= _HALF
            candidate_biases = biases[:, 1, 2 * units :] * _HALF
            biases[:, 1, 2 * units :] = 0
            biases = biases[:, 0] + biases[:, 1]
        return cls(kind, kernels * factors, biases * factors, recurrent_kernels * factors, candidate_biases)

    def project(self, vectors: FloatArray) -> FloatArray:
        """Computes the inputs of the gates from token vectors, float32 [tokens, directions * gates * units].

        Args:
            vectors: float32 [tokens, size].
        """
        inputs = np.empty((len(vectors), *self.biases.shape), np.float32)
        _project(vectors, self.kernels, self.biases, inputs)
        return inputs.reshape(len(vectors), -1)

    def run(
        self, inputs: FloatArray, tokens: TokenArray, starts: IntArray, lengths: IntArray, pooling: int
    ) -> FloatArray:
        """Runs the recurrence over messages.

        Args:
            inputs: of each row of the token table, from `project`.
            tokens: rows of the token table.
            starts: index in `tokens` of each message's first token.
            lengths: number of tokens of each message, at least one, in descending order.
            pooling: `MAX_AND_MEAN`, `MAX` or `LAST`.

        Returns:
            The pooled states, float32 [messages, directions * units]; with the mean, twice as many.
        """
        columns = len(self.biases) * self.recurrent_kernels.shape[1] * (2 if pooling == MAX_AND_MEAN else 1)
        pooled = np.empty((len(starts), columns), np.float32)
        kernels, biases = self.recurrent_kernels, self.candidate_biases
        _run(self.kind, pooling, _tanh(), inputs, tokens, starts, lengths, kernels, biases, pooled)
        return pooled


@functools.cache
def _tanh() -> int:
    return find_loop(np.tanh)


@compiled
def _project(vectors: FloatArray, kernels: FloatArray, biases: FloatArray, inputs: FloatArray) -> None:
    products = np.empty((len(vectors), biases.shape[1]), np.float32)
    for direction in range(len(biases)):
        multiply_rows(vectors, kernels[direction], products)
        for token in range(len(vectors)):
            for column in range(biases.shape[1]):
                inputs[token, direction, column] = products[token, column] + biases[direction, column]


@compiled
def _run(
    kind: int,
    pooling: int,
    tanh: int,
    inputs: FloatArray,
    tokens: TokenArray,
    starts: IntArray,
    lengths: IntArray,
    kernels: FloatArray,
    candidate_biases: FloatArray,
    pooled: FloatArray,
) -> None:
    """Runs the recurrence, and pools the states of each message into the last argument.

    It requires that messages are sorted by length, the longest first: each step computes the first ones, which still
    have a token. The rows of all directions follow each other in the buffers, so that one call computes tanh of all.
    """
    directions, units, columns = kernels.shape
    active = len(starts)
    states = np.zeros((directions, active, units), np.float32)
    maxima, sums = np.full_like(states, _LOWEST), np.zeros_like(states)
    rows = np.empty((directions, active), np.int32)
    products = np.empty((directions * active, columns), np.float32)
    gates = np.empty((directions * active, 2 * units if kind == GRU else columns), np.float32)
    candidates = np.empty((directions * active, units), np.float32)
    carries = np.zeros_like(states)
    for step in range(lengths[0] if active else 0):
        while lengths[active - 1] <= step:
            active -= 1
        for message in range(active):
            rows[0, message] = tokens[starts[message] + step]
            if directions == 2:
                rows[1, message] = tokens[starts[message] + lengths[message] - 1 - step]
        for direction in range(directions):
            first = direction * active
            multiply_rows(states[direction, :active], kernels[direction], products[first : first + active])
        if kind == GRU:
            _step_gru(tanh, inputs, rows, active, products, gates, candidate_biases, candidates, states)
        elif kind == LSTM:
            _step_lstm(tanh, inputs, rows, active, products, gates, candidates, carries, states)
        else:
            _step_simple(tanh, inputs, rows, active, products, gates, states)
        _update_pools(states, active, maxima, sums)
    _pool(pooling, states, maxima, sums, lengths, pooled)


@compiled
def _update_pools(states: FloatArray, active: int, maxima: FloatArray, sums: FloatArray) -> None:
    directions, _, units = states.shape
    for direction in range(directions):
        for message in range(active):
            state = states[direction, message]
            maximum, total = maxima[direction, message], sums[direction, message]
            for unit in range(units):
                if not state[unit] <= maximum[unit]:  # also if it is NaN, as all later states are then
                    maximum[unit] = state[unit]
                total[unit] += state[unit]


@compiled
def _pool(
    pooling: int, states: FloatArray, maxima: FloatArray, sums: FloatArray, lengths: IntArray, pooled: FloatArray
) -> None:
    directions, _, units = states.shape
    for message in range(len(lengths)):
        for direction in range(directions):
            for unit in range(units):
                column = direction * units + unit
                if pooling == LAST:
                    pooled[message, column] = states[direction, message, unit]
                else:
                    pooled[message, column] = maxima[direction, message, unit]
                if pooling == MAX_AND_MEAN:
                    mean = sums[direction, message, unit] / np.float32(lengths[message])
                    pooled[message, directions * units + column] = mean


@compiled
def _step_gru(
    tanh: int,
    inputs: FloatArray,
    rows: TokenArray,
    active: int,
    products: FloatArray,
    gates: FloatArray,
    candidate_biases: FloatArray,
    candidates: FloatArray,
    states: FloatArray,
) -> None:
    directions, _, units = states.shape
    for direction in range(directions):
        first = direction * 3 * units
        for message in range(active):
            row = direction * active + message
            token, product, gate = inputs[rows[direction, message]], products[row], gates[row]
            for column in range(2 * units):
                gate[column] = token[first + column] + product[column]
    apply_loop(tanh, gates, directions * active * 2 * units)
    for direction in range(directions):
        first, bias = (direction * 3 + 2) * units, candidate_biases[direction]
        for message in range(active):
            row = direction * active + message
            token, product, gate = inputs[rows[direction, message]], products[row], gates[row]
            candidate = candidates[row]
            for unit in range(units):
                reset = gate[units + unit] + _ONE
                candidate[unit] = token[first + unit] + (product[2 * units + unit] + bias[unit]) * reset
    apply_loop(tanh, candidates, directions * active * units)
    for direction in range(directions):
        for message in range(active):
            row = direction * active + message
            gate, candidate, state = gates[row], candidates[row], states[direction, message]
            for unit in range(units):
                update = (gate[unit] + _ONE) * _HALF
                state[unit] = (state[unit] - candidate[unit]) * update + candidate[unit]


@compiled
def _step_lstm(
    tanh: int,
    inputs: FloatArray,
    rows: TokenArray,
    active: int,
    products: FloatArray,
    gates: FloatArray,
    outputs: FloatArray,
    carries: FloatArray,
    states: FloatArray,
) -> None:
    directions, _, units = states.shape
    _add_inputs(inputs, rows, active, products, gates)
    apply_loop(tanh, gates, directions * active * 4 * units)
    for direction in range(directions):
        for message in range(active):
            row = direction * active + message
            gate, output, carry = gates[row], outputs[row], carries[direction, message]
            for unit in range(units):
                add, keep = (gate[unit] + _ONE) * _HALF, (gate[units + unit] + _ONE) * _HALF
                carry[unit] = carry[unit] * keep + gate[2 * units + unit] * add
                output[unit] = carry[unit]
    apply_loop(tanh, outputs, directions * active * units)
    for direction in range(directions):
        for message in range(active):
            row = direction * active + message
            gate, output, state = gates[row], outputs[row], states[direction, message]
            for unit in range(units):
                state[unit] = output[unit] * ((gate[3 * units + unit] + _ONE) * _HALF)


@compiled
def _step_simple(
    tanh: int,
    inputs: FloatArray,
    rows: TokenArray,
    active: int,
    products: FloatArray,
    values: FloatArray,
    states: FloatArray,
) -> None:
    directions, _, units = states.shape
    _add_inputs(inputs, rows, active, products, values)
    apply_loop(tanh, values, directions * active * units)
    for direction in range(directions):
        states[direction, :active] = values[direction * active : (direction + 1) * active]


@compiled
def _add_inputs(inputs: FloatArray, rows: TokenArray, active: int, products: FloatArray, sums: FloatArray) -> None:
    columns = products.shape[1]
    for direction in range(len(rows)):
        for message in range(active):
            row = direction * active + message
            token, product, total = inputs[rows[direction, message]], products[row], sums[row]
            for column in range(columns):
                total[column] = token[direction * columns + column] + product[column]
