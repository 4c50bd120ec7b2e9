"""Training: it learns, it can be killed at any moment and ends with the same bits, it keeps what was best."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import logging
import math
import multiprocessing
import os
import pkgutil
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
from sklearn.model_selection import StratifiedKFold
from tensorflow.core.util import event_pb2

from models.errors import InputError
from models.inference.scorer import network_logits
from models.network.network import build_network, recurrent_part
from models.settings import NetworkSettings, TextSettings, TrainingSettings
from models.text.encoder import TextEncoder, encode_messages
from models.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from models.training.checkpoints import restore_latest_checkpoint, weights_sha256
from models.training.epoch_limit import EpochLimit
from models.training.held_out import compute_held_out_logits
from models.training.history import Epoch, read_history
from models.training.loop import (
    CHECKPOINTS,
    HELD_OUT,
    HISTORY,
    TENSORBOARD,
    LabelledMessages,
    Progress,
    TrainingResult,
    epoch_batches,
    train,
)

# As `start_tensorflow` has it: for a checkpoint that could not be read TensorFlow lists every value when Python ends.
logging.getLogger("tensorflow").setLevel("ERROR")

WORDS = ("win", "mum", "one", "two", "three", "four")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS), (0, 0, 6, 5, 4, 3, 2, 1), TextSettings())
# Small enough to be traced in a second; dropout is on, for its random numbers are what a killed run loses first.
NETWORK = NetworkSettings(
    cell="simple", bidirectional=False, embedding_size=4, rnn_units=4, dropout=0.3, word_dropout=0.1, ngram_buckets=64,
    ngram_vectors=16,
)  # fmt: skip
# Messages are rewritten, for which ones and how must not be lost either.
SETTINGS = TrainingSettings(
    learning_rate=0.05, batch_size=8, epochs=4, seed=3, checkpoint_steps=3, augmentation=0.3, held_out_folds=2
)
STEPS_AN_EPOCH = 8
# With 8 steps an epoch: every third step, the end of each epoch, and the best weights last.
CHECKPOINT_NUMBERS = [3, 6, 8, 9, 12, 15, 16, 18, 21, 24, 27, 30, 32, 33]


def messages(count: int, seed: int, *, noise: bool = False) -> LabelledMessages:
    """Messages of one to eight words; "win" makes spam. With noise, labels are a coin's."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 9, count)
    spam = np.arange(count) % 3 == 0
    texts = [
        " ".join(["win" if one else "mum", *random.choice(WORDS[1:], length - 1)])
        for length, one in zip(lengths, spam, strict=True)
    ]
    labels = random.permutation(spam) if noise else spam
    return LabelledMessages(texts, labels.astype(np.int32))


def train_toy(
    folder: Path,
    *,
    network: NetworkSettings = NETWORK,
    training: TrainingSettings = SETTINGS,
    noise: bool = False,
    watch: Callable[[Progress], None] = lambda _: None,
    limit: EpochLimit | None = None,
) -> TrainingResult:
    return train(messages(60, 0), messages(30, 1, noise=noise), VOCABULARY, network, training, folder, watch, limit)


def hold_out_toy(folder: Path, watch: Callable[[Progress], None] = lambda _: None) -> np.ndarray:
    short = dataclasses.replace(SETTINGS, epochs=2)
    return compute_held_out_logits(messages(60, 0), VOCABULARY, NETWORK, short, folder, watch)


def logits_by(network: keras.Model, part: LabelledMessages) -> np.ndarray:
    encoder = TextEncoder(VOCABULARY, NETWORK.ngram_buckets)
    return network_logits(network, encode_messages(encoder, part.texts))


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that was never killed."""

    folder: Path
    trained: TrainingResult
    progress: list[Progress]

    @property
    def sha256(self) -> str:
        return weights_sha256(self.trained.network)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, progress = tmp_path_factory.mktemp("reference"), []
    trained = train_toy(folder, watch=progress.append)
    return Run(folder, trained, progress)


def without_seconds(history: list[Epoch]) -> list[Epoch]:
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in history]


def checkpoint_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / CHECKPOINTS).iterdir())


def restored(folder: Path, network: NetworkSettings = NETWORK) -> keras.Model:
    """The network of a folder's latest checkpoint, as a scorer reads it."""
    fresh = build_network(network, len(VOCABULARY), seed=99)
    restore_latest_checkpoint(tf.train.Checkpoint(model=fresh), folder / CHECKPOINTS, partial=True)
    return fresh


