"""How far a task is: a bar where a person is watching, a line now and then where not, percentage and status in Luigi's
visualizer.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import luigi

from tasks.scheduler.scheduler_messages import Instruction, Instructions
from tasks.scheduler.status import Teller
from tasks.scheduler.termination import deferred, end_if_requested
from tasks.settings.loading import load
from tasks.settings.operation import ConsoleSettings

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

log = logging.getLogger("spamscore")

Row = TypeVar("Row")
SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_LOOKS = 0.2
_ROWS_BETWEEN_UPDATES = 1000
# Of a total that is a guess, so that nothing is said to be done before it is.
_MOST_OF_A_GUESS = 0.99


class ProgressReport:
    """Takes how much is done and what to say; shows it where somebody looks, and hears what they say to it."""

    def __init__(self, teller: Teller, title: str, bar: Progress | None = None, row: TaskID | None = None) -> None:
        self._teller, self._title, self._bar, self._row = teller, title, bar, row
        self._said = time.monotonic()
        self._instructions: Instructions | None = None

    def update(self, done: float, total: float, status: str) -> None:
        """Says that `done` of `total` is done, does what was said to the task, and ends the work here if SIGTERM came.

        Args:
            done: in any unit.
            total: in the same unit.
            status: a short line such as ``epoch 4/12, loss 0.061``.

        Raises:
            Terminated: somebody asked the run to end.
        """
        end_if_requested()
        self._show(done, total, status)
        if self._instructions is not None:
            self._instructions.follow()
            while self._instructions.paused:
                self._show(done, total, f"paused by a message, send resume to go on: {status}")
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                end_if_requested()
                self._instructions.follow()

    def hears(self, *known: Instruction) -> None:
        """From now on the task does what is said to it on Luigi's page, if it is one of these."""
        self._instructions = Instructions(self._teller, known)

    def link(self, address: str) -> None:
        """Where Luigi's page leads who wants to see more of the task."""
        self._teller.link(address)

    def conclude(self, status: str) -> None:
        """Says how it ended: the visualizer goes on showing it."""
        self._teller.tell(100.0, status)

    def counted(self, rows: Iterable[Row], expected: int | None) -> Iterator[Row]:
        """Hands rows on and says how many have gone by.

        Args:
            rows: anything.
            expected: about how many there will be; None where nobody knows.
        """
        began, number = time.monotonic(), 0
        for number, row in enumerate(rows, start=1):
            yield row
            if number % _ROWS_BETWEEN_UPDATES == 0:
                rate = number / max(time.monotonic() - began, 1e-9)
                of = f" of about {expected:,}" if expected else ""
                done = min(number / expected, _MOST_OF_A_GUESS) if expected else 0
                self.update(done, 1, f"{number:,}{of} messages read, {rate:,.0f} a second")
        self.update(1, 1, f"{number:,} messages read")

    def _show(self, done: float, total: float, status: str) -> None:
        percentage = 100.0 * done / max(total, 1)
        if self._bar is not None and self._row is not None:
            self._bar.update(self._row, completed=percentage, status=status)
        elif (now := time.monotonic()) - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            log.info("%s: %.0f %%, %s", self._title, percentage, status)
        self._teller.tell(percentage, status)


@contextlib.contextmanager
def reporting(task: luigi.Task, title: str, ends_anywhere: bool = False) -> Iterator[ProgressReport]:
    """A report for one task, with a bar on stderr if that is a terminal and [console] progress allows it.

    Args:
        task: the task.
        title: what it does, for the bar.
        ends_anywhere: whether SIGTERM may end the work within at any place; otherwise only at an `update`.
    """
    with contextlib.ExitStack() as stack:
        if not ends_anywhere:
            stack.enter_context(deferred())
        teller = stack.enter_context(Teller(task))
        yield stack.enter_context(_bar(teller, title))


@contextlib.contextmanager
def _bar(teller: Teller, title: str) -> Iterator[ProgressReport]:
    if load(ConsoleSettings).progress == "never" or not sys.stderr.isatty():
        yield ProgressReport(teller, title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = ("{task.description}", BarColumn(), "{task.percentage:>3.0f} %", TextColumn("{task.fields[status]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield ProgressReport(teller, title, bar, bar.add_task(title, total=100, status=""))


def left(seconds: float) -> str:
    """How long something will go on, as a person says it: `40 s left`, `2 min left`, `3.5 h left`."""
    if seconds < 90:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h left"
