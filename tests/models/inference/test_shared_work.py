"""Work that threads share: every piece is done once, and what one raises reaches who called."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.inference.shared_work import SharedWork


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(0, 30), max_size=4), helpers=st.integers(0, 3))
def test_every_piece_of_every_call_is_done_once_before_the_call_ends(counts: list[int], helpers: int) -> None:
    work, over = SharedWork(), threading.Event()
    done = [[0] * count for count in counts]

    def call(mine: list[int]) -> bool:
        def piece(place: int) -> None:
            mine[place] += 1

        work.run([lambda place=place: piece(place) for place in range(len(mine))])
        return all(one == 1 for one in mine)

    def help_on() -> None:
        while not over.is_set():
            work.help()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(helpers):
            pool.submit(help_on)
        try:
            assert all(pool.map(call, done))
        finally:
            over.set()
    assert not work.help()


def test_a_thread_with_nothing_to_do_takes_a_piece_while_another_is_busy() -> None:
    work, began, helped = SharedWork(), threading.Event(), threading.Event()
    names: list[str] = []

    def first() -> None:
        began.set()
        assert helped.wait(60)

    def second() -> None:
        names.append(threading.current_thread().name)
        helped.set()

    caller = threading.Thread(target=work.run, args=([first, second],), name="caller")
    caller.start()
    assert began.wait(60)
    assert work.help()
    caller.join(60)
    assert names == [threading.current_thread().name]


def test_what_a_piece_raises_reaches_who_called_and_not_who_helped() -> None:
    work, began, helped = SharedWork(), threading.Event(), threading.Event()

    def first() -> None:
        began.set()
        assert helped.wait(60)

    def second() -> None:
        raise KeyError("piece")

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(work.run, [first, second])
        assert began.wait(60)
        assert work.help()
        helped.set()
        with pytest.raises(KeyError, match="piece"):
            call.result(60)
    assert not work.help()


def test_the_seconds_of_a_call_are_its_threads_own() -> None:
    work = SharedWork()
    work.run([lambda: sum(range(100_000))])
    assert work.seconds() > 0
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work.seconds).result() == 0