def test_a_separable_set_is_learned(reference: Run) -> None:
    last = reference.trained.history[-1]
    # Of rewritten messages with smoothed labels, so it cannot fall to nought.
    assert last.loss < 0.75 * reference.trained.history[0].loss
    assert last.validation_pr_auc > 0.95


def test_the_history_tells_every_epoch(reference: Run) -> None:
    history = reference.trained.history
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4]
    assert {epoch.steps for epoch in history} == {STEPS_AN_EPOCH}
    assert read_history(reference.folder / HISTORY) == history
    with open(reference.folder / HISTORY, newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == [field.name for field in dataclasses.fields(Epoch)]


def test_the_best_epochs_are_those_with_a_lower_validation_loss_than_any_before(reference: Run) -> None:
    history = reference.trained.history
    lowest = [min((one.validation_loss for one in history[:at]), default=math.inf) for at in range(len(history))]
    assert [epoch.best for epoch in history] == [
        epoch.validation_loss < low for epoch, low in zip(history, lowest, strict=True)
    ]
    assert reference.trained.best_epoch == max(epoch.epoch for epoch in history if epoch.best)


def test_tensorboard_has_the_losses_of_every_epoch(reference: Run) -> None:
    files = list((reference.folder / TENSORBOARD).glob("events.out.tfevents.*"))
    records = tf.data.TFRecordDataset([str(path) for path in files]).as_numpy_iterator()
    events = [event_pb2.Event.FromString(record) for record in records]
    found = {
        (value.tag, event.step): tf.make_ndarray(value.tensor).item()
        for event in events
        for value in event.summary.value
    }
    for epoch in reference.trained.history:
        for tag in ("loss", "validation_loss", "validation_pr_auc"):
            assert found[tag, epoch.epoch] == pytest.approx(getattr(epoch, tag), rel=1e-6)


def test_whoever_watches_sees_every_step(reference: Run) -> None:
    assert [(one.epoch, one.step) for one in reference.progress] == list(itertools.product(range(1, 5), range(1, 9)))
    assert {(one.epochs, one.steps) for one in reference.progress} == {(4, STEPS_AN_EPOCH)}
    assert all(one.loss > 0 for one in reference.progress)


def test_the_last_five_checkpoints_are_kept_and_the_last_holds_the_best_weights(reference: Run) -> None:
    kept = [f"ckpt-{number}.{part}" for number in CHECKPOINT_NUMBERS[-5:] for part in ("data-00000-of-00001", "index")]
    assert checkpoint_files(reference.folder) == sorted(["checkpoint", *kept])
    assert reference.trained.checkpoint == f"ckpt-{CHECKPOINT_NUMBERS[-1]}"
    assert weights_sha256(restored(reference.folder)) == reference.sha256


def test_a_checkpoint_is_written_every_so_many_steps(tmp_path: Path) -> None:
    trained = train_toy(tmp_path, training=dataclasses.replace(SETTINGS, keep_checkpoints=1000))
    numbers = sorted(int(path.stem.removeprefix("ckpt-")) for path in (tmp_path / CHECKPOINTS).glob("*.index"))
    assert numbers == CHECKPOINT_NUMBERS
    assert trained.checkpoint == f"ckpt-{numbers[-1]}"


def test_how_often_is_saved_changes_no_weight(reference: Run, tmp_path: Path) -> None:
    seldom = dataclasses.replace(SETTINGS, checkpoint_steps=1000, keep_checkpoints=1)
    assert weights_sha256(train_toy(tmp_path, training=seldom).network) == reference.sha256


def test_another_seed_gives_other_weights(reference: Run, tmp_path: Path) -> None:
    other = dataclasses.replace(SETTINGS, seed=4, epochs=1)
    assert weights_sha256(train_toy(tmp_path, training=other).network) != reference.sha256


def test_a_finished_run_started_again_trains_no_further(reference: Run) -> None:
    files, steps = checkpoint_files(reference.folder), []
    again = train_toy(reference.folder, watch=steps.append)
    assert steps == []
    assert weights_sha256(again.network) == reference.sha256
    assert (again.checkpoint, again.best_epoch) == (reference.trained.checkpoint, reference.trained.best_epoch)
    assert again.history == reference.trained.history
    assert checkpoint_files(reference.folder) == files


def test_early_stopping_keeps_the_best_weights_as_the_last_checkpoint(tmp_path: Path) -> None:
    patient = TrainingSettings(learning_rate=0.1, batch_size=8, epochs=40, patience=3, seed=3, augmentation=0.0)
    trained = train_toy(tmp_path, training=patient, noise=True)
    assert len(trained.history) == trained.best_epoch + patient.patience < patient.epochs
    kept, validation = restored(tmp_path), messages(30, 1, noise=True)
    logits = logits_by(recurrent_part(kept), validation)
    loss = np.mean(np.logaddexp(0.0, np.where(validation.labels == 1, -logits, logits)))
    assert loss == pytest.approx(trained.history[trained.best_epoch - 1].validation_loss, abs=1e-6)
    assert loss == pytest.approx(min(epoch.validation_loss for epoch in trained.history), abs=1e-6)
    assert weights_sha256(kept) == weights_sha256(trained.network)


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize("label", [0, 1])
def test_one_label_alone_is_refused_before_any_work(tmp_path: Path, part: str, label: int) -> None:
    parts = {"training": messages(12, 0), "validation": messages(6, 1)}
    count = len(parts[part].labels)
    parts[part] = LabelledMessages(parts[part].texts, np.full(count, label, np.int32))
    with pytest.raises(InputError) as error:
        train(parts["training"], parts["validation"], VOCABULARY, NETWORK, SETTINGS, tmp_path)
    counts = f"{count} spam and 0 ham" if label else f"0 spam and {count} ham"
    assert f"the {part} part holds {counts} messages" in str(error.value)
    assert "[split]" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_part_is_refused(tmp_path: Path) -> None:
    nothing = LabelledMessages([], np.zeros(0, np.int32))
    with pytest.raises(InputError, match="0 spam and 0 ham"):
        train(messages(12, 0), nothing, VOCABULARY, NETWORK, SETTINGS, tmp_path)


lengths = st.lists(st.integers(1, 200), min_size=1, max_size=300).map(lambda some: np.array(some, np.int64))


@settings(deadline=None)
@given(lengths=lengths, batch_size=st.integers(1, 40), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 100))
def test_an_epoch_takes_each_row_once_in_batches_that_are_full(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int
) -> None:
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == math.ceil(len(lengths) / batch_size)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


