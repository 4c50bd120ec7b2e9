"""Weights as NumPy arrays: a `.npz` that any tool can read, and back."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from models.errors import ArtifactError

# What NumPy raises for a file that is no archive of arrays, or is cut short or changed.
_DAMAGED = (
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
    """Writes every weight under its path in the network, such as ``embedding/embeddings``."""
    np.savez(path, allow_pickle=False, **{variable.path: variable.numpy() for variable in network.weights})


def read_weights(network: keras.Model, path: Path) -> None:
    """Puts the weights of a `.npz` into a network of the same make.

    Raises:
        ArtifactError: the file is missing or damaged, a weight is missing, of another type or shape, or left over.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            # A member that is no array comes as bytes.
            weights = {name: np.asarray(arrays[name]) for name in arrays.files}
    except _DAMAGED as error:
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
