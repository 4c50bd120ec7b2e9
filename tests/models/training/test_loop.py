"""Tests of training: learning, early stopping, checkpoints, and resuming with the same bits after a kill."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import logging
import math
import multiprocessing
import runpy
import signal
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from new_process import KillPoint, kill_at
from sklearn.model_selection import StratifiedKFold
from tensorflow.core.util import event_pb2
from toy_training import NETWORK, SETTINGS, VOCABULARY, messages

from models.errors import InputError
from models.inference.scorer import network_logits
from models.network.network import build_network, recurrent_part
from models.settings import NetworkSettings, TrainingSettings
from models.text.encoder import TextEncoder, encode_messages
from models.training.batches import epoch_batches
from models.training.checkpoints import CHECKPOINTS, restore_latest_checkpoint, weights_sha256
from models.training.epoch_limit import EpochLimit
from models.training.folds import HELD_OUT
from models.training.held_out import compute_held_out_logits
from models.training.history import HISTORY, Epoch, read_history
from models.training.job import LabelledMessages, Progress
from models.training.loop import TENSORBOARD, TrainingResult, train

# As in `start_tensorflow`: otherwise TensorFlow lists every value of an unreadable checkpoint when Python exits.
logging.getLogger("tensorflow").setLevel("ERROR")

STEPS_PER_EPOCH = 8
# With 8 steps per epoch: every third step, the end of each epoch, and the best weights at the end.
CHECKPOINT_NUMBERS = [3, 6, 8, 9, 12, 15, 16, 18, 21, 24, 27, 30, 32, 33]


def train_toy(
    folder: Path,
    *,
    network: NetworkSettings = NETWORK,
    training: TrainingSettings = SETTINGS,
    noise: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
    limit: EpochLimit | None = None,
) -> TrainingResult:
    return train(
        messages(60, 0), messages(30, 1, noise=noise), VOCABULARY, network, training, folder, on_progress, limit
    )


def hold_out_toy(folder: Path, on_progress: Callable[[Progress], None] = lambda _: None) -> np.ndarray:
    short = dataclasses.replace(SETTINGS, epochs=2)
    return compute_held_out_logits(messages(60, 0), VOCABULARY, NETWORK, short, folder, on_progress)


def compute_logits(network: keras.Model, part: LabelledMessages) -> np.ndarray:
    encoder = TextEncoder(VOCABULARY, NETWORK.ngram_vectors)
    return network_logits(network, encode_messages(encoder, part.texts))


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that was not killed."""

    folder: Path
    result: TrainingResult
    progress: list[Progress]

    @property
    def sha256(self) -> str:
        return weights_sha256(self.result.network)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, progress = tmp_path_factory.mktemp("reference"), []
    result = train_toy(folder, on_progress=progress.append)
    return Run(folder, result, progress)


def without_seconds(history: list[Epoch]) -> list[Epoch]:
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in history]


def checkpoint_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / CHECKPOINTS).iterdir())


def restore_network(folder: Path, network: NetworkSettings = NETWORK) -> keras.Model:
    """Restores the network of the latest checkpoint in a folder, as a scorer does."""
    fresh = build_network(network, len(VOCABULARY), seed=99)
    restore_latest_checkpoint(tf.train.Checkpoint(model=fresh), folder / CHECKPOINTS, partial=True)
    return fresh


def test_a_separable_set_is_learned(reference: Run) -> None:
    last = reference.result.history[-1]
    # The messages are augmented and the labels smoothed, so the loss cannot fall to 0.
    assert last.loss < 0.85 * reference.result.history[0].loss
    assert last.validation_pr_auc > 0.95


