"""Scores the messages of requests that wait together in one call of the network."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pipeline.api.limits import INTERNAL, TOO_MANY, RequestError

if TYPE_CHECKING:
    from pipeline.answers.probabilities import LoadedModel
    from pipeline.api.metrics import Metrics
    from tasks.settings.serving import ApiSettings

log = logging.getLogger("spamscore")

Probabilities = list[float | None]

# A call with this many messages takes a few milliseconds, so it runs in the event loop: no change of thread, and the
# requests that arrive meanwhile wait in their sockets and share the next batch. A larger one runs in a thread.
INLINE_MESSAGES = 64


class _Waiting(NamedTuple):
    """Messages of one request, at most one batch, and the future of their probabilities."""

    model: LoadedModel
    texts: Sequence[str]
    answer: asyncio.Future[Probabilities]


class Batching:
    """The messages that wait, and the threads that score large batches."""

    def __init__(self, settings: ApiSettings, metrics: Metrics, threads: int) -> None:
        self._settings, self._metrics = settings, metrics
        self._queue: deque[_Waiting] = deque()
        self._messages = 0
        self._expected = 1
        self._soon = False
        self._timer: asyncio.TimerHandle | None = None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="scoring")
        self._idle_threads = threads
        metrics.waiting.set_function(lambda: self._messages)

    async def score(self, model: LoadedModel, texts: list[str]) -> Probabilities:
        """Scores messages, together with those of other requests for the same version.

        Returns:
            The spam probability of each message; None for a message that cannot be scored.

        Raises:
            RequestError: too many messages wait already, or the model fails.
        """
        if not texts:
            return []
        limit = self._settings.max_waiting
        if self._messages and self._messages + len(texts) > limit:
            raise RequestError(
                TOO_MANY,
                f"{self._messages:,} messages wait, and {len(texts):,} more are over {limit:,}, the limit of "
                "[api] max_waiting; try again later",
                1,
            )
        size = self._settings.largest_batch
        if len(texts) <= size:
            return await self._put(model, texts)
        pieces = [self._put(model, texts[start : start + size]) for start in range(0, len(texts), size)]
        return [probability for piece in await asyncio.gather(*pieces) for probability in piece]

    def close(self) -> None:
        """Ends the threads once their batches are scored."""
        self._pool.shutdown(wait=False)

    def _put(self, model: LoadedModel, texts: Sequence[str]) -> asyncio.Future[Probabilities]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(model, texts, loop.create_future())
        self._queue.append(waiting)
        self._messages += len(texts)
        self._plan(loop)
        return waiting.answer

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        """Plans the next batch: at once if as many messages wait as the latest batch had, else at the end of the wait.

        Clients that wait for an answer before they send the next message arrive again as many as they were. A single
        one never waits.
        """
        if self._soon:
            return
        seconds = self._settings.batch_milliseconds / 1000
        if self._messages >= self._expected or not seconds:
            self._soon = True
            loop.call_soon(self._score_next)
        elif self._timer is None:
            self._timer = loop.call_later(seconds, self._score_next)

    def _score_next(self) -> None:
        """Scores one batch in the event loop if it is small, and large ones in threads as long as one is idle."""
        self._soon = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while batch := self._take_batch():
            texts = [text for waiting in batch for text in waiting.texts]
            self._metrics.batches.observe(len(texts))
            self._expected = min(len(texts), INLINE_MESSAGES)
            if _is_inline(batch[0].model, len(texts)):
                try:
                    _answer(batch, _score(batch[0].model, texts))
                except Exception as error:
                    self._fail(batch, error)
                if self._queue:
                    self._soon = True
                    loop.call_soon(self._score_next)
                return
            self._idle_threads -= 1
            future = loop.run_in_executor(self._pool, _score, batch[0].model, texts)
            future.add_done_callback(partial(self._finish, batch))

    def _take_batch(self) -> list[_Waiting]:
        """Takes the first requests for one version off the queue, without those whose client has left.

        Returns:
            The batch; empty if nothing waits, or if the batch needs a thread and none is idle.
        """
        batch: list[_Waiting] = []
        messages = 0
        while self._queue:
            first = self._queue[0]
            if not first.answer.done():
                messages += len(first.texts)
                if not self._fits(batch, first, messages):
                    break
                batch.append(first)
            self._queue.popleft()
            self._messages -= len(first.texts)
        return batch

    def _fits(self, batch: list[_Waiting], waiting: _Waiting, messages: int) -> bool:
        """Returns whether a request can join a batch, which then has so many messages."""
        if batch and (waiting.model is not batch[0].model or messages > self._settings.largest_batch):
            return False
        return self._idle_threads > 0 or _is_inline(waiting.model, messages)

    def _finish(self, batch: list[_Waiting], done: asyncio.Future[Probabilities]) -> None:
        self._idle_threads += 1
        if error := done.exception():
            self._fail(batch, error)
        else:
            _answer(batch, done.result())
        self._score_next()

    def _fail(self, batch: list[_Waiting], error: BaseException) -> None:
        """Ends the requests of a batch. The error may quote a message, so only its class is logged."""
        log.error("a batch cannot be scored: %s. Check the model: spamscore selftest", type(error).__name__)
        self._metrics.backend_failures.labels(type(error).__name__).inc()
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_exception(
                    RequestError(INTERNAL, "the model cannot score messages; the log of the front end has the error")
                )


def _is_inline(model: LoadedModel, messages: int) -> bool:
    """Returns whether a batch is scored in the event loop. The networks of other devices than a CPU need a thread."""
    return messages <= INLINE_MESSAGES and model.scorer.threads == 0


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
