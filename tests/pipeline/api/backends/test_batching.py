"""Tests which messages share a batch, with a scorer that notes its calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.inference.scorer import Scores
from pipeline.api.backends.batching import INLINE_MESSAGES, Batching
from pipeline.api.limits import RequestError
from pipeline.api.metrics import Metrics
from tasks.settings.serving import ApiSettings


class Scorer:
    """Gives a text the probability that it spells, and notes each call."""

    threads = 0

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool]] = []
        self.started = 0
        self.release = threading.Event()
        self.release.set()

    def score(self, texts: Sequence[str]) -> Scores:
        in_loop = threading.current_thread() is threading.main_thread()
        self.started += 1
        if not in_loop:
            self.release.wait(60)
        self.calls.append((len(texts), in_loop))
        return Scores(np.array([float(text) for text in texts]), 0.0, 0.0)


def model() -> Any:
    return SimpleNamespace(scorer=Scorer())


def make(**settings: Any) -> Batching:
    return Batching(ApiSettings(**settings), Metrics(), threads=2)


def run(function: Awaitable[Any]) -> Any:
    async def call() -> Any:
        return await function

    return asyncio.run(call())


def test_requests_that_arrive_together_share_a_batch_for_each_version() -> None:
    one, other = model(), model()

    async def ask() -> list[Any]:
        batching = make()
        wanted = [(one, ["0.1"]), (one, ["0.2", "0.3"]), (other, ["0.4"]), (one, ["0.5"])]
        return await asyncio.gather(*(batching.score(scored_by, texts) for scored_by, texts in wanted))

    assert run(ask()) == [[0.1], [0.2, 0.3], [0.4], [0.5]]
    assert one.scorer.calls == [(3, True), (1, True)]
    assert other.scorer.calls == [(1, True)]


@given(st.lists(st.integers(0, 150), max_size=12), st.integers(1, 200))
def test_every_request_gets_its_own_scores_and_no_batch_is_too_large(sizes: list[int], largest: int) -> None:
    scored = model()
    texts = [[str(index + number / 1000) for number in range(size)] for index, size in enumerate(sizes)]

    async def ask() -> list[Any]:
        batching = make(largest_batch=largest)
        return await asyncio.gather(*(batching.score(scored, one) for one in texts))

    assert run(ask()) == [[float(text) for text in one] for one in texts]
    assert all(messages <= max(largest, INLINE_MESSAGES) for messages, _ in scored.scorer.calls)
    assert sum(messages for messages, _ in scored.scorer.calls) == sum(sizes)


def test_a_large_request_runs_in_threads_and_small_ones_meanwhile_in_the_loop() -> None:
    scored = model()
    scored.scorer.release.clear()

    async def ask() -> Any:
        batching = make()
        large = asyncio.create_task(batching.score(scored, ["0.5"] * 600))
        small = await batching.score(scored, ["0.25"])
        assert not large.done()
        scored.scorer.release.set()
        return small, await large

    assert run(ask()) == ([0.25], [0.5] * 600)
    assert scored.scorer.calls[0] == (1, True)
    assert sorted(scored.scorer.calls[1:]) == [(88, False), (256, False), (256, False)]


def test_a_scorer_of_other_devices_runs_in_threads_and_what_waits_shares_a_batch() -> None:
    scored = model()
    scored.scorer.threads = 1
    scored.scorer.release.clear()

    async def ask() -> Any:
        batching = make()
        first = asyncio.create_task(batching.score(scored, ["0.1"]))
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(batching.score(scored, [f"0.{number}"])) for number in range(2, 6)]
        await asyncio.sleep(0.01)
        scored.scorer.release.set()
        return await asyncio.gather(first, *others)

    assert run(ask()) == [[0.1], [0.2], [0.3], [0.4], [0.5]]
    assert scored.scorer.calls == [(1, False), (4, False)]


def test_a_request_over_the_limit_of_waiting_messages_is_refused() -> None:
    scored = model()
    scored.scorer.release.clear()

    async def ask() -> Any:
        batching = make(max_waiting=100)
        waiting = asyncio.create_task(batching.score(scored, ["0.1"] * 80))
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match=r"80 messages wait, and 30 more are over 100.*max_waiting") as refused:
            await batching.score(scored, ["0.2"] * 30)
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        assert await batching.score(scored, ["0.3"]) == [0.3]
        scored.scorer.release.set()
        return await waiting, await batching.score(scored, ["0.2"] * 30)

    assert run(ask()) == ([0.1] * 80, [0.2] * 30)


def test_requests_that_are_cancelled_while_they_wait_are_not_scored() -> None:
    scored = model()
    scored.scorer.release.clear()

    async def ask() -> Any:
        batching = make(largest_batch=100)
        tasks = [asyncio.create_task(batching.score(scored, [text])) for text in ("0.1", "0.2")]
        large = asyncio.create_task(batching.score(scored, ["0.3"] * 500))
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert await tasks[1] == [0.2]
        while scored.scorer.started < 3:
            await asyncio.sleep(0.001)
        large.cancel()
        await asyncio.wait([large])
        scored.scorer.release.set()
        probabilities = await batching.score(scored, ["0.4"] * 80)
        while len(scored.scorer.calls) < 4:  # the calls of the large request may end later
            await asyncio.sleep(0.001)
        return probabilities

    assert run(ask()) == [0.4] * 80
    # Two threads had started with the large request.
    assert sorted(messages for messages, _ in scored.scorer.calls) == [1, 80, 100, 100]


def test_as_many_messages_as_before_are_waited_for_a_moment() -> None:
    scored = model()

    async def ask() -> None:
        batching = make(batch_milliseconds=10)
        for texts in (["0.1"] * 4, ["0.2"], ["0.3"]):
            await asyncio.gather(*(batching.score(scored, [text]) for text in texts))
        first = asyncio.create_task(batching.score(scored, ["0.1"]))
        await asyncio.gather(first, batching.score(scored, ["0.2"]))
        first = asyncio.create_task(batching.score(scored, ["0.1"]))
        for _ in range(3):  # turns of the loop
            await asyncio.sleep(0)
        await asyncio.gather(first, batching.score(scored, ["0.2"]))

    run(ask())
    assert [messages for messages, _ in scored.scorer.calls] == [4, 1, 1, 2, 2]


def test_a_message_that_cannot_be_scored_has_no_probability_and_the_others_have_theirs() -> None:
    scored = model()
    scored.scorer.score = lambda texts: Scores(
        np.array([0.5 if text in ("hello", "fine") else np.nan for text in texts]), 0.0, 0.0
    )
    assert run(make().score(scored, ["fine", "broken", "fine"])) == [0.5, None, 0.5]


def test_a_model_that_fails_ends_the_requests_and_its_error_is_not_quoted() -> None:
    scored = model()

    def fail(texts: Sequence[str]) -> Scores:
        raise RuntimeError(f"cannot score {texts}")

    scored.scorer.score = fail

    async def ask() -> list[Any]:
        batching = make()
        return await asyncio.gather(*(batching.score(scored, ["secret"]) for _ in range(2)), return_exceptions=True)

    for error in run(ask()):
        assert isinstance(error, RequestError)
        assert (error.status, "secret" in str(error)) == (500, False)
