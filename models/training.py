"""Training the network, so that a run that is killed at any moment ends with the weights of one that was not.

All that a step depends on is either a setting, or is saved in every checkpoint: weights, the optimizer's state, the
seeds of dropout, where in which epoch the run is, the best weights so far. The order of the messages in an epoch is a
function of the seed and the epoch.
"""

from __future__ import annotations

import csv
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from sklearn.metrics import average_precision_score

from models.checkpoints import open_manager, restore_latest
from models.encoder import EncodedMessages
from models.errors import ArtifactError, InputError
from models.scoring import network_logits
from models.settings import NetworkSettings, TrainingSettings

log = logging.getLogger("spamscore")

CHECKPOINTS, HISTORY, TENSORBOARD = "checkpoints", "history.csv", "tensorboard"
# Batches whose messages are sorted by length together, so that like lengths share a batch.
_SORTED_BATCHES = 16
_WIDTH_STEP = 8


@dataclass(frozen=True)
class LabelledMessages:
    """Encoded messages with their labels, int32 [messages]: 1 is spam."""

    messages: EncodedMessages
    labels: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Epoch:
    """A row of the history. Losses are mean binary cross-entropies a message, in nats."""

    epoch: int
    steps: int
    loss: float
    validation_loss: float
    validation_pr_auc: float
    best: bool
    seconds: float


@dataclass(frozen=True)
class Progress:
    """Where training is, for whoever watches."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    seconds_a_step: float


@dataclass(frozen=True)
class Trained:
    """What a training run came to: the network with its best weights, and how it got there."""

    network: keras.Model
    history: list[Epoch]
    best_epoch: int
    checkpoint: str


class _Run(tf.Module):
    """The state of a run that is neither weights nor optimizer, all of it saved in checkpoints."""

    def __init__(self, network: keras.Model) -> None:
        super().__init__(name="run")
        self.step = tf.Variable(0, dtype=tf.int64)  # steps taken in all
        self.epoch = tf.Variable(0, dtype=tf.int64)  # epochs finished
        self.step_in_epoch = tf.Variable(0, dtype=tf.int64)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64)  # over this epoch's messages so far
        self.best_loss = tf.Variable(np.inf, dtype=tf.float64)
        self.best_epoch = tf.Variable(0, dtype=tf.int64)
        self.finished = tf.Variable(False)
        self.best_weights = [tf.Variable(weight.value) for weight in network.weights]
        # Where dropout is in its random numbers. Keras does not hand these to a checkpoint by itself.
        weights = {id(weight) for weight in network.weights}
        self.seeds = [variable.value for variable in network.variables if id(variable) not in weights]


def train(
    training: LabelledMessages,
    validation: LabelledMessages,
    vocabulary_size: int,
    network_settings: NetworkSettings,
    settings: TrainingSettings,
    folder: Path,
    watch: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Trains, or goes on training where the checkpoints in the folder end; anew, with a warning, if all are damaged.

    Early stopping looks at the validation loss; the best weights become the last checkpoint.

    Args:
        training: messages to learn from.
        validation: messages that early stopping looks at.
        vocabulary_size: numbers there are in the vocabulary.
        network_settings: the network's make.
        settings: step size, epochs, seed, checkpoints.
        folder: takes ``checkpoints/``, ``history.csv``, ``tensorboard/``.
        watch: called after every step. What it raises ends the training, after a checkpoint of that step.

    Raises:
        InputError: a part without both labels.
    """
    _require_both_labels(training, "training")
    _require_both_labels(validation, "validation")
    tf.config.experimental.enable_op_determinism()

    def at_its_beginning() -> _Trainer:
        keras.utils.set_random_seed(settings.seed)
        network = build(network_settings, vocabulary_size, settings.seed)
        return _Trainer(training, validation, network, settings, folder, watch)

    trainer = at_its_beginning()
    try:
        trainer.restore()
    except ArtifactError:
        _set_aside(folder / CHECKPOINTS)
        # The one that failed may have taken values from a damaged checkpoint.
        trainer = at_its_beginning()
    return trainer.run()


