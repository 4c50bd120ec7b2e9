"""Checkpoints: which are kept, what a damaged one costs, what a kill in the middle of a write leaves."""

from __future__ import annotations

import logging
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from models.errors import ArtifactError
from models.network.network import build_network
from models.settings import NetworkSettings, TrainingSettings
from models.training.checkpoints import open_checkpoint_manager, restore_latest_checkpoint, weights_sha256

# As `start_tensorflow` has it: for a checkpoint that could not be read TensorFlow lists every value when Python ends.
logging.getLogger("tensorflow").setLevel("ERROR")

NUMBERS = (10, 20, 30)


def state(value: float = 0.0) -> tf.train.Checkpoint:
    """What a run would save, small."""
    return tf.train.Checkpoint(values=tf.Variable([value] * 50), extra=tf.Variable(value))


def value_of(checkpoint: tf.train.Checkpoint) -> float:
    (value,) = set(checkpoint.values.numpy().tolist())
    assert checkpoint.extra.numpy() == value
    return value


def save(folder: Path, numbers: tuple[int, ...] = NUMBERS, settings: TrainingSettings | None = None) -> Path:
    """Saves checkpoints whose number is their value."""
    checkpoint = state()
    manager = open_checkpoint_manager(checkpoint, folder, settings or TrainingSettings())
    for number in numbers:
        checkpoint.values.assign([float(number)] * 50)
        checkpoint.extra.assign(float(number))
        manager.save(checkpoint_number=number)
    return folder


def whole(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("ckpt-")) for path in folder.glob("ckpt-*.index"))


def test_the_latest_is_restored(tmp_path: Path) -> None:
    checkpoint = state()
    assert restore_latest_checkpoint(checkpoint, save(tmp_path)) == "ckpt-30"
    assert value_of(checkpoint) == 30.0


def test_where_there_is_none_nothing_is_restored(tmp_path: Path) -> None:
    checkpoint = state(1.0)
    assert restore_latest_checkpoint(checkpoint, tmp_path) is None
    assert restore_latest_checkpoint(checkpoint, tmp_path / "missing") is None
    assert value_of(checkpoint) == 1.0


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_last_few_are_kept(tmp_path: Path, keep: int) -> None:
    save(tmp_path, tuple(range(1, 9)), TrainingSettings(keep_checkpoints=keep))
    assert whole(tmp_path) == list(range(9 - keep, 9))


def test_one_every_so_many_hours_is_kept_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1_000_000.0)
    clock.time = lambda: clock.now
    monkeypatch.setattr(sys.modules[tf.train.CheckpointManager.__module__], "time", clock)
    settings = TrainingSettings(keep_checkpoints=2, keep_checkpoint_every_hours=3.0)
    checkpoint = state()
    manager = open_checkpoint_manager(checkpoint, tmp_path, settings)
    for hour in range(1, 13):
        clock.now += 3600
        manager.save(checkpoint_number=hour)
        if hour == 6:  # a run that is started again keeps on counting
            manager = open_checkpoint_manager(checkpoint, tmp_path, settings)
    assert whole(tmp_path) == [3, 6, 9, 11, 12]


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    checkpoint = state()
    assert restore_latest_checkpoint(checkpoint, save(tmp_path, (9, 10, 100))) == "ckpt-100"


