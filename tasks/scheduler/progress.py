"""Shows the progress of a task: as a bar in a terminal, as log lines without one, and as percentage and status on
Luigi's page.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import luigi

from tasks.scheduler.scheduler_messages import MessageHandler, SchedulerMessage
from tasks.scheduler.status import StatusReporter
from tasks.scheduler.termination import defer_termination, terminate_if_requested
from tasks.settings.loading import load
from tasks.settings.operation import ConsoleSettings

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger("spamscore")

Row = TypeVar("Row")
SECONDS_BETWEEN_LINES = 30.0
_PAUSE_POLL_SECONDS = 0.2
_ROWS_BETWEEN_UPDATES = 1000
# Maximum share done of an estimated total, so that work is not shown as finished before it is.
_MAX_ESTIMATED_SHARE = 0.99


class ProgressReport:
    """Shows the progress of one task, and handles the messages and signals that the task receives meanwhile."""

    def __init__(
        self, status: StatusReporter, title: str, bar: Progress | None = None, bar_id: TaskID | None = None
    ) -> None:
        self._status, self._title, self._bar, self._bar_id = status, title, bar, bar_id
        self._logged_at = time.monotonic()
        self._messages: MessageHandler | None = None

    def update(self, done: float, total: float, status: str) -> None:
        """Shows that `done` of `total` is done, and handles pending messages. If SIGTERM came, the work ends here.

        Args:
            done: in any unit.
            total: in the same unit.
            status: a short line such as ``epoch 4/12, loss 0.061``.

        Raises:
            Terminated: SIGTERM was received.
        """
        terminate_if_requested()
        self._show(done, total, status)
        if self._messages is not None:
            self._messages.handle_pending()
            while self._messages.paused:
                self._show(done, total, f"paused by a message, send resume to continue: {status}")
                time.sleep(_PAUSE_POLL_SECONDS)
                terminate_if_requested()
                self._messages.handle_pending()

    @property
    def paused(self) -> bool:
        """Whether a message paused the task."""
        return self._messages is not None and self._messages.paused

    def accept_messages(self, *supported: SchedulerMessage) -> None:
        """Makes the task handle these messages from Luigi's page from now on."""
        self._messages = MessageHandler(self._status, supported)

    def link(self, url: str) -> None:
        """Sets the URL that Luigi's page links the task to."""
        self._status.set_link(url)

    def conclude(self, status: str) -> None:
        """Shows the result of the task. Luigi's page keeps showing it."""
        self._status.set_status(100.0, status)

    def count_rows(self, rows: Iterable[Row], expected: int | None) -> Iterator[Row]:
        """Yields the rows and shows how many were read.

        Args:
            rows: anything.
            expected: estimated number of rows; None if unknown.
        """
        started, number = time.monotonic(), 0
        for number, row in enumerate(rows, start=1):
            yield row
            if number % _ROWS_BETWEEN_UPDATES == 0:
                rate = number / max(time.monotonic() - started, 1e-9)
                estimate = f" of about {expected:,}" if expected else ""
                done = min(number / expected, _MAX_ESTIMATED_SHARE) if expected else 0
                self.update(done, 1, f"{number:,}{estimate} messages read, {rate:,.0f} a second")
        self.update(1, 1, f"{number:,} messages read")

    def _show(self, done: float, total: float, status: str) -> None:
        percentage = 100.0 * done / max(total, 1)
        if self._bar is not None and self._bar_id is not None:
            self._bar.update(self._bar_id, completed=percentage, status=status)
        elif (now := time.monotonic()) - self._logged_at >= SECONDS_BETWEEN_LINES:
            self._logged_at = now
            log.info("%s: %.0f %%, %s", self._title, percentage, status)
        self._status.set_status(percentage, status)


@contextlib.contextmanager
def report_progress(task: luigi.Task, title: str, interruptible: bool = False) -> Iterator[ProgressReport]:
    """Gives the progress report of a task, with a bar on stderr if it is a terminal and [console] progress allows it.

    Args:
        task: the task.
        title: what the task does, for the bar and the log.
        interruptible: whether SIGTERM may end the block at any point; otherwise it ends only at an `update`.
    """
    with contextlib.ExitStack() as stack:
        if not interruptible:
            stack.enter_context(defer_termination())
        status = stack.enter_context(StatusReporter(task))
        yield stack.enter_context(_show_bar(status, title))


@contextlib.contextmanager
def _show_bar(status: StatusReporter, title: str) -> Iterator[ProgressReport]:
    if load(ConsoleSettings).progress == "never" or not sys.stderr.isatty():
        yield ProgressReport(status, title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = ("{task.description}", BarColumn(), "{task.percentage:>3.0f} %", TextColumn("{task.fields[status]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield ProgressReport(status, title, bar, bar.add_task(title, total=100, status=""))


def format_time_left(seconds: float) -> str:
    """Formats a remaining time with one unit: `40 s left`, `2 min left`, `3.5 h left`."""
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h left"
