"""Defines Luigi tasks that run until a test lets them end: `--module waiting_tasks Waiting --number 3`.

Each task requires the task with the number before. Task 2 runs until the file `go-2` exists, then writes `done-2`.
"""

from __future__ import annotations

import time
from pathlib import Path

import luigi

import pipeline  # noqa: F401 - every run imports it
from tasks.scheduler.progress import report_progress
from tasks.scheduler.scheduler_messages import PAUSE, RESUME
from tasks.settings.loading import load
from tasks.settings.operation import ConsoleSettings
from tasks.stage import configure_logging


class Waiting(luigi.Task):
    """A task that ends when the file `go-<number>` exists."""

    number = luigi.IntParameter(description="position in the chain, from 1")
    accepts_messages = True
    resources = {"seat": 1}  # noqa: RUF012 - declared as in Luigi

    def __init__(self, number: int) -> None:
        super().__init__(number)
        configure_logging(load(ConsoleSettings))

    def requires(self) -> list[luigi.Task]:
        return [Waiting(self.number - 1)] if self.number > 1 else []

    def output(self) -> luigi.LocalTarget:
        return luigi.LocalTarget(f"done-{self.number}")

    def run(self) -> None:
        with report_progress(self, "waiting") as report:
            report.link(f"http://reports.internal/{self.number}")
            report.accept_messages(PAUSE, RESUME)
            rounds = 0
            while not Path(f"go-{self.number}").exists():
                rounds += 1
                report.update(self.number, 10, f"round {rounds}")
                time.sleep(0.05)
            report.conclude("it may end")
        Path(f"done-{self.number}").touch()
