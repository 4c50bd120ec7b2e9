"""Scores the messages of requests that wait together in one call of the network."""

from __future__ import annotations

import asyncio
import logging
import math
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
    """The messages of a small request, and the future of their probabilities."""

    model: LoadedModel
    texts: Sequence[str]
    answer: asyncio.Future[Probabilities]


class Batching:
    """The small requests that wait for the next batch, and the threads that score large ones."""

    def __init__(self, settings: ApiSettings, metrics: Metrics, threads: int) -> None:
        self._settings, self._metrics = settings, metrics
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="scoring")
        self._queue: deque[_Waiting] = deque()
        self._queued = 0  # messages in the queue
        self._expected = 1  # messages of the latest batch
        self._planned = False
        self._timer: asyncio.TimerHandle | None = None
        self._in_threads = 0  # small requests' batches that are in threads
        self._unfinished = 0
        metrics.waiting.set_function(lambda: self._unfinished)

    async def score(self, model: LoadedModel, texts: list[str]) -> Probabilities:
        """Scores messages: few ones together with those of other requests for the same version.

        Returns:
            The spam probability of each message; None for a message that cannot be scored.

        Raises:
            RequestError: too many messages wait already, or the model fails.
        """
        limit = self._settings.max_waiting
        if self._unfinished and self._unfinished + len(texts) > limit:
            raise RequestError(
                TOO_MANY,
                f"{self._unfinished:,} messages wait, and {len(texts):,} more are over {limit:,}, the limit of "
                "[api] max_waiting; try again later",
                1,
            )
        self._unfinished += len(texts)
        try:
            if len(texts) <= INLINE_MESSAGES:
                return await self._enqueue(model, texts) if texts else []
            size = self._settings.largest_batch
            pieces = [texts[start : start + size] for start in range(0, len(texts), size)]
            scores = await asyncio.gather(*(self._score_in_thread(model, piece) for piece in pieces))
            return [probability for piece in scores for probability in piece]
        finally:
            self._unfinished -= len(texts)

    def close(self) -> None:
        """Ends the threads once their batches are scored."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _enqueue(self, model: LoadedModel, texts: Sequence[str]) -> asyncio.Future[Probabilities]:
        answer: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(model, texts, answer))
        self._queued += len(texts)
        self._plan()
        return answer

    def _plan(self) -> None:
        """Plans the next batch: at once if as many messages wait as the latest batch had, else at the end of the wait.

        Clients that wait for an answer before they send the next message come again as many as they were. A single one
        never waits.
        """
        if self._planned:
            return
        seconds = self._settings.batch_milliseconds / 1000
        if self._queued >= self._expected or not seconds:
            self._plan_now()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._score_next)

    def _score_next(self) -> None:
        """Scores one batch: in the event loop on a CPU, in a thread on other devices."""
        self._planned = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue and self._in_threads >= (self._queue[0].model.scorer.threads or math.inf):
            return  # what waits meanwhile shares the next batch
        batch = self._take_batch()
        if batch:
            model, texts = batch[0].model, [text for waiting in batch for text in waiting.texts]
            self._expected = len(texts)
            if model.scorer.threads:
                self._in_threads += 1
                scoring = asyncio.create_task(self._score_in_thread(model, texts))
                scoring.add_done_callback(partial(self._finish, batch))
            else:
                self._score_in_loop(batch, model, texts)
        if self._queue:
            self._plan_now()

    def _plan_now(self) -> None:
        self._planned = True
        asyncio.get_running_loop().call_soon(self._score_next)

    def _finish(self, batch: list[_Waiting], done: asyncio.Future[Probabilities]) -> None:
        self._in_threads -= 1
        _answer(batch, done)
        if self._queue and not self._planned:
            self._plan_now()

    def _take_batch(self) -> list[_Waiting]:
        """Takes the first requests for one version off the queue, without those whose client has left."""
        batch: list[_Waiting] = []
        messages, largest = 0, min(self._settings.largest_batch, INLINE_MESSAGES)
        while self._queue:
            first = self._queue[0]
            if not first.answer.done():
                messages += len(first.texts)
                if batch and (first.model is not batch[0].model or messages > largest):
                    break
                batch.append(first)
            self._queue.popleft()
            self._queued -= len(first.texts)
        return batch

    def _score_in_loop(self, batch: list[_Waiting], model: LoadedModel, texts: Sequence[str]) -> None:
        done: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
        try:
            done.set_result(self._score(model, texts))
        except RequestError as error:
            done.set_exception(error)
        _answer(batch, done)

    async def _score_in_thread(self, model: LoadedModel, texts: Sequence[str]) -> Probabilities:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._score, model, texts)

    def _score(self, model: LoadedModel, texts: Sequence[str]) -> Probabilities:
        """Scores one batch.

        Raises:
            RequestError: the model fails. Its error may quote a message, so only its class is logged.
        """
        from models.inference.scorer import score_isolating_failures

        self._metrics.batches.observe(len(texts))
        try:
            result = score_isolating_failures(model.scorer, texts)
        except Exception as error:
            log.error("a batch cannot be scored: %s. Check the model: spamscore selftest", type(error).__name__)
            self._metrics.backend_failures.labels(type(error).__name__).inc()
            raise RequestError(INTERNAL, "the model cannot score messages; the log has the error") from None
        probabilities: Probabilities = result.scores.probabilities.tolist()
        for index in result.failures:
            probabilities[index] = None
        return probabilities


def _answer(batch: list[_Waiting], done: asyncio.Future[Probabilities]) -> None:
    """Hands the scores of a batch, or its error, to the requests."""
    error = done.exception()
    start = 0
    for waiting in batch:
        stop = start + len(waiting.texts)
        if waiting.answer.done():
            pass
        elif error:
            waiting.answer.set_exception(error)
        else:
            waiting.answer.set_result(done.result()[start:stop])
        start = stop
