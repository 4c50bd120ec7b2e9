"""The files for other programs in an exported version: they hold the weights that score the batch."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import models.network.network  # noqa: F401 - registers the layers
from models.network.weights import CALIBRATED_MARKER, read_weights
from models.text.encoder import TextEncoder, encode_messages
from models.text.vocabulary import load_vocabulary
from tasks.artifacts.exports import verify_version
from tasks.artifacts.folders import list_manifest_files
from tasks.export_model import score_with_checkpoint

TEXTS = ["FREE entry, text WIN to 80086", "Lunch at one?", "", "Your code is 4839"]
VERSION = Path("artifacts/exports/spam_ham/1")
# A batch rounds to six decimals, and the order of float32 sums differs between programs and processors.
_TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _in_folder(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)


def compute_probabilities(model: keras.Model, training: Path) -> np.ndarray:
    vocabulary = load_vocabulary(training / "vocabulary.json")
    encoded = encode_messages(TextEncoder(vocabulary, model.get_layer("embedding").ngram_vectors), TEXTS)
    logits = model(encoded.batch(np.arange(len(TEXTS)), int(encoded.lengths.max())))
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def test_the_keras_files_of_a_version_give_the_probabilities_of_the_batch() -> None:
    extra = VERSION / "assets.extra"
    assert {f"assets.extra/{name}" for name in ("model.keras", "architecture.json", "model.weights.h5")} <= set(
        list_manifest_files(VERSION)
    )
    training = Path("artifacts/training", verify_version(1)["training"])
    whole = keras.saving.load_model(extra / "model.keras")
    parts = keras.models.model_from_json((extra / "architecture.json").read_text(encoding="utf-8"))
    parts.load_weights(extra / "model.weights.h5")
    expected = score_with_checkpoint(training, TEXTS)
    assert np.ptp(expected) > 0.1
    for model in (whole, parts):
        np.testing.assert_allclose(compute_probabilities(model, training), expected, rtol=0, atol=_TOLERANCE)
    read_weights(parts, extra / "weights.npz")
    np.testing.assert_allclose(compute_probabilities(parts, training), expected, rtol=0, atol=_TOLERANCE)


def test_the_exported_weights_say_that_they_are_calibrated() -> None:
    with np.load(VERSION / "assets.extra" / "weights.npz") as arrays:
        assert bool(arrays[CALIBRATED_MARKER])


def test_the_vocabulary_folder_has_the_copies_for_other_programs() -> None:
    (folder,) = Path("artifacts/vocabulary").iterdir()
    tokens = load_vocabulary(folder / "vocabulary.json").tokens
    with open(folder / "vocabulary.csv", newline="", encoding="utf-8") as file:
        assert [(row["token"], int(row["number"])) for row in csv.DictReader(file)] == [
            (token, number) for number, token in enumerate(tokens)
        ]
    numbers = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert list(numbers) == list(tokens)
    assert {"vocabulary.csv", "vocab.json"} <= set(list_manifest_files(folder))
