"""Tests of checkpoints: retention, damaged files, and incomplete files after a kill."""

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

# As in `start_tensorflow`: otherwise TensorFlow lists every value of an unreadable checkpoint when Python exits.
logging.getLogger("tensorflow").setLevel("ERROR")

NUMBERS = (10, 20, 30)


def new_checkpoint(value: float = 0.0) -> tf.train.Checkpoint:
    """Returns a small checkpoint like that of a run."""
    return tf.train.Checkpoint(values=tf.Variable([value] * 50), extra=tf.Variable(value))


def read_value(checkpoint: tf.train.Checkpoint) -> float:
    (value,) = set(checkpoint.values.numpy().tolist())
    assert checkpoint.extra.numpy() == value
    return value


def save(folder: Path, numbers: tuple[int, ...] = NUMBERS, settings: TrainingSettings | None = None) -> Path:
    """Saves checkpoints whose value is their number."""
    checkpoint = new_checkpoint()
    manager = open_checkpoint_manager(checkpoint, folder, settings or TrainingSettings())
    for number in numbers:
        checkpoint.values.assign([float(number)] * 50)
        checkpoint.extra.assign(float(number))
        manager.save(checkpoint_number=number)
    return folder


def list_numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("ckpt-")) for path in folder.glob("ckpt-*.index"))


def test_the_latest_checkpoint_is_restored(tmp_path: Path) -> None:
    checkpoint = new_checkpoint()
    assert restore_latest_checkpoint(checkpoint, save(tmp_path)) == "ckpt-30"
    assert read_value(checkpoint) == 30.0


def test_without_checkpoints_nothing_is_restored(tmp_path: Path) -> None:
    checkpoint = new_checkpoint(1.0)
    assert restore_latest_checkpoint(checkpoint, tmp_path) is None
    assert restore_latest_checkpoint(checkpoint, tmp_path / "missing") is None
    assert read_value(checkpoint) == 1.0


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_latest_checkpoints_are_kept(tmp_path: Path, keep: int) -> None:
    save(tmp_path, tuple(range(1, 9)), TrainingSettings(keep_checkpoints=keep))
    assert list_numbers(tmp_path) == list(range(9 - keep, 9))


def test_one_checkpoint_every_few_hours_is_kept_permanently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1_000_000.0)
    clock.time = lambda: clock.now
    monkeypatch.setattr(sys.modules[tf.train.CheckpointManager.__module__], "time", clock)
    settings = TrainingSettings(keep_checkpoints=2, keep_checkpoint_every_hours=3.0)
    checkpoint = new_checkpoint()
    manager = open_checkpoint_manager(checkpoint, tmp_path, settings)
    for hour in range(1, 13):
        clock.now += 3600
        manager.save(checkpoint_number=hour)
        if hour == 6:  # a run that is started again continues to count
            manager = open_checkpoint_manager(checkpoint, tmp_path, settings)
    assert list_numbers(tmp_path) == [3, 6, 9, 11, 12]


def test_checkpoint_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    checkpoint = new_checkpoint()
    assert restore_latest_checkpoint(checkpoint, save(tmp_path, (9, 10, 100))) == "ckpt-100"