def test_the_history_has_every_epoch(reference: Run) -> None:
    history = reference.result.history
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4]
    assert {epoch.steps for epoch in history} == {STEPS_PER_EPOCH}
    assert read_history(reference.folder / HISTORY) == history
    with open(reference.folder / HISTORY, newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == [field.name for field in dataclasses.fields(Epoch)]


def test_an_epoch_is_best_if_its_validation_loss_is_the_lowest_so_far(reference: Run) -> None:
    history = reference.result.history
    lowest = [
        min((epoch.validation_loss for epoch in history[:index]), default=math.inf) for index in range(len(history))
    ]
    assert [epoch.best for epoch in history] == [
        epoch.validation_loss < low for epoch, low in zip(history, lowest, strict=True)
    ]
    assert reference.result.best_epoch == max(epoch.epoch for epoch in history if epoch.best)


def test_the_accuracies_are_the_shares_of_logits_with_the_right_sign(tmp_path: Path) -> None:
    # Without randomness, and with steps too small to change a verdict, the network is the same in every step.
    plain = dataclasses.replace(NETWORK, dropout=0.0, word_dropout=0.0)
    slow = dataclasses.replace(SETTINGS, learning_rate=1e-7, augmentation=0.0, epochs=1)
    result = train_toy(tmp_path, network=plain, training=slow)
    (epoch,) = result.history
    for part, accuracy in ((messages(60, 0), epoch.accuracy), (messages(30, 1), epoch.validation_accuracy)):
        logits = compute_logits(recurrent_part(result.network), part)
        assert accuracy == np.mean((logits > 0) == (part.labels == 1))


def test_the_log_line_of_an_epoch_has_loss_and_accuracy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "spamscore"):
        (epoch,) = train_toy(tmp_path, training=dataclasses.replace(SETTINGS, epochs=1)).history
    assert (
        f"epoch 1/1: loss {epoch.loss:.4f}, accuracy {epoch.accuracy:.4f}, "
        f"validation loss {epoch.validation_loss:.4f}, validation accuracy {epoch.validation_accuracy:.4f}, "
        f"validation PR AUC {epoch.validation_pr_auc:.4f} (best)"
    ) in caplog.messages


def test_tensorboard_has_the_losses_of_every_epoch(reference: Run) -> None:
    files = list((reference.folder / TENSORBOARD).glob("events.out.tfevents.*"))
    records = tf.data.TFRecordDataset([str(path) for path in files]).as_numpy_iterator()
    events = [event_pb2.Event.FromString(record) for record in records]
    scalars = {
        (value.tag, event.step): tf.make_ndarray(value.tensor).item()
        for event in events
        for value in event.summary.value
    }
    for epoch in reference.result.history:
        for tag in ("loss", "accuracy", "validation_loss", "validation_accuracy", "validation_pr_auc"):
            assert scalars[tag, epoch.epoch] == pytest.approx(getattr(epoch, tag), rel=1e-6)


def test_the_callback_is_called_after_every_step(reference: Run) -> None:
    assert [(step.epoch, step.step) for step in reference.progress] == list(itertools.product(range(1, 5), range(1, 9)))
    assert {(step.epochs, step.steps) for step in reference.progress} == {(4, STEPS_PER_EPOCH)}
    assert all(step.loss > 0 for step in reference.progress)


def test_the_last_five_checkpoints_are_kept_and_the_last_has_the_best_weights(reference: Run) -> None:
    expected = [
        f"ckpt-{number}.{part}" for number in CHECKPOINT_NUMBERS[-5:] for part in ("data-00000-of-00001", "index")
    ]
    assert checkpoint_files(reference.folder) == sorted(["checkpoint", *expected])
    assert reference.result.checkpoint == f"ckpt-{CHECKPOINT_NUMBERS[-1]}"
    assert weights_sha256(restore_network(reference.folder)) == reference.sha256


def test_checkpoints_are_written_at_the_set_interval(tmp_path: Path) -> None:
    result = train_toy(tmp_path, training=dataclasses.replace(SETTINGS, keep_checkpoints=1000))
    numbers = sorted(int(path.stem.removeprefix("ckpt-")) for path in (tmp_path / CHECKPOINTS).glob("*.index"))
    assert numbers == CHECKPOINT_NUMBERS
    assert result.checkpoint == f"ckpt-{numbers[-1]}"


def test_the_checkpoint_interval_changes_no_weight(reference: Run, tmp_path: Path) -> None:
    infrequent = dataclasses.replace(SETTINGS, checkpoint_steps=1000, keep_checkpoints=1)
    assert weights_sha256(train_toy(tmp_path, training=infrequent).network) == reference.sha256


def test_another_seed_gives_other_weights(reference: Run, tmp_path: Path) -> None:
    other = dataclasses.replace(SETTINGS, seed=4, epochs=1)
    assert weights_sha256(train_toy(tmp_path, training=other).network) != reference.sha256


def test_a_finished_run_started_again_does_not_train(reference: Run) -> None:
    files, steps = checkpoint_files(reference.folder), []
    repeated = train_toy(reference.folder, on_progress=steps.append)
    assert steps == []
    assert weights_sha256(repeated.network) == reference.sha256
    assert (repeated.checkpoint, repeated.best_epoch) == (reference.result.checkpoint, reference.result.best_epoch)
    assert repeated.history == reference.result.history
    assert checkpoint_files(reference.folder) == files


