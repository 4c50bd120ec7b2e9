"""SIGTERM: the run ends within seconds, at a place from which the next one goes on.

The handler is inherited by the processes that tasks run in. Most work ends at once. Work that must not end anywhere
(a training step, a chunk) defers it and asks between two pieces, by way of `tasks.scheduler.progress`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from tasks.scheduler.failures import remember

EXIT_CODE = 128 + signal.SIGTERM

_deferred = False
_requested = False


class Terminated(SystemExit):
    """Ends the process with the exit code of SIGTERM."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)

    def __str__(self) -> str:
        return "ended by SIGTERM; run the same command again, it goes on from here"


def install() -> None:
    """Handles SIGTERM in this process and those it forks, unless somebody else does already."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _handle)


def _handle(_number: int, _frame: FrameType | None) -> None:
    global _requested
    _requested = True
    if not _deferred:
        end_if_requested()


def end_if_requested() -> None:
    """Ends the process if it was asked to.

    Raises:
        Terminated: it was.
    """
    if _requested:
        remember(str(Terminated()))
        raise Terminated


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within, SIGTERM waits for the next `end_if_requested`."""
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False
