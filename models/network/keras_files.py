"""Writes a network in Keras's own formats, for other programs: as one file, and as architecture and weights.

The layers of `models.network.network` are registered with Keras under the package name `spamscore`. A program that
reads the files must import that module first.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import keras

from models.network.export import temporary_files_in

KERAS_MODEL, ARCHITECTURE, KERAS_WEIGHTS = "model.keras", "architecture.json", "model.weights.h5"


def write_keras_files(network: keras.Model, folder: Path) -> None:
    """Writes the network into an existing folder.

    Writes ``model.keras``, which has architecture and weights, and both again as ``architecture.json``
    (`keras.models.model_from_json`) and ``model.weights.h5`` (`load_weights`). The model has the inputs and the output
    of `models.network.network.build_network`: encoded messages, and their logits.

    Args:
        network: the network. Its calibration is part of its weights.
        folder: the folder.
    """
    # Keras keeps temporary files in a folder that a killed process would leave.
    with (
        tempfile.TemporaryDirectory(prefix="scratch-", dir=folder) as scratch,
        temporary_files_in(scratch),
        warnings.catch_warnings(),
    ):
        # Keras calls NumPy as before NumPy 2. It concerns Keras alone, and the arrays are the same.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        network.save(folder / KERAS_MODEL)
        network.save_weights(folder / KERAS_WEIGHTS)
    (folder / ARCHITECTURE).write_text(network.to_json(indent=2) + "\n", encoding="utf-8")
