"""What TrainModel trains: the final network, and a network for each held-out fold."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.settings import DeviceSettings, NetworkSettings, TrainingSettings
from models.text.vocabulary import Vocabulary
from models.training.epoch_limit import EpochLimit
from models.training.folds import Fold
from models.training.job import LabelledMessages, Progress, TrainingSummary, WeakMessages

if TYPE_CHECKING:
    from models.training.replicas import Replicas
    from models.training.warm_start import WarmStart

FINAL = 0  # the number of the final network; those of the folds count from 1


@dataclass(frozen=True)
class TrainingPlan:
    """The networks of a model, and what they are trained with. The final network has the number 0.

    Attributes:
        training: the training part.
        validation: the validation part.
        vocabulary: the vocabulary for encoding the messages.
        network: the architecture of the networks.
        settings: the [training] section.
        folds: the held-out folds of the training part.
        folder: the folder of the training.
        start: values that the final network starts with; those of the folds always start with random ones.
        weaker: messages that a teacher labelled, for all networks.
    """

    training: LabelledMessages
    validation: LabelledMessages
    vocabulary: Vocabulary
    network: NetworkSettings
    settings: TrainingSettings
    folds: list[Fold]
    folder: Path
    start: WarmStart | None = None
    weaker: WeakMessages | None = None

    def list_unfinished(self) -> list[int]:
        """Lists the numbers of the networks to train: the folds that are not finished, then the final network."""
        return [*(fold.number for fold in self.folds if not fold.is_finished), FINAL]

    def train(
        self, number: int, on_progress: Callable[[Progress], None], replicas: Replicas | None = None
    ) -> TrainingSummary | None:
        """Trains a network in this process. Returns the summary of the final network, and None for that of a fold."""
        from models.training.held_out import train_fold
        from models.training.loop import train

        limit = EpochLimit(self.folder)
        if number == FINAL:
            return train(
                self.training, self.validation, self.vocabulary, self.network, self.settings, self.folder, on_progress,
                limit, replicas, self.start, self.weaker,
            ).summarize()  # fmt: skip
        train_fold(
            self.training, self.folds[number - 1], self.vocabulary, self.network, self.settings, on_progress, limit,
            replicas, self.weaker,
        )  # fmt: skip
        return None

    def train_all(
        self, devices: DeviceSettings, on_step: Callable[[int, Progress], None], on_finish: Callable[[int], None]
    ) -> TrainingSummary:
        """Trains the networks that are not finished in this process, one after the other.

        Args:
            devices: the [devices] section.
            on_step: called after every step, with the number of the network.
            on_finish: called after every network, with its number.
        """
        from models.network.devices import select_devices
        from models.training.replicas import Replicas, create_strategy

        replicas = Replicas(create_strategy(select_devices(devices)), self.settings.shards)
        summary = None
        for number in self.list_unfinished():
            summary = self.train(number, functools.partial(on_step, number), replicas)
            on_finish(number)
        assert summary is not None, "the final network is the last one"  # noqa: S101
        return summary


def describe_network(number: int, folds: int) -> str:
    """Returns a network's name for the status: ``final network`` or ``held-out fold 2/3``."""
    return f"held-out fold {number}/{folds}" if number else "final network"
