"""Handles SIGTERM: the run ends within seconds, at a point from which the next run continues.

The processes that tasks run in inherit the handler. Most work ends at once. Work that must not be interrupted (a
training step, a chunk) defers termination and checks for it between two units of work, through
`tasks.scheduler.progress`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from tasks.scheduler.failures import record_failure

EXIT_CODE = 128 + signal.SIGTERM

_deferred = False
_requested = False


class Terminated(SystemExit):
    """Ends the process with the exit code of SIGTERM."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)

    def __str__(self) -> str:
        return "ended by SIGTERM; run the same command again to continue from here"


def install() -> None:
    """Handles SIGTERM in this process and those it forks, unless another handler is installed."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _handle)


def _handle(_number: int, _frame: FrameType | None) -> None:
    global _requested
    _requested = True
    if not _deferred:
        terminate_if_requested()


def terminate_if_requested() -> None:
    """Ends the process if SIGTERM was received.

    Raises:
        Terminated: SIGTERM was received.
    """
    if _requested:
        record_failure(str(Terminated()))
        raise Terminated


@contextlib.contextmanager
def defer_termination() -> Iterator[None]:
    """Defers SIGTERM within the block to the next call of `terminate_if_requested`."""
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False
