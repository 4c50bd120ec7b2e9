"""Stages that overlap: each works ahead of the one that asks it, by a bounded number of items, in threads of its own.

What a stage raises reaches who asks, at the item where it was raised. Who stops asking, by closing the iterator or by
an error, ends the threads: none is left behind. `StageSeconds` says where the time went.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_BETWEEN_OFFERS = 0.01
_SECONDS_OF_A_TURN = 0.0005


class StageSeconds:
    """Seconds that stages took, added up over all threads by the name of the stage."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Adds seconds to a stage."""
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def of(self, stage: str) -> float:
        """The seconds of a stage so far."""
        return self._seconds.get(stage, 0.0)

    @contextlib.contextmanager
    def counted(self, stage: str) -> Iterator[None]:
        """Adds the seconds of a block to a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(stage, time.monotonic() - began)

    def asking(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, with the seconds that each was waited for added to a stage."""
        each = iter(items)
        while True:
            with self.counted(stage):
                item = next(each, _NO_MORE)
            if item is _NO_MORE:
                return
            yield item  # type: ignore[misc]


_NO_MORE = object()


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """Threads take Python's lock from one another after half a millisecond, not five.

    One that comes back from a product of matrices, of which there are thousands a second, waits no longer than that for
    one that is busy in Python; a core would stand still meanwhile.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SECONDS_OF_A_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def ahead(items: Iterator[Item], most: int) -> Generator[Item]:
    """Takes items in a thread, up to `most` before they are asked for.

    Args:
        items: what to take; closed by that thread if it can be.
        most: items that wait at once.
    """
    taken: queue.Queue[object] = queue.Queue(most)
    stop = threading.Event()
    failures: list[BaseException] = []
    thread = threading.Thread(target=_take, args=(items, taken, stop, failures), name="ahead", daemon=True)
    thread.start()
    try:
        while (item := taken.get()) is not _NO_MORE:
            yield item  # type: ignore[misc]
        if failures:
            raise failures[0]
    finally:
        stop.set()
        thread.join()


def _take(
    items: Iterator[Item], taken: queue.Queue[object], stop: threading.Event, failures: list[BaseException]
) -> None:
    try:
        for item in items:
            if not _put(item, taken, stop):
                break
    except BaseException as error:
        failures.append(error)
    finally:
        if isinstance(items, Generator):
            items.close()
        _put(_NO_MORE, taken, stop)


def _put(item: object, taken: queue.Queue[object], stop: threading.Event) -> bool:
    """Waits until there is room; False if nobody asks any more."""
    while not stop.is_set():
        try:
            taken.put(item, timeout=_SECONDS_BETWEEN_LOOKS)
        except queue.Full:
            continue
        return True
    return False


def in_threads(
    work: Callable[[Item], Result],
    items: Iterator[Item],
    threads: int,
    most: int,
    meanwhile: Callable[[], bool] = lambda: False,
) -> Generator[Result]:
    """Does work on items in several threads, and gives the results in the order of the items.

    Args:
        work: called with one item, in any thread.
        items: what to work on; closed at the end if it can be.
        threads: how many.
        most: items that wait, are worked on, or are done and not asked for.
        meanwhile: called again and again by the threads that have no item any more, while others do; returns whether
            there was something to do.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="stage") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= most:
                    yield waiting.popleft().result()
            for _ in range(threads - 1):
                pool.submit(_until_done, tuple(waiting), meanwhile)
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
            if isinstance(items, Generator):
                items.close()


def _until_done(last: Sequence[Future[Result]], meanwhile: Callable[[], bool]) -> None:
    while not all(one.done() for one in last):
        if not meanwhile():
            wait(last, timeout=_SECONDS_BETWEEN_OFFERS)