def test_early_stopping_keeps_the_best_weights_as_the_last_checkpoint(tmp_path: Path) -> None:
    patient = TrainingSettings(learning_rate=0.1, batch_size=8, epochs=40, patience=3, seed=3, augmentation=0.0)
    result = train_toy(tmp_path, training=patient, noise=True)
    assert len(result.history) == result.best_epoch + patient.patience < patient.epochs
    network, validation = restore_network(tmp_path), messages(30, 1, noise=True)
    logits = compute_logits(recurrent_part(network), validation)
    loss = np.mean(np.logaddexp(0.0, np.where(validation.labels == 1, -logits, logits)))
    assert loss == pytest.approx(result.history[result.best_epoch - 1].validation_loss, abs=1e-6)
    assert loss == pytest.approx(min(epoch.validation_loss for epoch in result.history), abs=1e-6)
    assert weights_sha256(network) == weights_sha256(result.network)


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("label", [0, 1])
def test_a_part_with_only_one_label_is_refused_before_any_work(tmp_path: Path, part: str, label: int) -> None:
    parts = {"training": messages(12, 0), "validation": messages(6, 1)}
    count = len(parts[part].labels)
    parts[part] = LabelledMessages(parts[part].texts, np.full(count, label, np.int32))
    with pytest.raises(InputError) as error:
        train(parts["training"], parts["validation"], VOCABULARY, NETWORK, SETTINGS, tmp_path)
    counts = f"{count} spam and 0 ham" if label else f"0 spam and {count} ham"
    assert f"the {part} part has {counts} messages" in str(error.value)
    assert "[split]" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_part_is_refused(tmp_path: Path) -> None:
    empty = LabelledMessages([], np.zeros(0, np.int32))
    with pytest.raises(InputError, match="0 spam and 0 ham"):
        train(messages(12, 0), empty, VOCABULARY, NETWORK, SETTINGS, tmp_path)


lengths = st.lists(st.integers(1, 200), min_size=1, max_size=300).map(lambda values: np.array(values, np.int64))


@settings(deadline=None)
@given(lengths=lengths, batch_size=st.integers(1, 40), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 100))
def test_an_epoch_has_each_row_once_and_at_most_one_batch_is_not_full(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int
) -> None:
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == math.ceil(len(lengths) / batch_size)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


@settings(deadline=None)
@given(lengths=lengths, batch_size=st.integers(1, 40), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 100))
def test_the_order_depends_only_on_seed_and_epoch(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> None:
    first = epoch_batches(lengths, batch_size, seed, epoch)
    np.random.default_rng().random()  # other random numbers must not matter
    repeated = epoch_batches(lengths.copy(), batch_size, seed, epoch)
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in repeated]


def test_another_epoch_or_seed_has_another_order() -> None:
    lengths = np.arange(1, 101)
    orders = [epoch_batches(lengths, 10, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({tuple(np.concatenate(order).tolist()) for order in orders}) == 4


def test_a_batch_has_messages_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 320)
    spread = np.mean([np.ptp(lengths[rows]) for rows in epoch_batches(lengths, 20, seed=0, epoch=0)])
    assert spread < 20


@pytest.mark.parametrize(("damaged", "fallback"), [(1, "ckpt-21"), pytest.param(3, "ckpt-16", marks=pytest.mark.slow)])
def test_damaged_checkpoints_are_skipped_and_the_result_is_the_same(
    reference: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: int, fallback: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, on_progress=stop_at(epoch=3, step=7))
    for number in [15, 16, 18, 21, 23][-damaged:]:
        path = tmp_path / CHECKPOINTS / f"ckpt-{number}.data-00000-of-00001"
        path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING, "spamscore"):
        result = train_toy(tmp_path)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == damaged
    assert f"{tmp_path / CHECKPOINTS / 'ckpt-23'} is damaged" in warnings[0]
    assert warnings[-1].endswith(f"falling back to {fallback}")
    assert weights_sha256(result.network) == reference.sha256
    assert without_seconds(result.history) == without_seconds(reference.result.history)


