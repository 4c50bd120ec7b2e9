"""The training loop of the network, with early stopping, checkpoints and exact resume.

A run that is killed at any moment and started again ends with the same weights as a run that was not killed. For this,
everything that a step depends on is either a setting or part of every checkpoint: the weights, the state of the
optimizer, the position in the epoch, the best weights so far. The order of the messages in an epoch depends only on the
seed and the epoch, and dropout only on the seed, the step and the shard.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.errors import ArtifactError, WorkerError
from models.inference.scorer import network_logits
from models.network.devices import select_devices
from models.network.network import INPUTS, build_network, recurrent_part, set_linear
from models.settings import DeviceSettings, NetworkSettings, TrainingSettings
from models.text.encoder import EncodedMessages, TextEncoder, encode_messages, shared_encoder
from models.text.vocabulary import Vocabulary
from models.training.augmentation import augment_texts
from models.training.batches import epoch_batches
from models.training.checkpoints import CHECKPOINTS, open_checkpoint_manager, restore_latest_checkpoint, weights_sha256
from models.training.epoch_limit import EpochLimit
from models.training.history import HISTORY, Epoch, read_history, write_history
from models.training.job import LabelledMessages, Progress, TrainingSummary, WeakMessages
from models.training.linear_part import fit_linear_part
from models.training.replicas import Gradient, Replicas, create_strategy
from models.training.warm_start import WarmStart, set_start

log = logging.getLogger("spamscore")

TENSORBOARD = "tensorboard"
_WIDTH_STEP = 8


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training run.

    Attributes:
        network: the network with its best weights.
        history: one row for each epoch.
        best_epoch: number of the epoch with the best weights, from 1.
        checkpoint: name of the last checkpoint, which has the best weights.
        validation_logits: logits of the validation part, float32 [messages].
    """

    network: keras.Model
    history: list[Epoch]
    best_epoch: int
    checkpoint: str
    validation_logits: npt.NDArray[np.float32]

    def summarize(self) -> TrainingSummary:
        """Returns the result without the network, whose weights are in the checkpoint."""
        return TrainingSummary(
            self.history, self.best_epoch, self.checkpoint, weights_sha256(self.network), self.network.count_params(),
            self.validation_logits,
        )  # fmt: skip


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
        self.correct = tf.Variable(0.0, dtype=tf.float64)  # of this epoch's messages so far
        self.best_loss = tf.Variable(np.inf, dtype=tf.float64)
        self.best_epoch = tf.Variable(0, dtype=tf.int64)
        self.finished = tf.Variable(False)
        self.best_weights = [tf.Variable(weight.numpy()) for weight in network.weights]


