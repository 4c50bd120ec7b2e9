"""Scores the messages of requests that wait together in one call of the network."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pipeline.api.limits import TOO_MANY, RequestError

if TYPE_CHECKING:
    from pipeline.answers.probabilities import LoadedModel
    from tasks.settings.serving import ApiSettings

Probabilities = list[float | None]

# A call of this many messages takes few milliseconds, so it runs in the event loop: no change of thread, and the
# requests that arrive meanwhile wait in their sockets and share the next batch. A larger one runs in a thread.
INLINE_MESSAGES = 64


class _Waiting(NamedTuple):
    model: LoadedModel
    texts: Sequence[str]
    answer: asyncio.Future[Probabilities]


class Batching:
    """The messages that wait, and the threads that score large batches."""

    def __init__(self, settings: ApiSettings, threads: int) -> None:
        self._settings = settings
        self._queue: deque[_Waiting] = deque()
        self._messages = 0
        self._planned = False
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="scoring")
        self._idle_threads = threads

    async def score(self, model: LoadedModel, texts: list[str]) -> Probabilities:
        """Scores messages, together with those of other requests for the same model.

        Raises:
            RequestError: too many messages wait already.
        """
        if self._messages + len(texts) > self._settings.max_waiting and self._messages:
            raise RequestError(
                TOO_MANY, f"{self._messages:,} messages wait, near the limit of [api] max_waiting; try again later", 1
            )
        size = self._settings.largest_batch
        if len(texts) <= size:
            return await self._put(model, texts)
        pieces = [self._put(model, texts[start : start + size]) for start in range(0, len(texts), size)]
        return [probability for piece in await asyncio.gather(*pieces) for probability in piece]

    def _put(self, model: LoadedModel, texts: Sequence[str]) -> asyncio.Future[Probabilities]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(model, texts, loop.create_future())
        self._queue.append(waiting)
        self._messages += len(texts)
        self._plan(loop, self._settings.batch_milliseconds / 1000)
        return waiting.answer

    def _plan(self, loop: asyncio.AbstractEventLoop, seconds: float = 0.0) -> None:
        if not self._planned:
            self._planned = True
            if seconds:
                loop.call_later(seconds, self._score_next)
            else:
                loop.call_soon(self._score_next)

    def _score_next(self) -> None:
        """Scores the next batch: here if it is small, else in a thread as soon as one is free."""
        self._planned = False
        loop = asyncio.get_running_loop()
        while self._queue and (self._idle_threads or len(self._queue[0].texts) <= INLINE_MESSAGES):
            batch = self._take_batch()
            texts = [text for waiting in batch for text in waiting.texts]
            if not texts:
                continue
            if len(texts) <= INLINE_MESSAGES:
                try:
                    _answer(batch, _score(batch[0].model, texts))
                except Exception as error:
                    _fail(batch, error)
                if self._queue:
                    self._plan(loop)
                return
            self._idle_threads -= 1
            future = loop.run_in_executor(self._pool, _score, batch[0].model, texts)
            future.add_done_callback(partial(self._finish, batch))

    def _take_batch(self) -> list[_Waiting]:
        """Takes the first requests for one model off the queue, without those whose client has left."""
        batch: list[_Waiting] = []
        messages = 0
        while self._queue:
            first = self._queue[0]
            if batch and (
                first.model is not batch[0].model or messages + len(first.texts) > self._settings.largest_batch
            ):
                break
            self._queue.popleft()
            self._messages -= len(first.texts)
            if not first.answer.done():
                batch.append(first)
                messages += len(first.texts)
        return batch

    def _finish(self, batch: list[_Waiting], done: asyncio.Future[Probabilities]) -> None:
        self._idle_threads += 1
        if error := done.exception():
            _fail(batch, error)
        else:
            _answer(batch, done.result())
        self._score_next()

    def close(self) -> None:
        """Ends the threads once their batches are scored."""
        self._pool.shutdown(wait=False)


def _score(model: LoadedModel, texts: Sequence[str]) -> Probabilities:
    from models.inference.scorer import score_isolating_failures

    result = score_isolating_failures(model.scorer, texts)
    probabilities: Probabilities = result.scores.probabilities.tolist()
    for index in result.failures:
        probabilities[index] = None
    return probabilities


def _answer(batch: list[_Waiting], probabilities: Probabilities) -> None:
    start = 0
    for waiting in batch:
        stop = start + len(waiting.texts)
        if not waiting.answer.done():
            waiting.answer.set_result(probabilities[start:stop])
        start = stop


def _fail(batch: list[_Waiting], error: BaseException) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
