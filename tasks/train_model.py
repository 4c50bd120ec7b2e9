"""The stage TrainModel: trains the recurrent network. A killed training resumes from its latest checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luigi.util import requires

from models.settings import NetworkSettings, TrainingSettings
from tasks.artifacts.links import link_to, tensorboard_link
from tasks.artifacts.locations import TRAININGS, VOCABULARY
from tasks.artifacts.warm_start import load_warm_start, start_fingerprint
from tasks.build_vocabulary import BuildVocabulary
from tasks.clean_text import CleanText
from tasks.scheduler.progress import ProgressReport, format_time_left, report_progress
from tasks.scheduler.scheduler_messages import SchedulerMessage
from tasks.settings.loading import load
from tasks.stage import FolderStage, prepare_tensorflow

if TYPE_CHECKING:
    from models.training.epoch_limit import EpochLimit
    from models.training.loop import LabelledMessages, Progress, TrainingResult


@requires(CleanText, BuildVocabulary)
class TrainModel(FolderStage):
    """Trains the network on the training part, stops early by the validation part, calibrates with held-out scores."""

    folder = TRAININGS
    sections = (NetworkSettings, TrainingSettings)
    code_version = 3
    resumes = True
    accepts_messages = True

    def fingerprint_parts(self) -> dict[str, Any]:
        """Adds the content of the weights that the training starts from, if [training] start_from is set."""
        return {**super().fingerprint_parts(), **start_fingerprint(load(TrainingSettings))}

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the training and validation parts, trains, calibrates, and writes the model's description."""
        prepare_tensorflow()
        from models.text.vocabulary import load_vocabulary
        from models.training.epoch_limit import EpochLimit
        from models.training.held_out import compute_held_out_logits
        from models.training.loop import HISTORY, train
        from models.training.trained_model import collect_unseen_scores, write_trained_model

        messages, vocabulary_folder = self.input()
        vocabulary = load_vocabulary(vocabulary_folder.file(VOCABULARY))
        training = read_labelled_part(messages.file("training.parquet"))
        validation = read_labelled_part(messages.file("validation.parquet"))
        network, settings = load(NetworkSettings), load(TrainingSettings)
        limit = EpochLimit(folder)
        # Before the held-out folds, so that a source that does not fit is refused before hours of training.
        start = load_warm_start(settings, network, vocabulary, messages.manifest()["made_of"]["settings"]["split"])
        with report_progress(self, "training") as progress:
            progress.link(tensorboard_link(self.output().path) or link_to(self.output().path / HISTORY))
            on_progress = TrainingReporter(progress, settings, limit)
            held_out = None
            if settings.held_out_folds:
                held_out = (
                    compute_held_out_logits(training, vocabulary, network, settings, folder, on_progress, limit),
                    training,
                )
            trained = train(training, validation, vocabulary, network, settings, folder, on_progress, limit, start)
            progress.conclude(describe_training(trained, settings, limit))
        unseen = collect_unseen_scores(trained, vocabulary, network, validation, held_out)
        return write_trained_model(trained, vocabulary, network, unseen, folder, limit, start)


class TrainingReporter:
    """Reports the progress of a training and handles the messages `stop` and `checkpoint` from Luigi's page.

    If a training is stopped in a held-out fold, all networks after it are limited to that number of epochs: the
    networks that calibrate the model must be trained like the model.
    """

    def __init__(self, report: ProgressReport, settings: TrainingSettings, limit: EpochLimit) -> None:
        self._report, self._settings, self._limit = report, settings, limit
        self._latest: Progress  # set before the first message is handled
        self._first_step: tuple[float, float] | None = None  # its end, in seconds, and the share done by then
        report.accept_messages(
            SchedulerMessage("stop", "finish the epoch, keep the best one, and calibrate", self._stop),
            SchedulerMessage("checkpoint", "write a checkpoint now", self._checkpoint),
        )

    def __call__(self, progress: Progress) -> None:
        """Reports a training step. The estimate of the time left omits the first step, which compiles the network."""
        self._latest, folds = progress, self._settings.held_out_folds
        now, done = time.monotonic(), compute_share_done(progress, folds)
        self._first_step = self._first_step or (now, done)
        fold = f"held-out fold {progress.fold}/{folds}, " if progress.fold else ""
        status = f"{fold}epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.3f}"
        started, done_before = self._first_step
        if done > done_before:
            status += f", {format_time_left((1 - done) * (now - started) / (done - done_before))}"
        self._report.update(done, 1, status)

    def _stop(self) -> str:
        last, fold = self._limit.stop_after(self._latest.epoch), self._latest.fold
        scope = f" of held-out fold {fold}; later networks are limited to that epoch too" if fold else ""
        return f"stopping after epoch {last} of {self._latest.epochs}{scope}. The best epoch is kept."

    def _checkpoint(self) -> str:
        return f"written: {self._latest.save()}"


def describe_training(trained: TrainingResult, settings: TrainingSettings, limit: EpochLimit) -> str:
    """Describes the result of a training in one line."""
    stopped = " (stopped by a message)" if limit.shortens(settings.epochs) else ""
    best = trained.history[trained.best_epoch - 1]
    return (
        f"{len(trained.history)} epochs{stopped}; best epoch {best.epoch}, validation loss {best.validation_loss:.3f}"
    )


def read_labelled_part(path: Path) -> LabelledMessages:
    """Reads a part that CleanText wrote: its texts, and its labels as int32 (1 for spam)."""
    import numpy as np
    import pandas as pd

    from models.training.loop import LabelledMessages

    part = pd.read_parquet(path, columns=["text", "spam"])
    return LabelledMessages(part["text"].tolist(), part["spam"].to_numpy(np.int32))


def compute_share_done(progress: Progress, folds: int) -> float:
    """Returns the share of all steps of a training that are done, from 0 to 1, without early stopping.

    The networks of the held-out folds are trained first. Each learns from all messages except one fold, so it takes
    (folds - 1) / folds of the steps of the final network.
    """
    fold_share = (folds - 1) / folds if folds else 0.0
    network_done = (progress.epoch - 1 + progress.step / progress.steps) / progress.epochs
    folds_total = folds * fold_share
    all_done = (progress.fold - 1 + network_done) * fold_share if progress.fold else folds_total + network_done
    return all_done / (folds_total + 1)