def train(
    training: LabelledMessages,
    validation: LabelledMessages,
    vocabulary: Vocabulary,
    network_settings: NetworkSettings,
    settings: TrainingSettings,
    folder: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    limit: EpochLimit | None = None,
    replicas: Replicas | None = None,
    start: WarmStart | None = None,
    weaker: WeakMessages | None = None,
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
        replicas: the devices or machines to train on; by default, one replica on each device that TensorFlow selects.
            With several workers, the folder of the first one counts; the others continue from its checkpoint.
        start: values that variables start with; a checkpoint replaces them. None starts from random weights.
        weaker: messages that a teacher labelled, for the linear part.

    Raises:
        InputError: a part does not have both labels.
        WorkerError: the weights of the workers differ.
    """
    training.require_both_labels("training")
    validation.require_both_labels("validation")
    tf.config.experimental.enable_op_determinism()
    replicas = replicas or Replicas(create_strategy(select_devices(DeviceSettings())), settings.shards)

    encoder = shared_encoder(vocabulary, network_settings.ngram_vectors)
    buckets, has_linear = network_settings.ngram_buckets, network_settings.linear
    linear = fit_linear_part(encoder, training, settings, buckets, weaker) if has_linear else None

    def new_trainer() -> _Trainer:
        keras.utils.set_random_seed(settings.seed)
        with replicas.strategy.scope():
            network = build_network(network_settings, len(vocabulary), settings.seed)
            if linear:
                set_linear(network, linear)
            if start:
                set_start(network, start)
        return _Trainer(training, validation, encoder, network, settings, folder, on_progress, limit, replicas)

    trainer = new_trainer()
    if not trainer.restore():
        # The first trainer may have restored values from a damaged checkpoint.
        trainer = new_trainer()
    return trainer.run()


def _move_damaged(folder: Path) -> None:
    target = folder.with_name(f"{folder.name}.damaged")
    log.warning("%s: no checkpoint can be used; moved them to %s, training starts again", folder, target.name)
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)


def _learning_rate(settings: TrainingSettings, messages: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the schedule: linear warmup over a twentieth of all steps, then cosine decay to 0.

    Source: Loshchilov and Hutter 2017.
    """
    steps = settings.epochs * -(-messages // settings.batch_size)
    warmup_steps = max(steps // 20, 1)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warmup_steps, 1), warmup_target=settings.learning_rate, warmup_steps=warmup_steps
    )


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
        replicas: Replicas,
    ) -> None:
        self.limit, self.replicas = limit, replicas
        self.training, self.encoder = training, encoder
        self.validation, self.validation_labels = encode_messages(encoder, validation.texts), validation.labels
        self.network, self.settings, self.folder, self.on_progress = network, settings, folder, on_progress
        self.recurrent = recurrent_part(network)
        with replicas.strategy.scope():
            self.optimizer = keras.optimizers.Adam(_learning_rate(settings, len(training.labels)))
            self.optimizer.build(network.trainable_variables)
        self.state = _RunState(network)
        weights = {id(weight) for weight in network.weights}
        self.seeds = [
            (variable.value, int(variable.numpy()[0])) for variable in network.variables if id(variable) not in weights
        ]
        shard = ({name: tf.TensorSpec([None] * rank, tf.int32) for name, rank in INPUTS.items()}, tf.TensorSpec([None]))
        self.step = tf.function(
            self._step,
            input_signature=[[shard] * replicas.local_shards, tf.TensorSpec([]), tf.TensorSpec([], tf.int64)],
            autograph=False,
        )
        self.checkpoint = tf.train.Checkpoint(model=network, optimizer=self.optimizer, run=self.state)
        self.manager = open_checkpoint_manager(self.checkpoint, folder / CHECKPOINTS, settings)

    def restore(self) -> bool:
        """Restores the latest checkpoint, if there is one, in all workers. Returns whether there is none or it fits.

        If there are checkpoints, but none can be used, moves them away.
        """
        usable = True
        try:
            if restored := restore_latest_checkpoint(self.checkpoint, self.folder / CHECKPOINTS):
                log.info(
                    "resuming training from %s: epoch %d, step %d", restored, self._epoch + 1, int(self.state.step)
                )
        except ArtifactError:
            _move_damaged(self.folder / CHECKPOINTS)
            usable = False
        if not self.replicas.gather([usable])[0, 0]:
            return False
        self.replicas.copy_from_chief(
            [*(v.value for v in (*self.network.variables, *self.optimizer.variables)), *self.state.variables]
        )
        return True

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
        limit = self.replicas.gather([(self.limit and self.limit.epoch) or self.settings.epochs])[0, 0]
        epochs_without_improvement = self._epoch - int(self.state.best_epoch)
        return (
            bool(self._epoch >= min(self.settings.epochs, limit))
            or epochs_without_improvement >= self.settings.patience
        )

    def _run_epoch(self) -> Epoch:
        """Trains on the remaining batches of the epoch, then evaluates the validation part."""
        start = time.monotonic()
        settings = self.settings
        texts = augment_texts(self.training.texts, settings.augmentation, settings.seed, self._epoch)
        messages = encode_messages(self.encoder, texts)
        batches = epoch_batches(messages.lengths, settings.batch_size, settings.seed, self._epoch)
        first = int(self.state.step_in_epoch)
        for number, rows in enumerate(batches[first:], start=first + 1):
            loss, correct = self.step(list(self._shards(messages, rows)), float(len(rows)), self.state.step)
            self.state.loss_sum.assign_add(tf.cast(loss, tf.float64) * len(rows))
            self.state.correct.assign_add(tf.cast(correct, tf.float64))
            self.state.step.assign_add(1)
            self.state.step_in_epoch.assign(number)
            if number < len(batches) and int(self.state.step) % self.settings.checkpoint_steps == 0:
                self.manager.save(checkpoint_number=self.state.step)
            self._report(number, len(batches))
        count = len(self.training.labels)
        mean_loss, accuracy = float(self.state.loss_sum) / count, float(self.state.correct) / count
        return self._evaluate(mean_loss, accuracy, len(batches), time.monotonic() - start)

    def _shards(
        self, messages: EncodedMessages, rows: npt.NDArray[np.int64]
    ) -> Iterator[tuple[dict[str, tf.Tensor], tf.Tensor]]:
        """Yields the shards of a batch that this process computes: encoded messages and labels."""
        first, count = self.replicas.first_local_shard, self.replicas.local_shards
        for shard in np.array_split(rows, self.replicas.shards)[first : first + count]:
            width = -(-int(messages.lengths[shard].max(initial=1)) // _WIDTH_STEP) * _WIDTH_STEP
            batch = {name: tf.constant(values) for name, values in messages.batch(shard, width).items()}
            yield batch, tf.constant(self.training.labels[shard], tf.float32)

    def _step(
        self, shards: list[tuple[dict[str, tf.Tensor], tf.Tensor]], messages: tf.Tensor, step: tf.Tensor
    ) -> list[tf.Tensor]:
        """Runs a step of gradient descent on the recurrent part; returns mean cross-entropy and correct messages.

        Args:
            shards: the shards of the batch that this process computes.
            messages: number of messages in all shards of the batch.
            step: number of the step, from 0.
        """
        variables = self.network.trainable_variables
        smoothing = self.settings.label_smoothing

        def compute_shard(number: int, index: int) -> tuple[list[tf.Tensor], list[Gradient]]:
            batch, labels = shards[index]
            for seed, initial in self.seeds:
                seed.assign([initial, step * self.replicas.shards + number])
            targets = labels * (1 - 2 * smoothing) + smoothing
            with tf.GradientTape() as tape:
                logits = self.recurrent(batch, training=True)
                loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)) / messages
            correct = tf.reduce_sum(tf.cast((logits > 0) == (labels == 1), tf.float32))
            return [loss, correct], tape.gradient(loss, [variable.value for variable in variables])

        figures, gradients = self.replicas.compute(compute_shard)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return figures

    def _evaluate(self, loss: float, accuracy: float, steps: int, seconds: float) -> Epoch:
        from sklearn.metrics import average_precision_score

        logits, labels = self._compute_logits(self.recurrent), self.validation_labels
        # The workers stop at the same epoch and keep the same weights, also if the last bit of their losses differs.
        validation_loss, pr_auc = self.replicas.gather(
            [
                float(np.mean(np.logaddexp(0.0, np.where(labels == 1, -logits, logits)))),
                float(average_precision_score(labels, logits)),
            ]
        )[0].tolist()
        return Epoch(
            epoch=self._epoch + 1,
            steps=steps,
            loss=loss,
            accuracy=accuracy,
            validation_loss=validation_loss,
            validation_accuracy=float(np.mean((logits > 0) == (labels == 1))),
            validation_pr_auc=pr_auc,
            best=validation_loss < float(self.state.best_loss),
            seconds=seconds,
        )

    def _compute_logits(self, network: keras.Model) -> npt.NDArray[np.float32]:
        return network_logits(network, self.validation, device=self.replicas.device)

    def _finish_epoch(self, history: list[Epoch]) -> None:
        """Writes the epoch to the state, the history and TensorBoard, then saves a checkpoint."""
        epoch = history[-1]
        self._require_equal_weights(epoch.epoch)
        if epoch.best:
            self.state.best_loss.assign(epoch.validation_loss)
            self.state.best_epoch.assign(epoch.epoch)
            for best, weight in zip(self.state.best_weights, self.network.weights, strict=True):
                best.assign(weight.value)
        self.state.epoch.assign(epoch.epoch)
        self.state.step_in_epoch.assign(0)
        self.state.loss_sum.assign(0.0)
        self.state.correct.assign(0.0)
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

    def _require_equal_weights(self, epoch: int) -> None:
        if self.replicas.workers == 1:
            return
        digest = int(weights_sha256(self.network)[:12], 16)  # 48 bits, which a float64 holds
        digests = self.replicas.gather([digest])[:, 0]
        if different := np.flatnonzero(digests != digests[0]).tolist():
            raise WorkerError(
                f"after epoch {epoch}, the weights of worker {different[0]} differ from those of worker 0. Expected "
                "equal bits, which machines with different processors may not give. Train on machines of one kind."
            )

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
        return TrainingResult(
            self.network, history, int(self.state.best_epoch), f"ckpt-{int(self.state.step)}",
            self._compute_logits(self.network),
        )  # fmt: skip
