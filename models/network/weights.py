"""Writes and reads the weights of a network as NumPy arrays, in a `.npz` file that any tool can read."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from models.errors import ArtifactError

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


def write_weights(network: keras.Model, path: Path) -> None:
    """Writes every weight by its path in the network, such as ``embedding/words``."""
    np.savez(path, allow_pickle=False, **{variable.path: variable.numpy() for variable in network.weights})


def read_weights(network: keras.Model, path: Path) -> None:
    """Reads the weights of a `.npz` file into a network of the same architecture.

    Raises:
        ArtifactError: the file is missing or damaged, or a weight is missing, unexpected, or of another type or shape.
            The network is unchanged.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            # NumPy returns a member that is not an array as bytes.
            weights = {name: np.asarray(arrays[name]) for name in arrays.files}
    except _READ_ERRORS as error:
        raise ArtifactError(f"{path}: expected weights as .npz, but {type(error).__name__}: {error}") from None
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
