"""The stage TrainModel: trains the recurrent network. A killed training resumes from its latest checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luigi.util import requires

from models.settings import DeviceSettings, NetworkSettings, TrainingSettings
from models.training.epoch_limit import EpochLimit
from tasks.artifacts.links import link_to, tensorboard_link
from tasks.artifacts.locations import TRAININGS, VOCABULARY
from tasks.artifacts.warm_start import load_warm_start, start_fingerprint
from tasks.build_vocabulary import BuildVocabulary
from tasks.clean_text import CleanText
from tasks.scheduler.progress import ProgressReport, report_progress
from tasks.settings.loading import load
from tasks.settings.operation import ConsoleSettings
from tasks.stage import FolderStage, prepare_tensorflow, processor_threads
from tasks.training.membership import read_membership

if TYPE_CHECKING:
    from models.training.job import LabelledMessages, TrainingSummary, WeakMessages
    from tasks.training.machines import Chief
    from tasks.training.membership import Membership
    from tasks.training.plan import TrainingPlan
    from tasks.training.reporter import TrainingReporter


@requires(CleanText, BuildVocabulary)
class TrainModel(FolderStage):
    """Trains the network on the training part, stops early by the validation part, calibrates with held-out scores."""

    folder = TRAININGS
    sections = (NetworkSettings, TrainingSettings)
    code_version = 4
    uses_tensorflow = True
    resumes = True
    accepts_messages = True
    _chief: Chief | None = None  # set while this machine leads a training on several
    _followed = False  # whether this machine has taken part in a training that another one led

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        members = read_membership(load(TrainingSettings), os.environ)
        if members and members.worker:
            # Luigi's scheduler gives a task to one worker alone, and this one must run on every machine.
            self.task_id = f"{self.task_id}_worker_{members.worker}"

    def complete(self) -> bool:
        """Returns whether the model is trained, on this machine or with the worker that has the result."""
        return self._followed or super().complete()

    def run(self) -> None:
        """Trains on this machine; with several workers, leads the training or follows the worker that leads it."""
        members = read_membership(load(TrainingSettings), os.environ)
        if members is None:
            super().run()
        elif members.worker:
            self._follow(members)
        else:
            self._lead(members)

    def fingerprint_parts(self) -> dict[str, Any]:
        """Adds [training] shards and the content of the weights that the training starts from, if they are set."""
        settings = load(TrainingSettings)
        shards = {"shards": settings.shards} if settings.shards else {}
        return {**super().fingerprint_parts(), **shards, **start_fingerprint(settings)}

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the training and validation parts, trains, calibrates, and writes the model's description."""
        from models.trained_model.description import collect_unseen_scores, write_trained_model
        from models.training.folds import read_held_out_logits
        from models.training.history import HISTORY
        from tasks.training.reporter import TrainingReporter

        plan, limit = self._plan(folder), EpochLimit(folder)
        with report_progress(self, "training") as progress:
            progress.link(tensorboard_link(self.output().path) or link_to(self.output().path / HISTORY))
            finished = sum(fold.is_finished for fold in plan.folds)
            trained = self._train(plan, TrainingReporter(progress, plan.settings, limit, finished), progress)
            progress.conclude(describe_training(trained, plan.settings, limit))
        held_out = (read_held_out_logits(plan.folds), plan.training) if plan.folds else None
        unseen = collect_unseen_scores(trained, plan.validation, held_out)
        facts = self.describe_weaker_messages()
        return write_trained_model(trained, plan.vocabulary, plan.network, unseen, folder, limit, plan.start, facts)

    def _plan(self, folder: Path) -> TrainingPlan:
        from models.text.vocabulary import load_vocabulary
        from models.training.folds import split_folds
        from tasks.training.plan import TrainingPlan

        messages, vocabulary_folder = self.input()[:2]
        vocabulary = load_vocabulary(vocabulary_folder.file(VOCABULARY))
        network, settings = load(NetworkSettings), load(TrainingSettings)
        if settings.start_from:
            prepare_tensorflow()  # reads the weights
        training = read_labelled_part(messages.file("training.parquet"))
        return TrainingPlan(
            training,
            read_labelled_part(messages.file("validation.parquet")),
            vocabulary,
            network,
            settings,
            split_folds(training, settings, folder),
            folder,
            # Before any training, so that a source that does not fit is refused at once.
            load_warm_start(settings, network, vocabulary, messages.manifest()["made_of"]["settings"]["split"]),
            self.read_weaker_messages(),
        )

    def read_weaker_messages(self) -> WeakMessages | None:
        """Reads messages that a teacher labelled; none here, as this model is trained on labelled messages alone."""
        return None

    def describe_weaker_messages(self) -> dict[str, Any] | None:
        """Returns the facts on these messages for the description of the model."""
        return None

    def _train(self, plan: TrainingPlan, reporter: TrainingReporter, progress: ProgressReport) -> TrainingSummary:
        """Trains the networks: with other machines, in several processes, or one after the other in this process."""
        from tasks.training.side_by_side import count_processes, train_side_by_side

        devices, console = load(DeviceSettings), load(ConsoleSettings)
        if self._chief:
            return self._chief.train(plan, devices, console, reporter, lambda status: progress.update(0, 1, status))
        cores = processor_threads(devices)
        if (processes := count_processes(plan, devices, cores)) > 1:
            return train_side_by_side(plan, processes, cores, devices, console, reporter)
        prepare_tensorflow()
        return plan.train_all(devices, reporter.step, reporter.finish)

    def _lead(self, members: Membership) -> None:
        from tasks.training.machines import Chief, describe_model

        self._chief = Chief(members, describe_model(self.fingerprint_parts()), load(TrainingSettings).worker_timeout)
        try:
            super().run()
        except BaseException as error:
            self._chief.end(error)
            raise
        self._chief.end(None)

    def _follow(self, members: Membership) -> None:
        from tasks.training.machines import describe_model, follow_chief
        from tasks.training.reporter import TrainingReporter

        settings = load(TrainingSettings)
        with report_progress(self, "training") as progress:
            follow_chief(
                members, describe_model(self.fingerprint_parts()), self._plan, settings.worker_timeout,
                load(DeviceSettings), load(ConsoleSettings), TrainingReporter(progress, settings, None),
                lambda status: progress.update(0, 1, status),
            )  # fmt: skip
            self._followed = True
            progress.conclude(f"trained; {members.describe(0)} has the result")


def describe_training(trained: TrainingSummary, settings: TrainingSettings, limit: EpochLimit) -> str:
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

    from models.training.job import LabelledMessages

    part = pd.read_parquet(path, columns=["text", "spam"])
    return LabelledMessages(part["text"].tolist(), part["spam"].to_numpy(np.int32))