@settings(deadline=None)
@given(lengths=lengths, batch_size=st.integers(1, 40), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 100))
def test_the_order_depends_on_seed_and_epoch_alone(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> None:
    first = epoch_batches(lengths, batch_size, seed, epoch)
    np.random.default_rng().random()  # what others draw does not matter
    again = epoch_batches(lengths.copy(), batch_size, seed, epoch)
    assert [one.tolist() for one in first] == [one.tolist() for one in again]


def test_another_epoch_or_seed_has_another_order() -> None:
    lengths = np.arange(1, 101)
    orders = [epoch_batches(lengths, 10, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({tuple(np.concatenate(order).tolist()) for order in orders}) == 4


def test_messages_of_like_length_share_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 320)
    spread = np.mean([np.ptp(lengths[rows]) for rows in epoch_batches(lengths, 20, seed=0, epoch=0)])
    assert spread < 20


@pytest.mark.parametrize(("damaged", "goes_on_from"), [(1, "ckpt-21"), (3, "ckpt-16")])
def test_damaged_checkpoints_cost_time_and_no_bit(
    reference: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: int, goes_on_from: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, watch=stop_at(epoch=3, step=7))
    for number in [15, 16, 18, 21, 23][-damaged:]:
        path = tmp_path / CHECKPOINTS / f"ckpt-{number}.data-00000-of-00001"
        path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING, "spamscore"):
        trained = train_toy(tmp_path)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == damaged
    assert f"{tmp_path / CHECKPOINTS / 'ckpt-23'} is damaged" in warnings[0]
    assert warnings[-1].endswith(f"going on from {goes_on_from}")
    assert weights_sha256(trained.network) == reference.sha256
    assert without_seconds(trained.history) == without_seconds(reference.trained.history)


@pytest.mark.parametrize(
    ("part", "damage"),
    [("index", lambda path: path.write_bytes(b"")), ("data-00000-of-00001", Path.unlink)],
    ids=["index cut", "data gone"],
)
def test_where_no_checkpoint_is_whole_training_starts_anew_with_a_warning_and_ends_with_the_same_bits(
    reference: Run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    part: str,
    damage: Callable[[Path], object],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, watch=stop_at(epoch=2, step=3))
    for path in (tmp_path / CHECKPOINTS).glob(f"*.{part}"):
        damage(path)
    progress: list[Progress] = []
    with caplog.at_level(logging.WARNING, "spamscore"):
        trained = train_toy(tmp_path, watch=progress.append)
    assert (progress[0].epoch, progress[0].step) == (1, 1)
    assert "training starts anew, they are set aside as checkpoints.damaged" in caplog.text
    assert weights_sha256(trained.network) == reference.sha256
    assert without_seconds(trained.history) == without_seconds(reference.trained.history)
    assert checkpoint_files(tmp_path) == checkpoint_files(reference.folder)


@pytest.mark.parametrize(("last", "next_one"), [((2, 5), (2, 6)), ((2, 8), (3, 1)), ((1, 3), (1, 4))])
def test_a_run_that_its_watcher_ends_goes_on_from_that_very_step(
    reference: Run, tmp_path: Path, last: tuple[int, int], next_one: tuple[int, int]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, watch=stop_at(*last))
    progress: list[Progress] = []
    trained = train_toy(tmp_path, watch=progress.append)
    assert (progress[0].epoch, progress[0].step) == next_one
    assert weights_sha256(trained.network) == reference.sha256
    assert without_seconds(trained.history) == without_seconds(reference.trained.history)


def test_a_lost_history_changes_no_weight(reference: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, watch=stop_at(epoch=3, step=2))
    (tmp_path / HISTORY).unlink()
    trained = train_toy(tmp_path)
    assert weights_sha256(trained.network) == reference.sha256
    assert without_seconds(trained.history) == without_seconds(reference.trained.history)[2:]


def test_a_training_that_is_told_to_stop_finishes_its_epoch_and_keeps_the_best(reference: Run, tmp_path: Path) -> None:
    limit = EpochLimit(tmp_path)

    def watch(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (2, 3):
            limit.stop_after(progress.epoch)

    trained = train_toy(tmp_path, watch=watch, limit=limit)
    assert without_seconds(trained.history) == without_seconds(reference.trained.history[:2])
    assert trained.best_epoch == max(epoch.epoch for epoch in trained.history if epoch.best)
    assert trained.checkpoint == "ckpt-17"
    # Started again it is as finished as one that had all its epochs.
    again = train_toy(tmp_path, limit=EpochLimit(tmp_path))
    assert weights_sha256(again.network) == weights_sha256(trained.network)
    assert len(again.history) == 2


def test_a_training_that_was_told_to_stop_and_then_killed_stops_there_when_started_again(tmp_path: Path) -> None:
    limit = EpochLimit(tmp_path)
    limit.stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, watch=stop_at(2, 5), limit=limit)
    assert len(train_toy(tmp_path, limit=EpochLimit(tmp_path)).history) == 2


def test_what_follows_a_held_out_part_that_was_stopped_has_no_more_epochs(tmp_path: Path) -> None:
    limit, seen = EpochLimit(tmp_path), []

    def watch(progress: Progress) -> None:
        seen.append((progress.fold, progress.epoch))
        limit.stop_after(1)

    compute_held_out_logits(messages(60, 0), VOCABULARY, NETWORK, SETTINGS, tmp_path, watch, limit)
    assert set(seen) == {(1, 1), (2, 1)}
    assert len(train_toy(tmp_path, limit=limit).history) == 1


def test_whoever_watches_has_a_checkpoint_written_at_any_step_and_no_weight_changes(
    reference: Run, tmp_path: Path
) -> None:
    rare = dataclasses.replace(SETTINGS, checkpoint_steps=1000)
    written: list[str] = []

    def watch(progress: Progress) -> None:
        if progress.epoch == 1 or progress.step == STEPS_AN_EPOCH:
            written.append(progress.save())
            assert f"{written[-1]}.index" in checkpoint_files(tmp_path)

    trained = train_toy(tmp_path, training=rare, watch=watch)
    assert written == [f"ckpt-{step}" for step in (1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 32)]
    assert weights_sha256(trained.network) == weights_sha256(reference.trained.network)


def stop_at(epoch: int, step: int) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if (progress.epoch, progress.step) == (epoch, step):
            raise KeyboardInterrupt

    return watch


def test_the_default_make_of_network_goes_on_bit_for_bit_as_well(tmp_path: Path) -> None:
    network = dataclasses.replace(NetworkSettings(), embedding_size=3, rnn_units=2, ngram_buckets=64)
    short = dataclasses.replace(SETTINGS, epochs=1)
    whole = train_toy(tmp_path / "whole", network=network, training=short)
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "stopped", network=network, training=short, watch=stop_at(epoch=1, step=5))
    resumed = train_toy(tmp_path / "stopped", network=network, training=short)
    assert weights_sha256(resumed.network) == weights_sha256(whole.network)


