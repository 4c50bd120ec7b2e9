"""A working folder, its database and a small model, for the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from spamscore_command import export_version
from sqlalchemy.engine import Engine

from tasks.artifacts.folders import write_manifest
from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, empty, without settings from the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPAMSCORE_DATABASE_URL", raising=False)
    monkeypatch.delenv("LUIGI_CONFIG_PATH", raising=False)
    return tmp_path


@pytest.fixture
def database(folder: Path) -> Iterator[Engine]:
    """An SQLite database in the working folder."""
    engine = open_database(DatabaseSettings(url="sqlite:///spamscore.db"))
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with version 1 of a very small model."""
    from models.network.devices import start_tensorflow
    from models.settings import DeviceSettings, NetworkSettings, TextSettings, TrainingSettings, VocabularySettings

    start_tensorflow(DeviceSettings())
    from models.text.vocabulary import build_vocabulary
    from models.trained_model.description import UnseenScores, write_trained_model
    from models.training.job import LabelledMessages
    from models.training.loop import train

    folder = tmp_path_factory.mktemp("small_model")
    training = folder / "artifacts" / "training" / "t1"
    training.mkdir(parents=True)
    vocabulary = build_vocabulary(["win prize now", "see you at lunch"] * 2, VocabularySettings(), TextSettings())
    texts, labels = ["win prize now", "see you at lunch"], np.array([1, 0], np.int32)
    part = LabelledMessages(texts * 8, np.tile(labels, 8))
    network = NetworkSettings(
        cell="simple",
        bidirectional=False,
        embedding_size=4,
        rnn_units=4,
        dropout=0.0,
        ngram_buckets=256,
        ngram_vectors=256,
    )
    settings = TrainingSettings(epochs=10, batch_size=8, learning_rate=0.1, augmentation=0.0)
    result = train(part, part, vocabulary, network, settings, training)
    # The calibration needs more messages than these to be certain, so they are repeated.
    unseen = UnseenScores(np.tile(result.validation_logits, 25), np.tile(part.labels, 25))
    write_manifest(training, write_trained_model(result.summarize(), vocabulary, network, unseen, training))
    export_version(folder, 1, "t1")
    return folder


@pytest.fixture
def model(small_model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the small model, as the working folder."""
    monkeypatch.chdir(small_model)
    return small_model