def _set_aside(folder: Path) -> None:
    aside = folder.with_name(f"{folder.name}.damaged")
    log.warning("%s: no checkpoint can be used: training starts anew, they are set aside as %s", folder, aside.name)
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)


def build(network_settings: NetworkSettings, vocabulary_size: int, seed: int) -> keras.Model:
    """The network as training starts with it."""
    from models.network import build_network

    return build_network(network_settings, vocabulary_size, seed)


def _require_both_labels(part: LabelledMessages, name: str) -> None:
    spam = int(part.labels.sum())
    if not 0 < spam < len(part.labels):
        raise InputError(
            f"the {name} part holds {spam} spam and {len(part.labels) - spam} ham messages; at least one of each is "
            "needed. Give more labelled messages ([corpus]) or change [split]."
        )


def epoch_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[npt.NDArray[np.int64]]:
    """The batches of an epoch: rows of each, int64 [batch_size or fewer].

    A shuffle that depends on the seed and the epoch alone; within a stretch of 16 batches, messages of like length go
    together, and the batches of a stretch are shuffled again.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    batches: list[npt.NDArray[np.int64]] = []
    for first in range(0, len(order), batch_size * _SORTED_BATCHES):
        stretch = order[first : first + batch_size * _SORTED_BATCHES]
        stretch = stretch[np.argsort(lengths[stretch], kind="stable")]
        cut = [stretch[at : at + batch_size] for at in range(0, len(stretch), batch_size)]
        batches += [cut[at] for at in random.permutation(len(cut))]
    return batches


class _Trainer:
    """One training run; `train` is its face."""

    def __init__(
        self,
        training: LabelledMessages,
        validation: LabelledMessages,
        network: keras.Model,
        settings: TrainingSettings,
        folder: Path,
        watch: Callable[[Progress], None],
    ) -> None:
        self.training, self.validation = training, validation
        self.network, self.settings, self.folder, self.watch = network, settings, folder, watch
        self.optimizer = keras.optimizers.Adam(settings.learning_rate)
        self.optimizer.build(network.trainable_variables)
        self.state = _Run(network)
        self.checkpoint = tf.train.Checkpoint(model=network, optimizer=self.optimizer, run=self.state)
        self.manager = open_manager(self.checkpoint, folder / CHECKPOINTS, settings)

    def restore(self) -> None:
        """Goes to where the latest checkpoint is, if there is one.

        Raises:
            ArtifactError: there are checkpoints, but none can be used.
        """
        restored = restore_latest(self.checkpoint, self.folder / CHECKPOINTS)
        if restored:
            log.info("training goes on from %s: epoch %d, step %d", restored, self._epoch + 1, int(self.state.step))

    def run(self) -> Trained:
        """Goes on to the end."""
        history = read_history(self.folder / HISTORY, epochs=self._epoch)
        writer = tf.summary.create_file_writer(str(self.folder / TENSORBOARD))
        with writer.as_default():
            while not self._is_over():
                history.append(self._run_epoch())
                self._finish_epoch(history)
        writer.close()
        return self._finish(history)

    @property
    def _epoch(self) -> int:
        return int(self.state.epoch)

    def _is_over(self) -> bool:
        waited = self._epoch - int(self.state.best_epoch)
        return self._epoch >= self.settings.epochs or waited >= self.settings.patience

    def _run_epoch(self) -> Epoch:
        """Trains on what is left of the epoch, then looks at the validation part."""
        began = time.monotonic()
        batches = epoch_batches(
            self.training.messages.lengths, self.settings.batch_size, self.settings.seed, self._epoch
        )
        done = int(self.state.step_in_epoch)
        for number, (ids, labels) in enumerate(self._batches(batches[done:]), start=done + 1):
            self.state.loss_sum.assign_add(tf.cast(self._step(ids, labels), tf.float64) * len(labels))
            self.state.step.assign_add(1)
            self.state.step_in_epoch.assign(number)
            if number < len(batches) and int(self.state.step) % self.settings.checkpoint_steps == 0:
                self.manager.save(checkpoint_number=self.state.step)
            self._report(number, len(batches), done, began)
        loss = float(self.state.loss_sum) / len(self.training.labels)
        return self._validated(loss, len(batches), time.monotonic() - began)

    def _batches(self, rows_of_batches: list[npt.NDArray[np.int64]]) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        lengths = self.training.messages.lengths
        for rows in rows_of_batches:
            width = -(-int(lengths[rows].max()) // _WIDTH_STEP) * _WIDTH_STEP
            yield (
                tf.constant(self.training.messages.padded(rows, width)),
                tf.constant(self.training.labels[rows], tf.float32),
            )

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.float32)], autograph=False
    )
    def _step(self, ids: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """One step of gradient descent; gives the batch's mean cross-entropy."""
        with tf.GradientTape() as tape:
            logits = self.network(ids, training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits))
        variables = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, [v.value for v in variables]), variables, strict=True))
        return loss

    def _validated(self, loss: float, steps: int, seconds: float) -> Epoch:
        logits = network_logits(self.network, self.validation.messages)
        labels = self.validation.labels
        validation_loss = float(np.mean(np.logaddexp(0.0, np.where(labels == 1, -logits, logits))))
        return Epoch(
            epoch=self._epoch + 1,
            steps=steps,
            loss=loss,
            validation_loss=validation_loss,
            validation_pr_auc=float(average_precision_score(labels, logits)),
            best=validation_loss < float(self.state.best_loss),
            seconds=seconds,
        )

    def _finish_epoch(self, history: list[Epoch]) -> None:
        """Notes the epoch in the state, the history and TensorBoard, then saves a checkpoint of it."""
        epoch = history[-1]
        if epoch.best:
            self.state.best_loss.assign(epoch.validation_loss)
            self.state.best_epoch.assign(epoch.epoch)
            for best, weight in zip(self.state.best_weights, self.network.weights, strict=True):
                best.assign(weight.value)
        self.state.epoch.assign(epoch.epoch)
        self.state.step_in_epoch.assign(0)
        self.state.loss_sum.assign(0.0)
        _write_history(self.folder / HISTORY, history)
        for name in ("loss", "validation_loss", "validation_pr_auc"):
            tf.summary.scalar(name, getattr(epoch, name), step=epoch.epoch)
        log.info(
            "epoch %d/%d: loss %.4f, validation loss %.4f, validation PR AUC %.4f%s",
            epoch.epoch, self.settings.epochs, epoch.loss, epoch.validation_loss, epoch.validation_pr_auc,
            " (best)" if epoch.best else "",
        )  # fmt: skip
        self.manager.save(checkpoint_number=self.state.step)

    def _report(self, number: int, steps: int, done: int, began: float) -> None:
        seen = min(number * self.settings.batch_size, len(self.training.labels))
        seconds_a_step = (time.monotonic() - began) / (number - done)
        loss = float(self.state.loss_sum) / seen
        try:
            self.watch(Progress(self._epoch + 1, self.settings.epochs, number, steps, loss, seconds_a_step))
        except BaseException:
            self.manager.save(checkpoint_number=self.state.step)
            raise

    def _finish(self, history: list[Epoch]) -> Trained:
        """Puts the best weights back and saves them as the last checkpoint."""
        if not bool(self.state.finished):
            for best, weight in zip(self.state.best_weights, self.network.weights, strict=True):
                weight.assign(best)
            self.state.finished.assign(True)
            self.state.step.assign_add(1)
            self.manager.save(checkpoint_number=self.state.step)
        return Trained(self.network, history, int(self.state.best_epoch), f"ckpt-{int(self.state.step)}")


def read_history(path: Path, epochs: int | None = None) -> list[Epoch]:
    """Reads `history.csv`, or its first so many epochs: a kill may have left one that no checkpoint knows."""
    if epochs == 0 or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:epochs]
    return [
        Epoch(
            epoch=int(row["epoch"]), steps=int(row["steps"]), loss=float(row["loss"]),
            validation_loss=float(row["validation_loss"]), validation_pr_auc=float(row["validation_pr_auc"]),
            best=row["best"] == "True", seconds=float(row["seconds"]),
        )
        for row in rows
    ]  # fmt: skip


def _write_history(path: Path, history: list[Epoch]) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*asdict(history[0])])
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in history)
    partial.replace(path)
