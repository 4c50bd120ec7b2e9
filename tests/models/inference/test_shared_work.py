"""Shared work: every piece runs once, and its error is raised in the calling thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.inference.shared_work import SharedWork


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(0, 30), max_size=4), helpers=st.integers(0, 3))
def test_every_piece_of_every_call_runs_once_before_the_call_returns(counts: list[int], helpers: int) -> None:
    work, finished = SharedWork(), threading.Event()
    run_counts = [[0] * count for count in counts]

    def call(counts_of_call: list[int]) -> bool:
        def piece(index: int) -> None:
            counts_of_call[index] += 1

        work.run([lambda index=index: piece(index) for index in range(len(counts_of_call))])
        return all(count == 1 for count in counts_of_call)

    def keep_helping() -> None:
        while not finished.is_set():
            work.help()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(helpers):
            pool.submit(keep_helping)
        try:
            assert all(pool.map(call, run_counts))
        finally:
            finished.set()
    assert not work.help()


def test_an_idle_thread_takes_a_piece_of_a_busy_thread() -> None:
    work, started, helped = SharedWork(), threading.Event(), threading.Event()
    names: list[str] = []

    def first() -> None:
        started.set()
        assert helped.wait(60)

    def second() -> None:
        names.append(threading.current_thread().name)
        helped.set()

    caller = threading.Thread(target=work.run, args=([first, second],), name="caller")
    caller.start()
    assert started.wait(60)
    assert work.help()
    caller.join(60)
    assert names == [threading.current_thread().name]


def test_an_error_of_a_piece_is_raised_in_the_caller_and_not_in_the_helper() -> None:
    work, started, helped = SharedWork(), threading.Event(), threading.Event()

    def first() -> None:
        started.set()
        assert helped.wait(60)

    def second() -> None:
        raise KeyError("piece")

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(work.run, [first, second])
        assert started.wait(60)
        assert work.help()
        helped.set()
        with pytest.raises(KeyError, match="piece"):
            call.result(60)
    assert not work.help()


def test_seconds_are_counted_for_each_calling_thread() -> None:
    work = SharedWork()
    work.run([lambda: sum(range(100_000))])
    assert work.seconds() > 0
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work.seconds).result() == 0
