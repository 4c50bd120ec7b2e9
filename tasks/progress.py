"""How far a task is: a bar where a person is watching, percentage and status in Luigi's visualizer.

The scheduler may be slow or gone; telling it is throttled, and a failure ends the telling, never the work.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import luigi

from tasks.settings import ConsoleSettings, load
from tasks.termination import deferred, end_if_requested

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger("spamscore")
_SECONDS_BETWEEN = 2.0


class ProgressReport:
    """Takes how much is done and what to say; shows it where somebody looks."""

    def __init__(self, task: luigi.Task, bar: Progress | None = None, row: TaskID | None = None) -> None:
        self._task, self._bar, self._row = task, bar, row
        self._told = 0.0
        self._telling = True

    def update(self, done: float, total: float, status: str) -> None:
        """Says that `done` of `total` is done, and ends the work here if SIGTERM came.

        Args:
            done: in any unit.
            total: in the same unit.
            status: a short line such as ``epoch 4/12, loss 0.061``.

        Raises:
            Terminated: somebody asked the run to end.
        """
        end_if_requested()
        if self._bar is not None and self._row is not None:
            self._bar.update(self._row, completed=done, total=max(total, 1), status=status)
        now = time.monotonic()
        if self._telling and now - self._told >= _SECONDS_BETWEEN:
            self._told = now
            self._tell(100.0 * done / max(total, 1), status)

    def conclude(self, status: str) -> None:
        """Says how it ended, whatever was said a moment before: the visualizer goes on showing it."""
        if self._telling:
            self._tell(100.0, status)

    def _tell(self, percentage: float, status: str) -> None:
        # None outside a worker.
        if self._task.set_status_message is None or self._task.set_progress_percentage is None:
            return
        try:
            self._task.set_status_message(status)
            self._task.set_progress_percentage(percentage)
        except Exception as error:  # whatever the scheduler's client raises must not end the work
            log.warning("the scheduler no longer takes the progress of %s (%s); the work goes on", self._task, error)
            self._telling = False


@contextlib.contextmanager
def reporting(task: luigi.Task, title: str) -> Iterator[ProgressReport]:
    """A report for one task, with a bar on stderr if that is a terminal and [console] progress allows it.

    Within, SIGTERM ends the work only at an `update`.
    """
    with deferred(), _bar(task, title) as report:
        yield report


@contextlib.contextmanager
def _bar(task: luigi.Task, title: str) -> Iterator[ProgressReport]:
    if load(ConsoleSettings).progress == "never" or not sys.stderr.isatty():
        yield ProgressReport(task)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = ("{task.description}", BarColumn(), "{task.percentage:>3.0f} %", TextColumn("{task.fields[status]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield ProgressReport(task, bar, bar.add_task(title, total=1, status=""))