# Where a run is killed: in which call of which function, before it or after.
Moment = tuple[str, int, str]
FILES = "tensorflow.python.checkpoint.checkpoint_management"
MANAGER = "tensorflow:train.CheckpointManager"
MOMENTS = {
    "before the first checkpoint": ("models.training.loop:_Trainer._report", 2, "after"),
    "between steps": ("models.training.loop:_Trainer._report", 13, "after"),
    "the first checkpoint half written": ("tensorflow.python.ops.gen_io_ops:merge_v2_checkpoints", 1, "before"),
    "a checkpoint half written": ("tensorflow.python.ops.gen_io_ops:merge_v2_checkpoints", 5, "before"),
    "a checkpoint whole but not listed": (f"{MANAGER}._record_state", 9, "before"),
    "an old checkpoint half deleted": (f"{FILES}:_delete_file_if_exists", 3, "after"),
    "the epoch's history written, its checkpoint not": ("models.training.loop:write_history", 2, "after"),
    "between epochs": (f"{MANAGER}.save", 7, "after"),
    "the last checkpoint half written": ("tensorflow.python.ops.gen_io_ops:merge_v2_checkpoints", 14, "before"),
    "after the last checkpoint": (f"{MANAGER}.save", 14, "after"),
}  # fmt: skip
JOB = "a training run in a process of its own"


