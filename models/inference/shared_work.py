"""Calls that are made of pieces, each done by the thread that calls or by one that has nothing else to do."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

Piece = Callable[[], None]


class SharedWork:
    """The calls that are going on. Any number of threads may call and help."""

    def __init__(self) -> None:
        self._calls: list[deque[tuple[Piece, Future[float]]]] = []
        self._own = threading.local()

    def run(self, pieces: Sequence[Piece]) -> None:
        """Does pieces in their order, whatever of them another thread takes, and waits until all are done.

        Raises:
            Exception: what a piece raised; the first one's that did.
        """
        done: list[Future[float]] = [Future() for _ in pieces]
        left = deque(zip(pieces, done, strict=True))
        self._calls.append(left)
        try:
            while _do_one(left):
                pass
        finally:
            self._calls.remove(left)
        self._own.seconds = self.seconds() + sum(one.result() for one in done)

    def help(self) -> bool:
        """Does a piece of a call of another thread, if there is one; whether there was."""
        return any(_do_one(left) for left in tuple(self._calls))

    def seconds(self) -> float:
        """Seconds of a processor that all calls of this thread have taken, whoever did their pieces."""
        return getattr(self._own, "seconds", 0.0)


def _do_one(left: deque[tuple[Piece, Future[float]]]) -> bool:
    try:
        piece, done = left.popleft()
    except IndexError:
        return False
    began = time.thread_time()
    try:
        piece()
    except BaseException as error:
        done.set_exception(error)
    else:
        done.set_result(time.thread_time() - began)
    return True
