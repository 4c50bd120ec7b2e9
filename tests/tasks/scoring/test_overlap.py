"""Stages that overlap: all items in order, errors where they belong, no thread left behind."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Generator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.scoring.overlap import StageSeconds, ahead, in_threads, short_turns


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def chain(items: Iterator[int], threads: int, most: int) -> Generator[int]:
    return in_threads(lambda one: one * 2, ahead(ahead(items, most), most), threads, most)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(0, 40), threads=st.integers(1, 4), most=st.integers(1, 5))
def test_every_item_comes_once_and_in_order(count: int, threads: int, most: int) -> None:
    assert list(chain(iter(range(count)), threads, most)) == [2 * one for one in range(count)]


def failing(after: int) -> Iterator[int]:
    yield from range(after)
    raise ValueError(f"after {after}")


@pytest.mark.parametrize("after", [0, 1, 7])
def test_what_a_stage_raises_comes_after_the_items_before_it(after: int) -> None:
    with pytest.raises(ValueError, match=f"after {after}"):
        list(chain(failing(after), 2, 2))
    items = ahead(failing(after), 2)
    assert [next(items) for _ in range(after)] == list(range(after))
    with pytest.raises(ValueError, match=f"after {after}"):
        next(items)


def test_what_work_raises_comes_at_its_item_and_ends_the_rest() -> None:
    def work(one: int) -> int:
        if one == 3:
            raise KeyError(one)
        return one

    results = in_threads(work, ahead(iter(range(100)), 2), 3, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_who_stops_asking_ends_every_stage_and_closes_the_source(taken: int) -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    with contextlib.closing(chain(source(), 2, 2)) as results:
        for _ in range(taken):
            next(results)
    assert closed == [True] or not taken


def test_no_stage_runs_further_ahead_than_it_may() -> None:
    made = []

    def source() -> Iterator[int]:
        for one in range(100):
            made.append(one)
            yield one

    gate = threading.Event()
    results = in_threads(lambda one: gate.wait(10) and one, ahead(source(), 2), 1, 3)
    first = threading.Thread(target=next, args=(results,))
    first.start()
    while len(made) < 6:
        gate.wait(0.01)
    gate.wait(0.2)
    assert len(made) <= 3 + 2 + 1
    gate.set()
    first.join()
    results.close()


def test_seconds_of_stages_add_up_over_threads() -> None:
    seconds = StageSeconds()
    with seconds.counted("text"):
        pass
    seconds.add("text", 1.5)
    assert seconds.of("text") >= 1.5
    assert seconds.of("network") == 0.0
    assert list(seconds.asking("read", [1, 2, 3])) == [1, 2, 3]
    assert seconds.of("read") > 0


def test_short_turns_end_with_their_block_however_it_ends() -> None:
    before = sys.getswitchinterval()
    with contextlib.suppress(KeyError), short_turns():
        assert sys.getswitchinterval() < before / 2
        raise KeyError
    assert sys.getswitchinterval() == before


def test_threads_without_an_item_do_what_there_is_meanwhile_and_end_with_the_others() -> None:
    helped = threading.Event()

    def work(one: int) -> int:
        assert helped.wait(60)
        return one

    def meanwhile() -> bool:
        helped.set()
        return False

    assert list(in_threads(work, iter([1]), 2, 3, meanwhile)) == [1]
