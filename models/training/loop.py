"""The training loop of the network, with early stopping, checkpoints and exact resume.

A run that is killed at any moment and started again ends with the same weights as a run that was not killed. For this,
everything that a step depends on is either a setting or part of every checkpoint: the weights, the state of the
optimizer, the seeds of dropout, the position in the epoch, the best weights so far. The order of the messages in an
epoch depends only on the seed and the epoch.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.errors import ArtifactError, InputError
from models.inference.scorer import network_logits
from models.network.linear import fit_linear
from models.network.network import INPUTS, build_network, recurrent_part, set_linear
from models.settings import NetworkSettings, TrainingSettings
from models.text.encoder import EncodedMessages, TextEncoder, encode_messages
from models.text.vocabulary import Vocabulary
from models.training.augmentation import augment_texts
from models.training.checkpoints import open_checkpoint_manager, restore_latest_checkpoint
from models.training.epoch_limit import EpochLimit
from models.training.history import Epoch, read_history, write_history

log = logging.getLogger("spamscore")

CHECKPOINTS, HISTORY, TENSORBOARD, HELD_OUT = "checkpoints", "history.csv", "tensorboard", "held_out"
# Number of batches whose messages are sorted by length together, so that a batch has messages of similar length.
_SORTED_BATCHES = 16
_WIDTH_STEP = 8


@dataclass(frozen=True)
class LabelledMessages:
    """Messages with their labels, int32 [messages]: 1 is spam."""

    texts: Sequence[str]
    labels: npt.NDArray[np.int32]

    def select(self, rows: npt.NDArray[np.int64]) -> LabelledMessages:
        """Returns the messages at the given indices, int64 [rows]."""
        return LabelledMessages([self.texts[row] for row in rows], self.labels[rows])


@dataclass(frozen=True)
class Progress:
    """The progress of a training run, for the callback.

    Attributes:
        epoch: number of the epoch, from 1.
        epochs: maximum number of epochs.
        step: number of the step in the epoch, from 1.
        steps: steps in the epoch.
        loss: mean loss of the messages of the epoch so far.
        save: writes a checkpoint of this step and returns its name, such as ``ckpt-350``.
        fold: number of the held-out fold, from 1; 0 for the network itself.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    save: Callable[[], str]
    fold: int = 0


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training run.

    Attributes:
        network: the network with its best weights.
        history: one row for each epoch.
        best_epoch: number of the epoch with the best weights, from 1.
        checkpoint: name of the last checkpoint, which has the best weights.
    """

    network: keras.Model
    history: list[Epoch]
    best_epoch: int
    checkpoint: str


class _RunState(tf.Module):
    """The state of a run besides weights and optimizer. All of it is saved in checkpoints.

    The attribute names are part of the checkpoint format.
    """

    def __init__(self, network: keras.Model) -> None:
        super().__init__(name="run")
        self.step = tf.Variable(0, dtype=tf.int64)  # steps of all epochs
        self.epoch = tf.Variable(0, dtype=tf.int64)  # finished epochs
        self.step_in_epoch = tf.Variable(0, dtype=tf.int64)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64)  # over this epoch's messages so far
        self.correct = np.nan  # of this epoch's messages so far; NaN until an epoch starts
        self.best_loss = tf.Variable(np.inf, dtype=tf.float64)
        self.best_epoch = tf.Variable(0, dtype=tf.int64)
        self.finished = tf.Variable(False)
        self.best_weights = [tf.Variable(weight.value) for weight in network.weights]
        # State of the random numbers of dropout. Keras does not add it to a checkpoint by itself.
        weights = {id(weight) for weight in network.weights}
        self.seeds = [variable.value for variable in network.variables if id(variable) not in weights]

    # No variable: a checkpoint of an earlier version has no count, and would not fit if it lacked a variable. The
    # epoch that was interrupted there has the accuracy NaN.
    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {"correct": tf.constant(self.correct, tf.float64)}

    def _restore_from_tensors(self, restored_tensors: dict[str, tf.Tensor]) -> None:
        self.correct = float(restored_tensors["correct"])


def train(
    training: LabelledMessages,
    validation: LabelledMessages,
    vocabulary: Vocabulary,
    network_settings: NetworkSettings,
    settings: TrainingSettings,
    folder: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    limit: EpochLimit | None = None,
) -> TrainingResult:
    """Trains a network, or resumes the training from the latest checkpoint in the folder.

    If all checkpoints are damaged, logs a warning and starts again. Early stopping uses the validation loss. The best
    weights become the last checkpoint.

    Args:
        training: messages to train on.
        validation: messages for early stopping.
        vocabulary: the vocabulary for encoding the messages.
        network_settings: the architecture of the network.
        settings: step size, epochs, seed, checkpoints.
        folder: the folder for ``checkpoints/``, ``history.csv`` and ``tensorboard/``.
        on_progress: called after every step. An exception that it raises ends the training, after a checkpoint of that
            step.
        limit: read after every epoch, to stop earlier than [training] epochs; None sets no limit.

    Raises:
        InputError: a part does not have both labels.
    """
    _require_both_labels(training, "training")
    _require_both_labels(validation, "validation")
    tf.config.experimental.enable_op_determinism()

    encoder = TextEncoder(vocabulary, network_settings.ngram_buckets)
    encoded = encode_messages(encoder, training.texts)

    def new_trainer() -> _Trainer:
        keras.utils.set_random_seed(settings.seed)
        network = build_network(network_settings, len(vocabulary), settings.seed)
        if network_settings.linear:
            set_linear(network, fit_linear(encoded, training.labels, network_settings.ngram_buckets))
        return _Trainer(training, validation, encoder, network, settings, folder, on_progress, limit)

    trainer = new_trainer()
    try:
        trainer.restore()
    except ArtifactError:
        _move_damaged(folder / CHECKPOINTS)
        # The first trainer may have restored values from a damaged checkpoint.
        trainer = new_trainer()
    return trainer.run()


def _move_damaged(folder: Path) -> None:
    target = folder.with_name(f"{folder.name}.damaged")
    log.warning("%s: no checkpoint can be used; moved them to %s, training starts again", folder, target.name)
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)


def _require_both_labels(part: LabelledMessages, name: str) -> None:
    spam = int(part.labels.sum())
    if not 0 < spam < len(part.labels):
        raise InputError(
            f"the {name} part has {spam} spam and {len(part.labels) - spam} ham messages; at least one of each is "
            "needed. Give more labelled messages ([corpus]) or change [split]."
        )


def _learning_rate(settings: TrainingSettings, messages: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the schedule: linear warmup over a twentieth of all steps, then cosine decay to 0.

    Source: Loshchilov and Hutter 2017.
    """
    steps = settings.epochs * -(-messages // settings.batch_size)
    warmup_steps = max(steps // 20, 1)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup_steps, 1), warmup_target=settings.learning_rate, warmup_steps=warmup_steps
    )


def epoch_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[npt.NDArray[np.int64]]:
    """Divides the messages into the batches of an epoch.

    The shuffle depends only on the seed and the epoch. Within a group of 16 batches, messages are sorted by length, so
    that a batch has messages of similar length. The batches of a group are then shuffled again.

    Args:
        lengths: tokens of each message, int64 [messages].
        batch_size: maximum number of messages in a batch.
        seed: [training] seed.
        epoch: number of the epoch, from 0.

    Returns:
        The indices of the messages of each batch, int64 [batch_size or fewer].
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    batches: list[npt.NDArray[np.int64]] = []
    for start in range(0, len(order), batch_size * _SORTED_BATCHES):
        group = order[start : start + batch_size * _SORTED_BATCHES]
        group = group[np.argsort(lengths[group], kind="stable")]
        group_batches = [group[start : start + batch_size] for start in range(0, len(group), batch_size)]
        batches += [group_batches[index] for index in random.permutation(len(group_batches))]
    return batches


class _Trainer:
    """One training run. `train` is the public function."""

    def __init__(
        self,
        training: LabelledMessages,
        validation: LabelledMessages,
        encoder: TextEncoder,
        network: keras.Model,
        settings: TrainingSettings,
        folder: Path,
        on_progress: Callable[[Progress], None],
        limit: EpochLimit | None,
    ) -> None:
        self.limit = limit
        self.training, self.encoder = training, encoder
        self.validation, self.validation_labels = encode_messages(encoder, validation.texts), validation.labels
        self.network, self.settings, self.folder, self.on_progress = network, settings, folder, on_progress
        self.recurrent = recurrent_part(network)
        self.optimizer = keras.optimizers.Adam(_learning_rate(settings, len(training.labels)))
        self.optimizer.build(network.trainable_variables)
        self.state = _RunState(network)
        self.checkpoint = tf.train.Checkpoint(model=network, optimizer=self.optimizer, run=self.state)
        self.manager = open_checkpoint_manager(self.checkpoint, folder / CHECKPOINTS, settings)

    def restore(self) -> None:
        """Restores the latest checkpoint, if there is one.

        Raises:
            ArtifactError: there are checkpoints, but none can be used.
        """
        restored = restore_latest_checkpoint(self.checkpoint, self.folder / CHECKPOINTS)
        if restored:
            log.info("resuming training from %s: epoch %d, step %d", restored, self._epoch + 1, int(self.state.step))

    def run(self) -> TrainingResult:
        """Runs the remaining epochs and returns the result."""
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
        epochs_without_improvement = self._epoch - int(self.state.best_epoch)
        if self.limit and self.limit.epoch and self._epoch >= self.limit.epoch:
            return True
        return self._epoch >= self.settings.epochs or epochs_without_improvement >= self.settings.patience

    def _run_epoch(self) -> Epoch:
        """Trains on the remaining batches of the epoch, then evaluates the validation part."""
        start = time.monotonic()
        settings = self.settings
        texts = augment_texts(self.training.texts, settings.augmentation, settings.seed, self._epoch)
        messages = encode_messages(self.encoder, texts)
        batches = epoch_batches(messages.lengths, settings.batch_size, settings.seed, self._epoch)
        first = int(self.state.step_in_epoch)
        self.state.correct = self.state.correct if first else 0.0
        for number, (batch, labels) in enumerate(self._batches(messages, batches[first:]), start=first + 1):
            loss, correct = self._step(batch, labels)
            self.state.loss_sum.assign_add(tf.cast(loss, tf.float64) * len(labels))
            self.state.correct += float(correct)
            self.state.step.assign_add(1)
            self.state.step_in_epoch.assign(number)
            if number < len(batches) and int(self.state.step) % self.settings.checkpoint_steps == 0:
                self.manager.save(checkpoint_number=self.state.step)
            self._report(number, len(batches))
        count = len(self.training.labels)
        loss, accuracy = float(self.state.loss_sum) / count, self.state.correct / count
        return self._evaluate(loss, accuracy, len(batches), time.monotonic() - start)

    def _batches(
        self, messages: EncodedMessages, rows_of_batches: list[npt.NDArray[np.int64]]
    ) -> Iterator[tuple[dict[str, tf.Tensor], tf.Tensor]]:
        lengths = messages.lengths
        for rows in rows_of_batches:
            width = -(-int(lengths[rows].max()) // _WIDTH_STEP) * _WIDTH_STEP
            batch = {name: tf.constant(values) for name, values in messages.batch(rows, width).items()}
            yield batch, tf.constant(self.training.labels[rows], tf.float32)

    @tf.function(
        input_signature=[
            {name: tf.TensorSpec([None] * rank, tf.int32) for name, rank in INPUTS.items()},
            tf.TensorSpec([None], tf.float32),
        ],
        autograph=False,
    )
    def _step(self, batch: dict[str, tf.Tensor], labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs a step of gradient descent on the recurrent part; returns mean cross-entropy and correct messages."""
        smoothing = self.settings.label_smoothing
        targets = labels * (1 - 2 * smoothing) + smoothing
        with tf.GradientTape() as tape:
            logits = self.recurrent(batch, training=True)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits))
        variables = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, [v.value for v in variables]), variables, strict=True))
        return loss, tf.math.count_nonzero((logits > 0) == (labels == 1))

    def _evaluate(self, loss: float, accuracy: float, steps: int, seconds: float) -> Epoch:
        from sklearn.metrics import average_precision_score

        logits = network_logits(self.recurrent, self.validation)
        labels = self.validation_labels
        validation_loss = float(np.mean(np.logaddexp(0.0, np.where(labels == 1, -logits, logits))))
        return Epoch(
            epoch=self._epoch + 1,
            steps=steps,
            loss=loss,
            accuracy=accuracy,
            validation_loss=validation_loss,
            validation_accuracy=float(np.mean((logits > 0) == (labels == 1))),
            validation_pr_auc=float(average_precision_score(labels, logits)),
            best=validation_loss < float(self.state.best_loss),
            seconds=seconds,
        )

    def _finish_epoch(self, history: list[Epoch]) -> None:
        """Writes the epoch to the state, the history and TensorBoard, then saves a checkpoint."""
        epoch = history[-1]
        if epoch.best:
            self.state.best_loss.assign(epoch.validation_loss)
            self.state.best_epoch.assign(epoch.epoch)
            for best, weight in zip(self.state.best_weights, self.network.weights, strict=True):
                best.assign(weight.value)
        self.state.epoch.assign(epoch.epoch)
        self.state.step_in_epoch.assign(0)
        self.state.loss_sum.assign(0.0)
        write_history(self.folder / HISTORY, history)
        for name in ("loss", "accuracy", "validation_loss", "validation_accuracy", "validation_pr_auc"):
            tf.summary.scalar(name, getattr(epoch, name), step=epoch.epoch)
        log.info(
            "epoch %d/%d: loss %.4f, accuracy %.4f, validation loss %.4f, validation accuracy %.4f, validation PR AUC "
            "%.4f%s",
            epoch.epoch, self.settings.epochs, epoch.loss, epoch.accuracy, epoch.validation_loss,
            epoch.validation_accuracy, epoch.validation_pr_auc, " (best)" if epoch.best else "",
        )  # fmt: skip
        self.manager.save(checkpoint_number=self.state.step)

    def _report(self, number: int, steps: int) -> None:
        messages = min(number * self.settings.batch_size, len(self.training.labels))
        loss = float(self.state.loss_sum) / messages
        try:
            self.on_progress(Progress(self._epoch + 1, self.settings.epochs, number, steps, loss, self._save))
        except BaseException:
            self._save()
            raise

    def _save(self) -> str:
        return Path(self.manager.save(checkpoint_number=self.state.step)).name

    def _finish(self, history: list[Epoch]) -> TrainingResult:
        """Restores the best weights and saves them as the last checkpoint."""
        if not bool(self.state.finished):
            for best, weight in zip(self.state.best_weights, self.network.weights, strict=True):
                weight.assign(best)
            self.state.finished.assign(True)
            self.state.step.assign_add(1)
            self.manager.save(checkpoint_number=self.state.step)
        return TrainingResult(self.network, history, int(self.state.best_epoch), f"ckpt-{int(self.state.step)}")