@pytest.mark.parametrize(
    ("part", "damage"),
    [("index", lambda path: path.write_bytes(b"")), ("data-00000-of-00001", Path.unlink)],
    ids=["empty index", "missing data"],
)
def test_without_a_usable_checkpoint_training_starts_again_with_a_warning_and_the_same_result(
    reference: Run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    part: str,
    damage: Callable[[Path], object],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, on_progress=stop_at(epoch=2, step=3))
    for path in (tmp_path / CHECKPOINTS).glob(f"*.{part}"):
        damage(path)
    progress: list[Progress] = []
    with caplog.at_level(logging.WARNING, "spamscore"):
        result = train_toy(tmp_path, on_progress=progress.append)
    assert (progress[0].epoch, progress[0].step) == (1, 1)
    assert "no checkpoint can be used; moved them to checkpoints.damaged, training starts again" in caplog.text
    assert weights_sha256(result.network) == reference.sha256
    assert without_seconds(result.history) == without_seconds(reference.result.history)
    assert checkpoint_files(tmp_path) == checkpoint_files(reference.folder)


@pytest.mark.parametrize(("last_step", "next_step"), [((2, 5), (2, 6)), ((2, 8), (3, 1)), ((1, 3), (1, 4))])
def test_a_run_ended_by_the_callback_resumes_at_the_next_step(
    reference: Run, tmp_path: Path, last_step: tuple[int, int], next_step: tuple[int, int]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, on_progress=stop_at(*last_step))
    progress: list[Progress] = []
    result = train_toy(tmp_path, on_progress=progress.append)
    assert (progress[0].epoch, progress[0].step) == next_step
    assert weights_sha256(result.network) == reference.sha256
    assert without_seconds(result.history) == without_seconds(reference.result.history)


def test_a_lost_history_changes_no_weight(reference: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, on_progress=stop_at(epoch=3, step=2))
    (tmp_path / HISTORY).unlink()
    result = train_toy(tmp_path)
    assert weights_sha256(result.network) == reference.sha256
    assert without_seconds(result.history) == without_seconds(reference.result.history)[2:]


def test_a_training_that_is_stopped_finishes_its_epoch_and_keeps_the_best_weights(
    reference: Run, tmp_path: Path
) -> None:
    limit = EpochLimit(tmp_path)

    def on_progress(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (2, 3):
            limit.stop_after(progress.epoch)

    result = train_toy(tmp_path, on_progress=on_progress, limit=limit)
    assert without_seconds(result.history) == without_seconds(reference.result.history[:2])
    assert result.best_epoch == max(epoch.epoch for epoch in result.history if epoch.best)
    assert result.checkpoint == "ckpt-17"
    # Started again, it is finished, as if it had run all epochs.
    repeated = train_toy(tmp_path, limit=EpochLimit(tmp_path))
    assert weights_sha256(repeated.network) == weights_sha256(result.network)
    assert len(repeated.history) == 2


def test_a_training_that_was_stopped_and_then_killed_stops_at_the_same_epoch_when_started_again(tmp_path: Path) -> None:
    limit = EpochLimit(tmp_path)
    limit.stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, on_progress=stop_at(2, 5), limit=limit)
    assert len(train_toy(tmp_path, limit=EpochLimit(tmp_path)).history) == 2


def test_a_limit_set_in_a_held_out_fold_applies_to_all_later_networks(tmp_path: Path) -> None:
    limit, seen = EpochLimit(tmp_path), []

    def on_progress(progress: Progress) -> None:
        seen.append((progress.fold, progress.epoch))
        limit.stop_after(1)

    compute_held_out_logits(messages(60, 0), VOCABULARY, NETWORK, SETTINGS, tmp_path, on_progress, limit)
    assert set(seen) == {(1, 1), (2, 1)}
    assert len(train_toy(tmp_path, limit=limit).history) == 1


def test_the_callback_can_save_a_checkpoint_at_any_step_without_changing_a_weight(
    reference: Run, tmp_path: Path
) -> None:
    infrequent = dataclasses.replace(SETTINGS, checkpoint_steps=1000)
    written: list[str] = []

    def on_progress(progress: Progress) -> None:
        if progress.epoch == 1 or progress.step == STEPS_PER_EPOCH:
            written.append(progress.save())
            assert f"{written[-1]}.index" in checkpoint_files(tmp_path)

    result = train_toy(tmp_path, training=infrequent, on_progress=on_progress)
    assert written == [f"ckpt-{step}" for step in (1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 32)]
    assert weights_sha256(result.network) == weights_sha256(reference.result.network)