DAMAGES = {
    "data cut short": (".data-00000-of-00001", lambda content: content[: len(content) // 2]),
    "data empty": (".data-00000-of-00001", lambda _: b""),
    "a bit of the data flipped": (".data-00000-of-00001", lambda content: bytes([content[0] ^ 1]) + content[1:]),
    "index cut short": (".index", lambda content: content[: len(content) // 2]),
    "index empty": (".index", lambda _: b""),
    "a bit of the index flipped": (".index", lambda content: content[:20] + bytes([content[20] ^ 4]) + content[21:]),
    "index of something else": (".index", lambda _: b"no such thing" * 50),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_with_a_warning_naming_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    ending, change = DAMAGES[damage]
    path = save(tmp_path) / f"ckpt-30{ending}"
    path.write_bytes(change(path.read_bytes()))
    checkpoint = state()
    with caplog.at_level(logging.WARNING, "spamscore"):
        assert restore_latest_checkpoint(checkpoint, tmp_path) == "ckpt-20"
    assert value_of(checkpoint) == 20.0
    (record,) = caplog.records
    assert f"{tmp_path / 'ckpt-30'} is damaged" in record.getMessage()
    assert "going on from ckpt-20" in record.getMessage()


def test_one_whose_data_is_gone_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (save(tmp_path) / "ckpt-30.data-00000-of-00001").unlink()
    assert restore_latest_checkpoint(state(), tmp_path) == "ckpt-20"
    assert "ckpt-30 is damaged" in caplog.text


def test_no_damage_passes_unseen(tmp_path: Path) -> None:
    dice, checkpoint = random.Random(3), state()
    files = [save(tmp_path) / f"ckpt-30{ending}" for ending in (".index", ".data-00000-of-00001")]
    for _ in range(120):
        path = dice.choice(files)
        content = path.read_bytes()
        damaged = bytearray(content)
        if dice.random() < 0.3:
            damaged = damaged[: dice.randrange(len(damaged))]
        else:
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        restored = restore_latest_checkpoint(checkpoint, tmp_path)
        assert (restored, value_of(checkpoint)) in (("ckpt-30", 30.0), ("ckpt-20", 20.0))
        path.write_bytes(content)


def test_where_none_is_whole_the_error_says_how_many_and_the_way_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in save(tmp_path / "run" / "checkpoints").glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(ArtifactError, match="none of the 3 checkpoints can be used") as error:
        restore_latest_checkpoint(state(), tmp_path / "run" / "checkpoints")
    assert f"or delete {tmp_path / 'run'} and run TrainModel again" in str(error.value)
    assert "there is none before it" in caplog.text


def test_whatever_bit_of_the_state_file_is_flipped_a_whole_checkpoint_is_restored(tmp_path: Path) -> None:
    save(tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    dice = random.Random(5)
    for _ in range(150):
        content = bytearray(kept[tmp_path / "checkpoint"])
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        (tmp_path / "checkpoint").write_bytes(
            content if dice.random() < 0.8 else content[: dice.randrange(len(content))]
        )
        checkpoint = state()
        manager = open_checkpoint_manager(checkpoint, tmp_path, TrainingSettings())
        restored = restore_latest_checkpoint(checkpoint, tmp_path)
        assert restored in ("ckpt-10", "ckpt-20", "ckpt-30")
        assert value_of(checkpoint) == float(restored.removeprefix("ckpt-"))
        manager.save(checkpoint_number=40)
        assert restore_latest_checkpoint(checkpoint, tmp_path) == "ckpt-40"
        for path in tmp_path.iterdir():
            path.unlink()
        for path, content in kept.items():
            path.write_bytes(content)


def test_a_latest_one_that_is_named_and_not_there_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in save(tmp_path).glob("ckpt-30.*"):
        path.unlink()
    assert restore_latest_checkpoint(state(), tmp_path) == "ckpt-20"
    assert f"checkpoint {tmp_path / 'ckpt-30'} is missing; going on from ckpt-20" in caplog.text
    for path in tmp_path.glob("ckpt-*"):
        path.unlink()
    with pytest.raises(ArtifactError, match="none of the 0 checkpoints can be used: ckpt-30 is missing"):
        restore_latest_checkpoint(state(), tmp_path)


def test_one_that_does_not_fit_is_passed_over_as_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = state()
    misfit = lambda: "another's" if value_of(checkpoint) > 10 else None  # noqa: E731
    assert restore_latest_checkpoint(checkpoint, save(tmp_path), misfit=misfit) == "ckpt-10"
    assert [record.getMessage() for record in caplog.records] == [
        f"checkpoint {tmp_path / 'ckpt-30'} is another's; going on from ckpt-20",
        f"checkpoint {tmp_path / 'ckpt-20'} is another's; going on from ckpt-10",
    ]


@pytest.mark.parametrize(
    "content", [b"", b'model_checkpoint_path: "ck', b"\xff\x00", None], ids=["empty", "cut", "garbage", "missing"]
)
def test_a_damaged_state_file_costs_no_checkpoint(tmp_path: Path, content: bytes | None) -> None:
    listed = save(tmp_path) / "checkpoint"
    listed.unlink() if content is None else listed.write_bytes(content)
    checkpoint = state()
    manager = open_checkpoint_manager(checkpoint, tmp_path, TrainingSettings())
    assert restore_latest_checkpoint(checkpoint, tmp_path) == "ckpt-30"
    assert whole(tmp_path) == list(NUMBERS)
    manager.save(checkpoint_number=40)
    assert restore_latest_checkpoint(checkpoint, tmp_path) == "ckpt-40"


# What a kill leaves at each moment of a write: the parts in a folder of their own, the data without its index, a whole
# checkpoint that the state file does not list, the state file's own temporary file.
STRAYS = {
    "parts": ["ckpt-40_temp/part-00000-of-00001.index", "ckpt-40_temp/part-00000-of-00001.data-00000-of-00001"],
    "parts of an older number": ["ckpt-15_temp/part-00000-of-00001.index"],
    "unfinished files": ["ckpt-40.data-00000-of-00001.tempstate123456", "ckpt-40.index.tempstate98"],
    "data alone": ["ckpt-40.data-00000-of-00001"],
    "unlisted": ["ckpt-40.data-00000-of-00001", "ckpt-40.index"],
    "state": ["checkpoint.tmp0123456789abcdef"],
}


@pytest.mark.parametrize("left", STRAYS)
def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path, left: str) -> None:
    save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = sorted(tmp_path.iterdir())
    for name in STRAYS[left]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    checkpoint = state()
    open_checkpoint_manager(checkpoint, tmp_path, TrainingSettings())
    assert sorted(tmp_path.iterdir()) == before
    assert restore_latest_checkpoint(checkpoint, tmp_path) == "ckpt-30"


def test_those_kept_for_good_are_no_strays(tmp_path: Path) -> None:
    save(tmp_path, (5, 6, 7), TrainingSettings(keep_checkpoints=1))
    (tmp_path / "ckpt-2.index").write_bytes(b"of an earlier hour")
    (tmp_path / "ckpt-2.data-00000-of-00001").write_bytes(b"of an earlier hour")
    open_checkpoint_manager(state(), tmp_path, TrainingSettings())
    assert whole(tmp_path) == [2, 7]


def test_a_scorer_may_read_a_part_but_not_more_than_was_saved(tmp_path: Path) -> None:
    save(tmp_path)
    part = tf.train.Checkpoint(values=tf.Variable([0.0] * 50))
    assert restore_latest_checkpoint(part, tmp_path, partial=True) == "ckpt-30"
    assert part.values.numpy()[0] == 30.0
    more = tf.train.Checkpoint(values=tf.Variable([0.0] * 50), unknown=tf.Variable(1.0))
    with pytest.raises(ArtifactError, match="can be used"):
        restore_latest_checkpoint(more, tmp_path, partial=True)


def test_the_fingerprint_of_weights_sees_every_bit_and_name() -> None:
    make = NetworkSettings(embedding_size=2, rnn_units=2, ngram_buckets=8)
    network, same = build_network(make, 5, seed=1), build_network(make, 5, seed=1)
    fingerprint = weights_sha256(network)
    assert weights_sha256(same) == fingerprint
    assert weights_sha256(build_network(make, 6, seed=1)) != fingerprint
    for weight in network.weights:
        value = weight.numpy()
        weight.assign(np.nextafter(value, np.float32(9)))
        assert weights_sha256(network) != fingerprint
        weight.assign(value)
    assert weights_sha256(network) == fingerprint
