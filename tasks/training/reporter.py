"""Reports the progress of the trainings of a model, and handles the messages that a person sends meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from models.settings import TrainingSettings
from models.training.epoch_limit import EpochLimit
from models.training.job import Progress
from tasks.scheduler.progress import ProgressReport, format_time_left
from tasks.scheduler.scheduler_messages import SchedulerMessage
from tasks.training.plan import FINAL, describe_network


class TrainingReporter:
    """Reports the progress of all networks, and handles the messages `stop` and `checkpoint` from Luigi's page.

    If a training is stopped, all networks that are not finished are limited to the same epoch: the networks that
    calibrate the model must be trained like the model.

    Attributes:
        save: writes a checkpoint of each running training and returns their names; the caller sets it.
    """

    def __init__(
        self, report: ProgressReport, settings: TrainingSettings, limit: EpochLimit | None, finished: int = 0
    ) -> None:
        """Starts to accept messages, if there is a limit.

        Args:
            report: the progress report of the task.
            settings: the [training] section.
            limit: the limit that `stop` sets; None in a worker that follows another one.
            finished: number of held-out folds that were finished by an earlier run.
        """
        self._report, self._settings, self._finished_folds = report, settings, finished
        self._is_final_finished = False
        self._running: dict[int, Progress] = {}
        self._first_step: tuple[float, float] | None = None  # its end, in seconds, and the share done by then
        self.save: Callable[[], str] = self._save_running
        if limit:
            report.accept_messages(
                SchedulerMessage(
                    "stop", "finish the epoch, keep the best one, and calibrate", lambda: self._stop(limit)
                ),
                SchedulerMessage("checkpoint", "write a checkpoint now", self._checkpoint),
            )

    def step(self, number: int, progress: Progress) -> None:
        """Reports a training step of a network."""
        self._running[number] = progress
        self.update()

    def finish(self, number: int) -> None:
        """Reports that a network is trained."""
        self._running.pop(number, None)
        if number == FINAL:
            self._is_final_finished = True
        else:
            self._finished_folds += 1

    def update(self) -> None:
        """Shows the progress and handles messages and SIGTERM. Call it every second or more often.

        The estimate of the time left omits the first step, which compiles the network.
        """
        folds = self._settings.held_out_folds
        done = compute_share_done(self._running, self._finished_folds, folds, self._is_final_finished)
        if not self._running:
            self._report.update(done, 1, "starting")
            return
        now = time.monotonic()
        self._first_step = self._first_step or (now, done)
        status = _describe(self._running, folds)
        started, done_before = self._first_step
        if done > done_before:
            status += f", {format_time_left((1 - done) * (now - started) / (done - done_before))}"
        self._report.update(done, 1, status)

    def _stop(self, limit: EpochLimit) -> str:
        if not self._running:
            return "no training has begun yet; send stop again later"
        last, epochs = (
            limit.stop_after(max(progress.epoch for progress in self._running.values())),
            self._settings.epochs,
        )
        scope = "; all networks that are not finished are limited to that epoch" if any(self._running) else ""
        return f"stopping after epoch {last} of {epochs}{scope}. The best epoch is kept."

    def _checkpoint(self) -> str:
        if not self._running:
            return "no training has begun yet"
        return f"written: {self.save()}"

    def _save_running(self) -> str:
        return ", ".join(progress.save() for progress in self._running.values())


def _describe(running: dict[int, Progress], folds: int) -> str:
    """Describes the running trainings: ``epoch 4/10, loss 0.061`` for the final network alone."""
    parts = [
        f"{f'{describe_network(number, folds)}, ' if number or len(running) > 1 else ''}"
        f"epoch {progress.epoch}/{progress.epochs}, loss {progress.loss:.3f}"
        for number, progress in sorted(running.items())
    ]
    return "; ".join(parts)


def compute_share_done(
    running: dict[int, Progress], finished_folds: int, folds: int, is_final_finished: bool = False
) -> float:
    """Returns the share of all steps of a model's trainings that are done, from 0 to 1, without early stopping.

    A fold's network learns from all messages except one fold, so it takes (folds - 1) / folds of the steps of the final
    network.

    Args:
        running: progress of the networks that are being trained, by number.
        finished_folds: number of folds that are finished.
        folds: number of folds.
        is_final_finished: whether the final network is finished.
    """
    fold_share = (folds - 1) / folds if folds else 0.0
    done = finished_folds * fold_share + is_final_finished
    for number, progress in running.items():
        network_done = (progress.epoch - 1 + progress.step / progress.steps) / progress.epochs
        done += network_done * (1.0 if number == FINAL else fold_share)
    return done / (folds * fold_share + 1)
