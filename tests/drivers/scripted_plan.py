"""A plan whose networks are scripts instead of trainings, for tests of the process that trains them."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from models.errors import InputError
from models.training.job import Progress, TrainingSummary

LOGS, ENDLESS, EXPECTED_ERROR, UNEXPECTED_ERROR, KILLED, SHORT = range(1, 7)


class ScriptedPlan:
    """Takes the place of a `TrainingPlan` with six folds. Checkpoints are lines of a file."""

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints
        self.folds = [None] * 6
        self.settings = SimpleNamespace(shards=0)

    def train(self, number: int, on_progress: Callable[[Progress], None], _replicas: object) -> TrainingSummary | None:
        """Runs the script with this number."""
        if number == LOGS:
            log = logging.getLogger("spamscore")
            log.info("epoch %d", 1)
            log.debug("hidden")
        elif number == ENDLESS:
            step = 0
            while True:
                step += 1
                time.sleep(0.01)
                self._step(step, on_progress)
        elif number == EXPECTED_ERROR:
            raise InputError("row 3: expected spam or ham.")
        elif number == UNEXPECTED_ERROR:
            raise ZeroDivisionError
        elif number == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    def _step(self, step: int, on_progress: Callable[[Progress], None]) -> None:
        """Reports a step, and saves a checkpoint if the callback raises, as `models.training.loop` does."""
        try:
            on_progress(Progress(1, 1, step, step, 0.5, lambda: self._save(step)))
        except BaseException:
            self._save(step)
            raise

    def _save(self, step: int) -> str:
        with self.checkpoints.open("a") as file:
            file.write(f"ckpt-{step}\n")
        return f"ckpt-{step}"
