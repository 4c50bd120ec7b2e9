"""Lists, writes and reads the weights of a network as NumPy arrays, in a `.npz` file that any tool can read.

Besides the weights, the file has two markers: `spamscore:calibrated`, whether the last layers contain the calibration,
and `spamscore:vocabulary`, the tokens in the order of the rows of ``embedding/words``. A file that an older spamscore
exported has no markers; its weights are calibrated.
"""

from __future__ import annotations

import contextlib
import os
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from models.errors import ArtifactError, StorageError

CALIBRATED_MARKER, VOCABULARY_MARKER = "spamscore:calibrated", "spamscore:vocabulary"
_MARKERS = (CALIBRATED_MARKER, VOCABULARY_MARKER)
# What NumPy raises for a file that is not an archive of arrays, or that is truncated or changed.
_READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
)


@dataclass(frozen=True)
class Weight:
    """A variable of a network.

    Attributes:
        path: its path in the network, such as ``embedding/words``.
        shape: its dimensions.
        dtype: type of its numbers.
        norm: square root of the sum of their squares (L2 norm).
        parameters: how many numbers it has.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    norm: float
    parameters: int


def list_weights(network: keras.Model) -> list[Weight]:
    """Returns the variables of a network, in the order of its layers."""
    values = [(variable.path, variable.numpy()) for variable in network.weights]
    return [
        Weight(path, value.shape, str(value.dtype), float(np.linalg.norm(value.astype(np.float64).ravel())), value.size)
        for path, value in values
    ]


def write_weights(network: keras.Model, path: Path, tokens: Sequence[str], calibrated: bool) -> None:
    """Writes every weight by its path in the network, and the markers. The file appears complete or not at all.

    Args:
        network: the network.
        path: the file; one that exists is replaced.
        tokens: the tokens of the vocabulary; the index of a token is its row in ``embedding/words``.
        calibrated: whether the last layers contain the calibration.

    Raises:
        StorageError: the file cannot be written.
    """
    arrays = {variable.path: variable.numpy() for variable in network.weights}
    markers = {CALIBRATED_MARKER: np.array(calibrated), VOCABULARY_MARKER: np.array(tokens, np.str_)}
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays, **markers)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StorageError(
            f"{path}: the weights cannot be written: {error.strerror or error}. Expected a file in a folder that "
            "exists, with the permission to write and enough free space."
        ) from None


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads all arrays of a `.npz` file by name: weights and markers.

    Raises:
        ArtifactError: the file is missing, damaged, or no archive of arrays.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            # NumPy returns a member that is not an array as bytes.
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except _READ_ERRORS as error:
        raise ArtifactError(f"{path}: expected weights as .npz, but {type(error).__name__}: {error}") from None


def read_weights(network: keras.Model, path: Path) -> None:
    """Reads the weights of a `.npz` file into a network of the same architecture. The markers are not used.

    Raises:
        ArtifactError: the file is missing or damaged, or a weight is missing, unexpected, or of another type or shape.
            The network is unchanged.
    """
    weights = {name: array for name, array in read_arrays(path).items() if name not in _MARKERS}
    expected = {variable.path: f"{variable.dtype} {tuple(variable.shape)}" for variable in network.weights}
    received = {name: f"{array.dtype} {array.shape}" for name, array in weights.items()}
    for name in sorted(expected.keys() | received.keys()):
        if expected.get(name) != received.get(name):
            raise ArtifactError(
                f"{path}: weight {name}: expected {expected.get(name, 'no such weight')}, "
                f"received {received.get(name, 'no such weight')}. It belongs to another network."
            )
    for variable in network.weights:
        variable.assign(weights[variable.path])
