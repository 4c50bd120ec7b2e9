"""TrainModel: the recurrent network, trained with checkpoints; killed and started again it goes on from the latest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luigi.util import requires

from models.settings import NetworkSettings, TrainingSettings
from tasks.artifacts.links import link_to, tensorboard_link
from tasks.artifacts.locations import TRAININGS, VOCABULARY
from tasks.build_vocabulary import BuildVocabulary
from tasks.clean_text import CleanText
from tasks.scheduler.progress import ProgressReport, left, reporting
from tasks.scheduler.scheduler_messages import Instruction
from tasks.settings.loading import load
from tasks.stage import FolderStage, prepare_tensorflow

if TYPE_CHECKING:
    from models.training.epoch_limit import EpochLimit
    from models.training.loop import LabelledMessages, Progress, TrainingResult


@requires(CleanText, BuildVocabulary)
class TrainModel(FolderStage):
    """Trains the network on the training part; stops early by the validation part; calibrates by unseen messages."""

    folder = TRAININGS
    sections = (NetworkSettings, TrainingSettings)
    code_version = 3
    resumes = True
    accepts_messages = True

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the parts, trains, calibrates, and describes the result beside its checkpoints."""
        prepare_tensorflow()
        from models.text.vocabulary import load_vocabulary
        from models.training.epoch_limit import EpochLimit
        from models.training.held_out import compute_held_out_logits
        from models.training.loop import HISTORY, train
        from models.training.trained_model import collect_unseen_scores, write_trained_model

        messages, vocabulary_folder = self.input()
        vocabulary = load_vocabulary(vocabulary_folder.file(VOCABULARY))
        training = labelled_part(messages.file("training.parquet"))
        validation = labelled_part(messages.file("validation.parquet"))
        network, settings = load(NetworkSettings), load(TrainingSettings)
        limit = EpochLimit(folder)
        with reporting(self, "training") as report:
            report.link(tensorboard_link(self.output().path) or link_to(self.output().path / HISTORY))
            watch = Watch(report, settings, limit)
            held_out = None
            if settings.held_out_folds:
                held_out = (
                    compute_held_out_logits(training, vocabulary, network, settings, folder, watch, limit),
                    training,
                )
            trained = train(training, validation, vocabulary, network, settings, folder, watch, limit)
            report.conclude(ended(trained, settings, limit))
        unseen = collect_unseen_scores(trained, vocabulary, network, validation, held_out)
        return write_trained_model(trained, vocabulary, network, unseen, folder, limit)


class Watch:
    """Says where training is, and does what is said to it on Luigi's page: `stop` and `checkpoint`.

    Stopped in a held-out part, every network after it has no more epochs than that one: what calibrates the model must
    be of its make.
    """

    def __init__(self, report: ProgressReport, settings: TrainingSettings, limit: EpochLimit) -> None:
        self._report, self._settings, self._limit = report, settings, limit
        self._now: Progress  # there before anything is heard
        self._from: tuple[float, float] | None = None  # when the first step was done, and what share that was
        report.hears(
            Instruction("stop", "finish the epoch, keep the best, go on to calibration", self._stop),
            Instruction("checkpoint", "write one now", self._checkpoint),
        )

    def __call__(self, progress: Progress) -> None:
        """Is told of every step. The time left counts from the first, which compiles the network."""
        self._now, folds = progress, self._settings.held_out_folds
        now, done = time.monotonic(), share_done(progress, folds)
        self._from = self._from or (now, done)
        part = f"held-out part {progress.fold}/{folds}, " if progress.fold else ""
        status = f"{part}epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.3f}"
        if done > self._from[1]:
            status += f", {left((1 - done) * (now - self._from[0]) / (done - self._from[1]))}"
        self._report.update(done, 1, status)

    def _stop(self) -> str:
        last, fold = self._limit.stop_after(self._now.epoch), self._now.fold
        part = f" of the held-out part {fold}; what comes after it has no more epochs" if fold else ""
        return f"stopping after epoch {last} of {self._now.epochs}{part}. The best epoch is kept."

    def _checkpoint(self) -> str:
        return f"written: {self._now.save()}"


def ended(trained: TrainingResult, settings: TrainingSettings, limit: EpochLimit) -> str:
    """How the training ended, in a line."""
    stopped = " (stopped by a message)" if limit.shortens(settings.epochs) else ""
    best = trained.history[trained.best_epoch - 1]
    return (
        f"{len(trained.history)} epochs{stopped}; the best is epoch {best.epoch}, validation loss "
        f"{best.validation_loss:.3f}"
    )


def labelled_part(path: Path) -> LabelledMessages:
    """Reads a part that CleanText wrote."""
    import numpy as np
    import pandas as pd

    from models.training.loop import LabelledMessages

    part = pd.read_parquet(path, columns=["text", "spam"])
    return LabelledMessages(part["text"].tolist(), part["spam"].to_numpy(np.int32))


def share_done(progress: Progress, folds: int) -> float:
    """How much of a training is done, of all its networks, from 0 to 1; early stopping not foreseen.

    The folds come first. Each of their networks learns from all messages but a fold, so it takes that share of steps.
    """
    part = (folds - 1) / folds if folds else 0.0
    here = (progress.epoch - 1 + progress.step / progress.steps) / progress.epochs
    return ((progress.fold - 1 + here) * part if progress.fold else folds * part + here) / (folds * part + 1)