def stop_at(epoch: int, step: int) -> Callable[[Progress], None]:
    def on_progress(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (epoch, step):
            raise KeyboardInterrupt

    return on_progress


@pytest.mark.slow
def test_the_default_architecture_resumes_bit_for_bit(tmp_path: Path) -> None:
    network = dataclasses.replace(NetworkSettings(), embedding_size=3, rnn_units=2, ngram_buckets=64)
    short = dataclasses.replace(SETTINGS, epochs=1)
    uninterrupted = train_toy(tmp_path / "whole", network=network, training=short)
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "stopped", network=network, training=short, on_progress=stop_at(epoch=1, step=5))
    resumed = train_toy(tmp_path / "stopped", network=network, training=short)
    assert weights_sha256(resumed.network) == weights_sha256(uninterrupted.network)


FILES = "tensorflow.python.checkpoint.checkpoint_management"
MANAGER = "tensorflow:train.CheckpointManager"
KILL_POINTS = {
    "before the first checkpoint": ("models.training.loop:_Trainer._report", 2, "after"),
    "between steps": ("models.training.loop:_Trainer._report", 13, "after"),
    "during the first checkpoint": ("tensorflow.python.ops.gen_io_ops:merge_v2_checkpoints", 1, "before"),
    "during a checkpoint": ("tensorflow.python.ops.gen_io_ops:merge_v2_checkpoints", 5, "before"),
    "a checkpoint is complete but not recorded": (f"{MANAGER}._record_state", 9, "before"),
    "while an old checkpoint is deleted": (f"{FILES}:_delete_file_if_exists", 3, "after"),
    "between the history and the checkpoint of an epoch": ("models.training.loop:write_history", 2, "after"),
    "between epochs": (f"{MANAGER}.save", 7, "after"),
    "during the last checkpoint": ("tensorflow.python.ops.gen_io_ops:merge_v2_checkpoints", 14, "before"),
    "after the last checkpoint": (f"{MANAGER}.save", 14, "after"),
}  # fmt: skip
QUICK = ("between steps", "during a checkpoint", "between the history and the checkpoint of an epoch")
JOB = "__job__"


def run_in_processes(
    jobs: list[tuple[Path, KillPoint | None]], job: str = "train_toy", max_parallel: int = 4
) -> list[int]:
    """Runs a job for each folder in a new process, which kills itself at the kill point, if any; returns exit codes."""
    context = multiprocessing.get_context("forkserver")
    # Modules are imported once. Each process is a fork of a process that has computed nothing yet.
    context.set_forkserver_preload(["pytest", "hypothesis", "models.training.loop"])
    processes = [
        context.Process(target=runpy.run_path, args=(__file__, {"ARGUMENTS": (job, *arguments)}, JOB))
        for arguments in jobs
    ]
    for first in range(0, len(processes), max_parallel):
        for process in processes[first : first + max_parallel]:
            process.start()
        for process in processes[first : first + max_parallel]:
            process.join()
    return [process.exitcode for process in processes]


def assert_same_as(folder: Path, reference: Run) -> None:
    assert weights_sha256(restore_network(folder)) == reference.sha256
    assert without_seconds(read_history(folder / HISTORY)) == without_seconds(reference.result.history)
    assert checkpoint_files(folder) == checkpoint_files(reference.folder)
    assert {path.name for path in folder.iterdir()} == {CHECKPOINTS, HISTORY, TENSORBOARD}


