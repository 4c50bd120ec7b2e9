"""The files in Keras's formats: another process loads them and computes the same probabilities."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from models.inference.scorer import Scorer
from models.network.keras_files import write_keras_files
from models.network.linear import LinearWeights
from models.network.network import build_network, calibrate, set_linear
from models.settings import NetworkSettings, TextSettings, VocabularySettings
from models.statistics.calibration import Calibration
from models.text.cleaning import clean_texts
from models.text.encoder import TextEncoder, encode_messages
from models.text.vocabulary import Vocabulary, build_vocabulary

PROJECT = Path(__file__).parents[3]
TEXTS = ["FREE entry, text WIN to 80086", "see you at home", "", "café? £500", "f r e e  e n t r y"] * 3
NETWORKS = {
    "gru": NetworkSettings(embedding_size=4, rnn_units=3, ngram_buckets=512, ngram_vectors=64),
    "lstm, maximum": NetworkSettings(
        cell="lstm", bidirectional=False, embedding_size=4, rnn_units=3, pooling="max", ngram_buckets=512,
        ngram_vectors=0,
    ),
    "simple, last, no linear part": NetworkSettings(
        cell="simple", bidirectional=False, embedding_size=4, rnn_units=3, pooling="last", linear=False
    ),
}  # fmt: skip
LOAD = {
    "model.keras": "model = keras.saving.load_model('model.keras')",
    "architecture and weights": """model = keras.models.model_from_json(open('architecture.json').read())
model.load_weights('model.weights.h5')""",
}


def vocabulary() -> Vocabulary:
    return build_vocabulary(clean_texts(TEXTS, TextSettings()), VocabularySettings(min_count=1), TextSettings())


def calibrated_network(settings: NetworkSettings) -> keras.Model:
    network = build_network(settings, len(vocabulary()), seed=5)
    for weight in network.weights:
        weight.assign(weight.value * 5)  # so that the probabilities differ clearly
    if settings.linear:
        random = np.random.default_rng(5)
        parts = (random.normal(size=512), random.uniform(0.5, 9, 512), random.normal(size=1))
        set_linear(network, LinearWeights(*(part.astype(np.float32) for part in parts)))
    calibrate(network, Calibration(0.6, -0.4))
    return network


def run_python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a new process in a folder outside the project, which can import the project."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_a_process_that_imports_the_layers_computes_the_same_probabilities(name: str, tmp_path: Path) -> None:
    network, encoder = calibrated_network(NETWORKS[name]), TextEncoder(vocabulary(), NETWORKS[name].ngram_vectors)
    write_keras_files(network, tmp_path)
    encoded = encode_messages(encoder, TEXTS)
    np.savez(tmp_path / "batch.npz", **encoded.batch(np.arange(len(TEXTS)), int(encoded.lengths.max())))
    expected = Scorer(encoder, network, ["/device:CPU:0"]).score(TEXTS).probabilities
    loads = "\n".join(f"{code}\nsave({number})" for number, code in enumerate(LOAD.values()))
    done = run_python(
        tmp_path,
        f"""import keras, numpy as np, sys
import models.network.network
batch = dict(np.load('batch.npz'))
def save(number):
    logits = np.asarray(model(batch), np.float64)
    np.save(f'{{number}}.npy', 1 / (1 + np.exp(-logits)))
{loads}
assert not [name for name in sys.modules if name.split('.')[0] in ('tasks', 'pipeline')]
""",
    )
    assert done.returncode == 0, done.stderr
    assert np.ptp(expected) > 0.1
    for number in range(len(LOAD)):
        np.testing.assert_allclose(np.load(tmp_path / f"{number}.npy"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", LOAD)
def test_a_process_without_the_layers_gets_an_error_that_names_the_first_of_them(kind: str, tmp_path: Path) -> None:
    write_keras_files(calibrated_network(NETWORKS["gru"]), tmp_path)
    done = run_python(tmp_path, f"import keras\n{LOAD[kind]}")
    assert done.returncode == 1
    assert "Could not locate class 'TokenVectors'" in done.stderr


def test_only_the_three_files_are_written(tmp_path: Path) -> None:
    write_keras_files(calibrated_network(NETWORKS["gru"]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.keras", "architecture.json", "model.weights.h5"}
    assert "optimizer" not in (tmp_path / "architecture.json").read_text(encoding="utf-8")


def test_a_loaded_network_can_be_trained_further(tmp_path: Path) -> None:
    write_keras_files(calibrated_network(NETWORKS["gru"]), tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.trainable_variables[0].path == "embedding/words"
    assert not [variable for variable in model.trainable_variables if variable.path.startswith("linear/")]
