"""Tests of the list of checkpoints: its values are those of the checkpoints, and damage is found in every tensor."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from models.settings import NetworkSettings, TextSettings, TrainingSettings, VocabularySettings
from models.text.vocabulary import build_vocabulary
from models.trained_model.checkpoint_list import ListedCheckpoint, describe_checkpoints
from models.training.history import read_history
from models.training.job import LabelledMessages
from models.training.loop import train

# As in `start_tensorflow`: otherwise TensorFlow lists every value of an unreadable checkpoint when Python exits.
logging.getLogger("tensorflow").setLevel("ERROR")

TEXTS = ["free win now", "call me now"]
NETWORK = NetworkSettings(cell="simple", bidirectional=False, embedding_size=3, rnn_units=2, ngram_buckets=32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of three epochs of three steps, with a checkpoint after every second step and every epoch."""
    folder = tmp_path_factory.mktemp("trained")
    vocabulary = build_vocabulary(TEXTS, VocabularySettings(min_count=1), TextSettings())
    messages = LabelledMessages(TEXTS * 6, np.tile(np.array([1, 0], np.int32), 6))
    settings = TrainingSettings(epochs=3, batch_size=4, augmentation=0.0, checkpoint_steps=2, keep_checkpoints=10)
    train(messages, messages, vocabulary, NETWORK, settings, folder)
    return folder


@pytest.fixture
def training(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "training"))


def find(listed: list[ListedCheckpoint], name: str) -> ListedCheckpoint:
    (checkpoint,) = (checkpoint for checkpoint in listed if checkpoint.name == name)
    return checkpoint


def test_the_values_are_those_of_the_checkpoints_and_the_loss_is_that_of_their_weights(trained: Path) -> None:
    listed = describe_checkpoints(trained)
    numbers = [2, 3, 4, 6, 8, 9, 10]
    assert [checkpoint.name for checkpoint in listed] == [f"ckpt-{number}" for number in reversed(numbers)]
    losses = {row.epoch: row.validation_loss for row in read_history(trained / "history.csv")}
    for checkpoint in listed:
        reader = tf.train.load_checkpoint(str(checkpoint.path))
        progress = checkpoint.progress
        assert progress is not None
        for name in ("step", "epoch", "step_in_epoch", "best_epoch", "finished"):
            assert getattr(progress, name) == reader.get_tensor(f"run/{name}/.ATTRIBUTES/VARIABLE_VALUE"), name
        assert f"ckpt-{progress.step}" == checkpoint.name
        epoch = progress.best_epoch if progress.finished else progress.epoch
        assert progress.validation_loss == (None if progress.step_in_epoch else losses[epoch])
    assert [checkpoint.progress.finished for checkpoint in listed if checkpoint.progress] == [True] + 6 * [False]


def test_without_a_history_only_the_loss_of_the_best_epoch_is_known(
    training: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = find(describe_checkpoints(training), "ckpt-10").progress
    (training / "history.csv").write_text("epoch,loss\nx,1\n", encoding="utf-8")
    listed = describe_checkpoints(training)
    assert find(listed, "ckpt-10").progress == expected
    assert any(checkpoint.progress and checkpoint.progress.validation_loss is None for checkpoint in listed)
    (record,) = caplog.records
    assert f"{training / 'history.csv'}: not a history of epochs" in record.getMessage()


def flip(position: float) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        index = int(position * (len(content) - 1))
        return content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]

    return change


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    **{f"a flipped bit in the data at {place}": (".data-00000-of-00001", flip(place)) for place in (0, 0.3, 0.7, 1)},
    "truncated data": (".data-00000-of-00001", lambda content: content[:-1]),
    "empty data": (".data-00000-of-00001", lambda _: b""),
    "a flipped bit in the index": (".index", flip(0.4)),
    "truncated index": (".index", lambda content: content[: len(content) // 2]),
    "an index of another format": (".index", lambda _: b"no such thing" * 50),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_listed_as_damaged_and_the_others_are_not(training: Path, damage: str) -> None:
    ending, change = DAMAGES[damage]
    path = training / "checkpoints" / f"ckpt-6{ending}"
    path.write_bytes(change(path.read_bytes()))
    listed = describe_checkpoints(training)
    assert [checkpoint.name for checkpoint in listed if checkpoint.damage] == ["ckpt-6"]
    damaged = find(listed, "ckpt-6")
    assert damaged.progress is None
    assert str(damaged.damage).startswith(f"{training / 'checkpoints' / 'ckpt-6'}: the checkpoint is damaged (")


def test_a_checkpoint_without_data_or_under_the_name_of_another_is_damaged(training: Path) -> None:
    folder = training / "checkpoints"
    (folder / "ckpt-4.data-00000-of-00001").unlink()
    for ending in (".index", ".data-00000-of-00001"):
        shutil.copy(folder / f"ckpt-9{ending}", folder / f"ckpt-8{ending}")
    listed = describe_checkpoints(training)
    assert {checkpoint.name for checkpoint in listed if checkpoint.damage} == {"ckpt-4", "ckpt-8"}
    assert "expected step 8, received 9" in str(find(listed, "ckpt-8").damage)


def test_an_expected_checkpoint_without_files_is_listed_as_damaged(training: Path) -> None:
    for path in (training / "checkpoints").glob("ckpt-10.*"):
        path.unlink()
    missing = find(describe_checkpoints(training, ("ckpt-10",)), "ckpt-10")
    assert missing.damage
    assert missing.written_at is None


def test_a_checkpoint_that_the_manager_has_passed_on_is_permanent(training: Path) -> None:
    state = training / "checkpoints" / "checkpoint"
    lines = state.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if '"ckpt-3"' not in line]
    state.write_text("".join(kept), encoding="utf-8")
    assert [checkpoint.name for checkpoint in describe_checkpoints(training) if checkpoint.permanent] == ["ckpt-3"]
    state.write_text("damaged", encoding="utf-8")
    assert all(checkpoint.permanent for checkpoint in describe_checkpoints(training))


def test_checkpoints_of_held_out_folds_follow_with_their_numbers(training: Path) -> None:
    for fold in ("2", "10"):
        shutil.copytree(training / "checkpoints", training / "held_out" / fold / "checkpoints")
    (training / "held_out" / "1.npy").touch()
    listed = describe_checkpoints(training)
    assert [checkpoint.fold for checkpoint in listed] == 7 * [None] + 7 * [2] + 7 * [10]
    assert not any(checkpoint.damage for checkpoint in listed)