@pytest.mark.parametrize(
    "kill_point", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in KILL_POINTS]
)
def test_a_killed_run_started_again_ends_with_the_same_bits(reference: Run, tmp_path: Path, kill_point: str) -> None:
    codes = [run_in_processes([(tmp_path, kill)])[0] for kill in (KILL_POINTS[kill_point], None)]
    assert codes == [-signal.SIGKILL, 0]
    assert_same_as(tmp_path, reference)


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_same_bits(reference: Run, tmp_path: Path) -> None:
    for kill_point in ("during a checkpoint", "between steps"):
        assert run_in_processes([(tmp_path, KILL_POINTS[kill_point])]) == [-signal.SIGKILL]
    assert run_in_processes([(tmp_path, None)]) == [0]
    assert_same_as(tmp_path, reference)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Held-out scores of a run that was not killed."""

    folder: Path
    logits: np.ndarray
    progress: list[Progress]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    folder, progress = tmp_path_factory.mktemp("held_out"), []
    return HeldOut(folder, hold_out_toy(folder, progress.append), progress)


def held_out_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_each_fold_is_scored_by_a_network_trained_on_the_others(held_out: HeldOut, tmp_path: Path) -> None:
    training = messages(60, 0)
    folds = StratifiedKFold(2, shuffle=True, random_state=SETTINGS.seed).split(training.texts, training.labels)
    short = dataclasses.replace(SETTINGS, epochs=2)
    for number, (rows, held_out_rows) in enumerate(folds):
        fold = training.select(held_out_rows)
        result = train(training.select(rows), fold, VOCABULARY, NETWORK, short, tmp_path / str(number))
        np.testing.assert_array_equal(held_out.logits[held_out_rows], compute_logits(result.network, fold))
    assert (held_out.logits.shape, held_out.logits.dtype) == ((60,), np.float32)


def test_the_progress_has_the_number_of_the_held_out_fold(held_out: HeldOut) -> None:
    assert [step.fold for step in held_out.progress] == [1] * 8 + [2] * 8


def test_only_the_logits_of_held_out_folds_stay_and_are_not_computed_again(held_out: HeldOut) -> None:
    assert held_out_files(held_out.folder) == [HELD_OUT, f"{HELD_OUT}/1.npy", f"{HELD_OUT}/2.npy"]
    steps: list[Progress] = []
    np.testing.assert_array_equal(hold_out_toy(held_out.folder, steps.append), held_out.logits)
    assert steps == []


def test_fewer_messages_of_a_label_than_folds_are_refused_before_any_work(tmp_path: Path) -> None:
    few = LabelledMessages(["win"] * 2 + ["mum"] * 9, np.array([1] * 2 + [0] * 9, np.int32))
    with pytest.raises(InputError, match=r"held_out_folds = 3: .*received 2 of one.*set held_out_folds = 0"):
        compute_held_out_logits(few, VOCABULARY, NETWORK, dataclasses.replace(SETTINGS, held_out_folds=3), tmp_path)
    assert list(tmp_path.iterdir()) == []


HELD_OUT_KILL_POINTS: dict[str, KillPoint] = {
    "in the first fold": ("models.training.loop:_Trainer._report", 6, "after"),
    "while the logits of the first fold are written": ("numpy:save", 1, "after"),
    "before the training of the first fold is deleted": ("models.training.held_out:_write_logits", 1, "after"),
    "in the second fold": ("models.training.loop:_Trainer._report", 13, "after"),
}


@pytest.fixture(scope="module")
def killed_held_out_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int, int]]:
    """Returns for each kill point the folder of a run killed there and started again, and both exit codes."""
    folders = {kill_point: tmp_path_factory.mktemp("killed_held_out") for kill_point in HELD_OUT_KILL_POINTS}
    jobs = [(folders[kill_point], HELD_OUT_KILL_POINTS[kill_point]) for kill_point in folders]
    first_codes = run_in_processes(jobs, "hold_out_toy")
    second_codes = run_in_processes([(folders[kill_point], None) for kill_point in folders], "hold_out_toy")
    return dict(zip(folders, zip(folders.values(), first_codes, second_codes, strict=True), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kill_point", HELD_OUT_KILL_POINTS)
def test_held_out_folds_killed_and_started_again_end_with_the_same_logits(
    held_out: HeldOut, killed_held_out_runs: dict[str, tuple[Path, int, int]], kill_point: str
) -> None:
    folder, first, second = killed_held_out_runs[kill_point]
    assert (first, second) == (-signal.SIGKILL, 0)
    assert held_out_files(folder) == held_out_files(held_out.folder)
    np.testing.assert_array_equal(hold_out_toy(folder), held_out.logits)


@pytest.mark.slow
def test_held_out_folds_ended_by_the_callback_resume_at_the_next_step(held_out: HeldOut, tmp_path: Path) -> None:
    def on_progress(progress: Progress) -> None:
        if (progress.fold, progress.epoch, progress.step) == (2, 1, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hold_out_toy(tmp_path, on_progress)
    steps: list[Progress] = []
    np.testing.assert_array_equal(hold_out_toy(tmp_path, steps.append), held_out.logits)
    assert (steps[0].fold, steps[0].epoch, steps[0].step) == (2, 1, 4)


if __name__ == JOB:
    job, folder, kill_point = ARGUMENTS  # noqa: F821 - passed by run_in_processes
    if kill_point:
        kill_at(*kill_point)
    globals()[job](folder)
