"""Overlaps the stages of a pipeline: each stage works ahead of its consumer, with bounded queues and its own threads.

An error in a stage is raised in the consumer, at the item where it occurred. If the consumer stops, by closing the
iterator or by an error, all threads end. `StageSeconds` measures the time of each stage.
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

_PUT_TIMEOUT = 0.1  # seconds between two checks whether the consumer stopped
_IDLE_WAIT = 0.01  # seconds between two attempts of an idle thread to help
_SWITCH_INTERVAL = 0.0005  # seconds


class StageSeconds:
    """Adds up the seconds of each stage over all threads. Thread-safe."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Adds seconds to a stage."""
        with self._lock:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def total(self, stage: str) -> float:
        """Returns the seconds of a stage so far."""
        return self._seconds.get(stage, 0.0)

    def totals(self) -> dict[str, float]:
        """Returns the seconds of all stages so far."""
        with self._lock:
            return dict(self._seconds)

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the duration of a `with` block to a stage."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(stage, time.monotonic() - started)

    def measure_items(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yields the items, and adds the time spent waiting for each to a stage."""
        iterator = iter(items)
        while True:
            with self.measure(stage):
                item = next(iterator, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]


_END = object()


@contextlib.contextmanager
def short_switch_interval() -> Iterator[None]:
    """Sets Python's thread switch interval to half a millisecond instead of five while the block runs.

    A thread that returns from a matrix product, of which there are thousands per second, waits at most that long for
    the global interpreter lock. With the default interval a core would be idle meanwhile.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def read_ahead(items: Iterator[Item], max_waiting: int) -> Generator[Item]:
    """Reads items in a thread, up to `max_waiting` items before the consumer requests them.

    Args:
        items: the source; the thread closes it if it is a generator.
        max_waiting: maximum number of items in the queue.
    """
    waiting: queue.Queue[object] = queue.Queue(max_waiting)
    stop = threading.Event()
    failures: list[BaseException] = []
    thread = threading.Thread(target=_fill_queue, args=(items, waiting, stop, failures), name="read-ahead", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            yield item  # type: ignore[misc]
        if failures:
            raise failures[0]
    finally:
        stop.set()
        thread.join()


def _fill_queue(
    items: Iterator[Item], waiting: queue.Queue[object], stop: threading.Event, failures: list[BaseException]
) -> None:
    try:
        for item in items:
            if not _put(item, waiting, stop):
                break
    except BaseException as error:
        failures.append(error)
    finally:
        if isinstance(items, Generator):
            items.close()
        _put(_END, waiting, stop)


def _put(item: object, waiting: queue.Queue[object], stop: threading.Event) -> bool:
    """Waits until the queue has space and puts the item; returns False if the consumer stopped."""
    while not stop.is_set():
        try:
            waiting.put(item, timeout=_PUT_TIMEOUT)
        except queue.Full:
            continue
        return True
    return False


def map_in_threads(
    work: Callable[[Item], Result],
    items: Iterator[Item],
    threads: int,
    max_pending: int,
    help_others: Callable[[], bool] = lambda: False,
) -> Generator[Result]:
    """Applies a function to items in several threads, and yields the results in the order of the items.

    Args:
        work: called with one item, in any thread.
        items: the source; closed at the end if it is a generator.
        threads: number of threads.
        max_pending: maximum number of items that wait, are processed, or are done and not yet consumed.
        help_others: called repeatedly by threads that have no item left while other threads still work. Returns whether
            there was something to do.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="stage") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= max_pending:
                    yield pending.popleft().result()
            for _ in range(threads - 1):
                pool.submit(_help_until_done, tuple(pending), help_others)
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            if isinstance(items, Generator):
                items.close()


def _help_until_done(futures: Sequence[Future[Result]], help_others: Callable[[], bool]) -> None:
    while not all(future.done() for future in futures):
        if not help_others():
            wait(futures, timeout=_IDLE_WAIT)