DAMAGES = {
    "truncated data": (".data-00000-of-00001", lambda content: content[: len(content) // 2]),
    "empty data": (".data-00000-of-00001", lambda _: b""),
    "a flipped bit in the data": (".data-00000-of-00001", lambda content: bytes([content[0] ^ 1]) + content[1:]),
    "truncated index": (".index", lambda content: content[: len(content) // 2]),
    "empty index": (".index", lambda _: b""),
    "a flipped bit in the index": (".index", lambda content: content[:20] + bytes([content[20] ^ 4]) + content[21:]),
    "an index of another format": (".index", lambda _: b"no such thing" * 50),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_a_warning_that_names_it_and_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    ending, change = DAMAGES[damage]
    path = save(tmp_path) / f"ckpt-30{ending}"
    path.write_bytes(change(path.read_bytes()))
    checkpoint = new_checkpoint()
    with caplog.at_level(logging.WARNING, "spamscore"):
        assert restore_latest_checkpoint(checkpoint, tmp_path) == "ckpt-20"
    assert read_value(checkpoint) == 20.0
    (record,) = caplog.records
    assert f"{tmp_path / 'ckpt-30'} is damaged" in record.getMessage()
    assert "falling back to ckpt-20" in record.getMessage()


def test_a_checkpoint_without_data_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (save(tmp_path) / "ckpt-30.data-00000-of-00001").unlink()
    assert restore_latest_checkpoint(new_checkpoint(), tmp_path) == "ckpt-20"
    assert "ckpt-30 is damaged" in caplog.text


def test_no_damage_goes_undetected(tmp_path: Path) -> None:
    rng, checkpoint = random.Random(3), new_checkpoint()
    files = [save(tmp_path) / f"ckpt-30{ending}" for ending in (".index", ".data-00000-of-00001")]
    for _ in range(120):
        path = rng.choice(files)
        content = path.read_bytes()
        damaged = bytearray(content)
        if rng.random() < 0.3:
            damaged = damaged[: rng.randrange(len(damaged))]
        else:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        restored = restore_latest_checkpoint(checkpoint, tmp_path)
        assert (restored, read_value(checkpoint)) in (("ckpt-30", 30.0), ("ckpt-20", 20.0))
        path.write_bytes(content)


def test_without_a_usable_checkpoint_the_error_says_how_many_there_are_and_how_to_fix_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in save(tmp_path / "run" / "checkpoints").glob("*.data*"):
        path.write_bytes(b"")
    with pytest.raises(ArtifactError, match="none of the 3 checkpoints can be used") as error:
        restore_latest_checkpoint(new_checkpoint(), tmp_path / "run" / "checkpoints")
    assert f"or delete {tmp_path / 'run'} and run TrainModel again" in str(error.value)
    assert "there is no earlier checkpoint" in caplog.text


def test_a_checkpoint_is_restored_whatever_bit_of_the_state_file_is_flipped(tmp_path: Path) -> None:
    save(tmp_path)
    originals = {path: path.read_bytes() for path in tmp_path.iterdir()}
    rng = random.Random(5)
    for _ in range(150):
        content = bytearray(originals[tmp_path / "checkpoint"])
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / "checkpoint").write_bytes(content if rng.random() < 0.8 else content[: rng.randrange(len(content))])
        checkpoint = new_checkpoint()
        manager = open_checkpoint_manager(checkpoint, tmp_path, TrainingSettings())
        restored = restore_latest_checkpoint(checkpoint, tmp_path)
        assert restored in ("ckpt-10", "ckpt-20", "ckpt-30")
        assert read_value(checkpoint) == float(restored.removeprefix("ckpt-"))
        manager.save(checkpoint_number=40)
        assert restore_latest_checkpoint(checkpoint, tmp_path) == "ckpt-40"
        for path in tmp_path.iterdir():
            path.unlink()
        for path, content in originals.items():
            path.write_bytes(content)


def test_a_missing_latest_checkpoint_gives_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in save(tmp_path).glob("ckpt-30.*"):
        path.unlink()
    assert restore_latest_checkpoint(new_checkpoint(), tmp_path) == "ckpt-20"
    assert f"checkpoint {tmp_path / 'ckpt-30'} is missing; falling back to ckpt-20" in caplog.text
    for path in tmp_path.glob("ckpt-*"):
        path.unlink()
    with pytest.raises(ArtifactError, match="none of the 0 checkpoints can be used: ckpt-30 is missing"):
        restore_latest_checkpoint(new_checkpoint(), tmp_path)


def test_a_checkpoint_that_does_not_fit_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = new_checkpoint()
    find_mismatch = lambda: "another run's" if read_value(checkpoint) > 10 else None  # noqa: E731
    assert restore_latest_checkpoint(checkpoint, save(tmp_path), find_mismatch=find_mismatch) == "ckpt-10"
    assert [record.getMessage() for record in caplog.records] == [
        f"checkpoint {tmp_path / 'ckpt-30'} is another run's; falling back to ckpt-20",
        f"checkpoint {tmp_path / 'ckpt-20'} is another run's; falling back to ckpt-10",
    ]


@pytest.mark.parametrize(
    "content", [b"", b'model_checkpoint_path: "ck', b"\xff\x00", None], ids=["empty", "truncated", "garbage", "missing"]
)
def test_a_damaged_state_file_loses_no_checkpoint(tmp_path: Path, content: bytes | None) -> None:
    state_file = save(tmp_path) / "checkpoint"
    state_file.unlink() if content is None else state_file.write_bytes(content)
    checkpoint = new_checkpoint()
    manager = open_checkpoint_manager(checkpoint, tmp_path, TrainingSettings())
    assert restore_latest_checkpoint(checkpoint, tmp_path) == "ckpt-30"
    assert list_numbers(tmp_path) == list(NUMBERS)
    manager.save(checkpoint_number=40)
    assert restore_latest_checkpoint(checkpoint, tmp_path) == "ckpt-40"


# Files that a kill leaves at each moment of a write: the shards in their own folder, the data without its index, a
# complete checkpoint that the state file does not list, the temporary file of the state file.
STRAY_FILES = {
    "shards": ["ckpt-40_temp/part-00000-of-00001.index", "ckpt-40_temp/part-00000-of-00001.data-00000-of-00001"],
    "shards of an older number": ["ckpt-15_temp/part-00000-of-00001.index"],
    "unfinished files": ["ckpt-40.data-00000-of-00001.tempstate123456", "ckpt-40.index.tempstate98"],
    "only data": ["ckpt-40.data-00000-of-00001"],
    "not recorded": ["ckpt-40.data-00000-of-00001", "ckpt-40.index"],
    "temporary state file": ["checkpoint.tmp0123456789abcdef"],
}


@pytest.mark.parametrize("case", STRAY_FILES)
def test_incomplete_files_of_a_kill_are_removed_and_nothing_else(tmp_path: Path, case: str) -> None:
    save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = sorted(tmp_path.iterdir())
    for name in STRAY_FILES[case]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    checkpoint = new_checkpoint()
    open_checkpoint_manager(checkpoint, tmp_path, TrainingSettings())
    assert sorted(tmp_path.iterdir()) == before
    assert restore_latest_checkpoint(checkpoint, tmp_path) == "ckpt-30"


def test_permanent_checkpoints_are_not_removed(tmp_path: Path) -> None:
    save(tmp_path, (5, 6, 7), TrainingSettings(keep_checkpoints=1))
    (tmp_path / "ckpt-2.index").write_bytes(b"of an earlier hour")
    (tmp_path / "ckpt-2.data-00000-of-00001").write_bytes(b"of an earlier hour")
    open_checkpoint_manager(new_checkpoint(), tmp_path, TrainingSettings())
    assert list_numbers(tmp_path) == [2, 7]


def test_a_scorer_may_read_part_of_a_checkpoint_but_not_more_than_was_saved(tmp_path: Path) -> None:
    save(tmp_path)
    part = tf.train.Checkpoint(values=tf.Variable([0.0] * 50))
    assert restore_latest_checkpoint(part, tmp_path, partial=True) == "ckpt-30"
    assert part.values.numpy()[0] == 30.0
    more = tf.train.Checkpoint(values=tf.Variable([0.0] * 50), unknown=tf.Variable(1.0))
    with pytest.raises(ArtifactError, match="can be used"):
        restore_latest_checkpoint(more, tmp_path, partial=True)


def test_the_sha256_of_weights_depends_on_every_bit() -> None:
    architecture = NetworkSettings(embedding_size=2, rnn_units=2, ngram_buckets=8)
    network, same = build_network(architecture, 5, seed=1), build_network(architecture, 5, seed=1)
    fingerprint = weights_sha256(network)
    assert weights_sha256(same) == fingerprint
    assert weights_sha256(build_network(architecture, 6, seed=1)) != fingerprint
    for weight in network.weights:
        value = weight.numpy()
        weight.assign(np.nextafter(value, np.float32(9)))
        assert weights_sha256(network) != fingerprint
        weight.assign(value)
    assert weights_sha256(network) == fingerprint
