"""Calls that are divided into pieces, which the calling thread shares with idle threads."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

Piece = Callable[[], None]


class SharedWork:
    """The calls in progress. Any number of threads may call `run` and `help`."""

    def __init__(self) -> None:
        self._calls: list[deque[tuple[Piece, Future[float]]]] = []
        self._thread = threading.local()

    def run(self, pieces: Sequence[Piece]) -> None:
        """Runs the pieces in order, except those that other threads take, and waits until all are done.

        Raises:
            Exception: the error of the first piece that failed.
        """
        if len(pieces) == 1:  # which no other thread could take in time
            start = time.thread_time()
            pieces[0]()
            self._thread.seconds = self.seconds() + time.thread_time() - start
            return
        futures: list[Future[float]] = [Future() for _ in pieces]
        pending = deque(zip(pieces, futures, strict=True))
        self._calls.append(pending)
        try:
            while _run_next(pending):
                pass
        finally:
            self._calls.remove(pending)
        self._thread.seconds = self.seconds() + sum(future.result() for future in futures)

    def help(self) -> bool:
        """Runs a piece of another thread's call. Returns False if there is none."""
        return any(_run_next(pending) for pending in tuple(self._calls))

    def seconds(self) -> float:
        """Returns the CPU seconds of all calls of this thread, including pieces that other threads ran."""
        return getattr(self._thread, "seconds", 0.0)


def _run_next(pending: deque[tuple[Piece, Future[float]]]) -> bool:
    try:
        piece, future = pending.popleft()
    except IndexError:
        return False
    start = time.thread_time()
    try:
        piece()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(time.thread_time() - start)
    return True