def run_in_processes(jobs: list[tuple[Path, Moment | None]], job: str = "train_toy", at_once: int = 4) -> list[int]:
    """Does a job in each folder, in a process of its own that kills itself at the moment if there is one; gives exit
    codes.
    """
    context = multiprocessing.get_context("forkserver")
    # Imported once; each process is a fork of one that has computed nothing yet.
    context.set_forkserver_preload(["pytest", "hypothesis", "models.training.loop"])
    processes = [
        context.Process(target=runpy.run_path, args=(__file__, {"ARGUMENTS": (job, *where)}, JOB)) for where in jobs
    ]
    for first in range(0, len(processes), at_once):
        for process in processes[first : first + at_once]:
            process.start()
        for process in processes[first : first + at_once]:
            process.join()
    return [process.exitcode for process in processes]


def die_in(target: str, call: int, when: str) -> None:
    """Makes the process kill itself in a call of a function, as `kill -9` would: no clean-up, no flush."""
    module, _, path = target.partition(":")
    *classes, name = path.split(".")
    owner = pkgutil.resolve_name(f"{module}:{'.'.join(classes)}")
    real, calls = getattr(owner, name), itertools.count(1)

    def deadly(*args: object, **options: object) -> object:
        number = next(calls)
        if (number, when) == (call, "before"):
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if (number, when) == (call, "after"):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int, int]]:
    """For each moment the folder of a run that was killed there and started again, and both exit codes."""
    folders = {moment: tmp_path_factory.mktemp("killed") for moment in MOMENTS}
    killed = run_in_processes([(folders[moment], MOMENTS[moment]) for moment in MOMENTS])
    ended = run_in_processes([(folders[moment], None) for moment in MOMENTS])
    return dict(zip(MOMENTS, zip(folders.values(), killed, ended, strict=True), strict=True))


def require_same(folder: Path, reference: Run) -> None:
    assert weights_sha256(restored(folder)) == reference.sha256
    assert without_seconds(read_history(folder / HISTORY)) == without_seconds(reference.trained.history)
    assert checkpoint_files(folder) == checkpoint_files(reference.folder)
    assert {path.name for path in folder.iterdir()} == {CHECKPOINTS, HISTORY, TENSORBOARD}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_started_again_ends_with_the_same_bits(
    reference: Run, killed: dict[str, tuple[Path, int, int]], moment: str
) -> None:
    folder, first, second = killed[moment]
    assert (first, second) == (-signal.SIGKILL, 0)
    require_same(folder, reference)


