"""Overlapping stages: items in order, errors at their item, and no thread left running."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Generator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.scoring.overlap import StageSeconds, map_in_threads, read_ahead, short_switch_interval


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def chain(items: Iterator[int], threads: int, limit: int) -> Generator[int]:
    return map_in_threads(lambda item: item * 2, read_ahead(read_ahead(items, limit), limit), threads, limit)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(0, 40), threads=st.integers(1, 4), limit=st.integers(1, 5))
def test_every_item_is_yielded_once_and_in_order(count: int, threads: int, limit: int) -> None:
    assert list(chain(iter(range(count)), threads, limit)) == [2 * item for item in range(count)]


def failing(after: int) -> Iterator[int]:
    yield from range(after)
    raise ValueError(f"after {after}")


@pytest.mark.parametrize("after", [0, 1, 7])
def test_an_error_in_a_stage_is_raised_after_the_earlier_items(after: int) -> None:
    with pytest.raises(ValueError, match=f"after {after}"):
        list(chain(failing(after), 2, 2))
    items = read_ahead(failing(after), 2)
    assert [next(items) for _ in range(after)] == list(range(after))
    with pytest.raises(ValueError, match=f"after {after}"):
        next(items)


def test_an_error_in_the_work_is_raised_at_its_item_and_ends_the_stages() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise KeyError(item)
        return item

    results = map_in_threads(work, read_ahead(iter(range(100)), 2), 3, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)


@pytest.mark.parametrize("consumed", [0, 1, 5])
def test_a_consumer_that_stops_ends_every_stage_and_closes_the_source(consumed: int) -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    with contextlib.closing(chain(source(), 2, 2)) as results:
        for _ in range(consumed):
            next(results)
    assert closed == [True] or not consumed


def test_no_stage_works_further_ahead_than_its_limit() -> None:
    produced = []

    def source() -> Iterator[int]:
        for item in range(100):
            produced.append(item)
            yield item

    gate = threading.Event()
    results = map_in_threads(lambda item: gate.wait(10) and item, read_ahead(source(), 2), 1, 3)
    first = threading.Thread(target=next, args=(results,))
    first.start()
    while len(produced) < 6:
        gate.wait(0.01)
    gate.wait(0.2)
    assert len(produced) <= 3 + 2 + 1
    gate.set()
    first.join()
    results.close()


def test_seconds_of_stages_add_up_over_threads() -> None:
    seconds = StageSeconds()
    with seconds.measure("text"):
        pass
    seconds.add("text", 1.5)
    assert seconds.total("text") >= 1.5
    assert seconds.total("network") == 0.0
    assert list(seconds.measure_items("read", [1, 2, 3])) == [1, 2, 3]
    assert seconds.total("read") > 0


def test_the_short_switch_interval_ends_with_its_block_even_after_an_error() -> None:
    before = sys.getswitchinterval()
    with contextlib.suppress(KeyError), short_switch_interval():
        assert sys.getswitchinterval() < before / 2
        raise KeyError
    assert sys.getswitchinterval() == before


def test_threads_without_an_item_help_and_end_with_the_others() -> None:
    helped = threading.Event()

    def work(item: int) -> int:
        assert helped.wait(60)
        return item

    def help_others() -> bool:
        helped.set()
        return False

    assert list(map_in_threads(work, iter([1]), 2, 3, help_others)) == [1]
