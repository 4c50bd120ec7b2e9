"""Writes and reads the weights of a network as NumPy arrays, in a `.npz` file that any tool can read.

Two entries describe the weights: `spamscore:calibrated`, a single bool, and `spamscore:vocabulary`, the tokens of the
rows of `embedding/words`, text [tokens]. A file without them is read too.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from models.errors import ArtifactError

CALIBRATED_ENTRY, VOCABULARY_ENTRY = "spamscore:calibrated", "spamscore:vocabulary"
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


def write_weights(network: keras.Model, path: Path, calibrated: bool | None = None) -> None:
    """Writes every weight by its path in the network, such as ``embedding/words``.

    Args:
        network: the network.
        path: the file.
        calibrated: whether the weights are calibrated, for the entry that says so; None writes no entry.
    """
    weights = {variable.path: variable.numpy() for variable in network.weights}
    entries = {} if calibrated is None else {CALIBRATED_ENTRY: np.array(calibrated)}
    np.savez(path, allow_pickle=False, **weights, **entries)


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads all arrays of a `.npz` file by name.

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
    """Reads the weights of a `.npz` file into a network of the same architecture.

    Raises:
        ArtifactError: the file is missing or damaged, or a weight is missing, unexpected, or of another type or shape.
            The network is unchanged.
    """
    arrays = read_arrays(path)
    weights = {name: array for name, array in arrays.items() if name not in (CALIBRATED_ENTRY, VOCABULARY_ENTRY)}
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