def test_a_run_killed_again_and_again_ends_with_the_same_bits(reference: Run, tmp_path: Path) -> None:
    for moment in ("a checkpoint half written", "between steps"):
        assert run_in_processes([(tmp_path, MOMENTS[moment])]) == [-signal.SIGKILL]
    assert run_in_processes([(tmp_path, None)]) == [0]
    require_same(tmp_path, reference)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Held-out parts that were never disturbed."""

    folder: Path
    logits: np.ndarray
    progress: list[Progress]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    folder, progress = tmp_path_factory.mktemp("held_out"), []
    return HeldOut(folder, hold_out_toy(folder, progress.append), progress)


def held_out_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_each_part_is_scored_by_a_network_trained_on_the_others(held_out: HeldOut, tmp_path: Path) -> None:
    whole = messages(60, 0)
    folds = StratifiedKFold(2, shuffle=True, random_state=SETTINGS.seed).split(whole.texts, whole.labels)
    short = dataclasses.replace(SETTINGS, epochs=2)
    for number, (rest, fold) in enumerate(folds):
        trained = train(whole.at(rest), whole.at(fold), VOCABULARY, NETWORK, short, tmp_path / str(number))
        np.testing.assert_array_equal(held_out.logits[fold], logits_by(trained.network, whole.at(fold)))
    assert (held_out.logits.shape, held_out.logits.dtype) == ((60,), np.float32)


def test_whoever_watches_is_told_which_part_is_held_out(held_out: HeldOut) -> None:
    assert [one.fold for one in held_out.progress] == [1] * 8 + [2] * 8


def test_of_held_out_parts_the_logits_alone_stay_and_are_not_made_again(held_out: HeldOut) -> None:
    assert held_out_files(held_out.folder) == [HELD_OUT, f"{HELD_OUT}/1.npy", f"{HELD_OUT}/2.npy"]
    steps: list[Progress] = []
    np.testing.assert_array_equal(hold_out_toy(held_out.folder, steps.append), held_out.logits)
    assert steps == []


def test_fewer_messages_of_a_kind_than_parts_are_refused_before_any_work(tmp_path: Path) -> None:
    few = LabelledMessages(["win"] * 2 + ["mum"] * 9, np.array([1] * 2 + [0] * 9, np.int32))
    with pytest.raises(InputError, match=r"held_out_folds = 3: .*received 2 of one.*set held_out_folds = 0"):
        compute_held_out_logits(few, VOCABULARY, NETWORK, dataclasses.replace(SETTINGS, held_out_folds=3), tmp_path)
    assert list(tmp_path.iterdir()) == []


HELD_OUT_MOMENTS: dict[str, Moment] = {
    "in the first part": ("models.training.loop:_Trainer._report", 6, "after"),
    "the first part's logits half written": ("numpy:save", 1, "after"),
    "the first part's logits written, its training still there": ("models.training.loop:_train_without", 1, "after"),
    "in the second part": ("models.training.loop:_Trainer._report", 13, "after"),
}


@pytest.fixture(scope="module")
def killed_held_out(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int, int]]:
    """As `killed`, in held-out parts."""
    folders = {moment: tmp_path_factory.mktemp("killed_held_out") for moment in HELD_OUT_MOMENTS}
    killed = run_in_processes([(folders[one], HELD_OUT_MOMENTS[one]) for one in folders], "hold_out_toy")
    ended = run_in_processes([(folders[one], None) for one in folders], "hold_out_toy")
    return dict(zip(folders, zip(folders.values(), killed, ended, strict=True), strict=True))


@pytest.mark.parametrize("moment", HELD_OUT_MOMENTS)
def test_held_out_parts_killed_and_started_again_end_with_the_same_logits(
    held_out: HeldOut, killed_held_out: dict[str, tuple[Path, int, int]], moment: str
) -> None:
    folder, first, second = killed_held_out[moment]
    assert (first, second) == (-signal.SIGKILL, 0)
    assert held_out_files(folder) == held_out_files(held_out.folder)
    np.testing.assert_array_equal(hold_out_toy(folder), held_out.logits)


def test_held_out_parts_that_their_watcher_ends_go_on_from_that_very_step(held_out: HeldOut, tmp_path: Path) -> None:
    def watch(progress: Progress) -> None:
        if (progress.fold, progress.epoch, progress.step) == (2, 1, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hold_out_toy(tmp_path, watch)
    steps: list[Progress] = []
    np.testing.assert_array_equal(hold_out_toy(tmp_path, steps.append), held_out.logits)
    assert (steps[0].fold, steps[0].epoch, steps[0].step) == (2, 1, 4)


if __name__ == JOB:
    job, where, death = ARGUMENTS  # noqa: F821 - handed over by run_in_processes
    if death:
        die_in(*death)
    globals()[job](where)
