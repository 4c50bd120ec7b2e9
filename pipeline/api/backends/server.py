"""Lets TensorFlow Serving score messages, over gRPC. The server forms the batches.

Import this module before a thread imports TensorFlow (`pipeline.client.protocol`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from models.errors import ServerError, SpamscoreError
from pipeline.api.backends.backend import NotServedError, Scores, VersionState, Wanted
from pipeline.api.backends.circuit_breaker import OPEN_SECONDS, CircuitBreaker
from pipeline.api.limits import INTERNAL, TOO_MANY, UNAVAILABLE, RequestError
from pipeline.client.grpc_client import AsyncGrpcClient, GrpcClient
from pipeline.client.server import MAX_CALL_MESSAGES, configured_server
from pipeline.client.server import Scores as ServerScores
from tasks.artifacts.model_config import STABLE
from tasks.settings.loading import load
from tasks.settings.scoring import AUTO, ScoringSettings

if TYPE_CHECKING:
    from pipeline.answers.explanations import ExplainedMessage
    from pipeline.api.metrics import Metrics
    from tasks.settings.serving import ApiSettings

log = logging.getLogger("spamscore")

_POLL_SECONDS = 1.0
_DECIMALS = 6
# A float32 probability of 0 or 1 has no logit. The smallest difference from 1 is 2**-24.
_MIN_PROBABILITY = 2.0**-25
Answer = TypeVar("Answer")


class ServerBackend:
    """A connection to TensorFlow Serving ([serving] server), with deadline and circuit breaker."""

    def __init__(self, settings: ApiSettings, metrics: Metrics) -> None:
        """Connects at the first call.

        Raises:
            SettingsError: [serving] is not valid.
        """
        self._settings, self._metrics = settings, metrics
        self._server = configured_server()
        self._client: AsyncGrpcClient | None = None
        self._breaker = CircuitBreaker()
        self._thresholds: dict[int, float] = {}
        self._waiting = 0
        self._problem: str | None = f"{self._server.address} is not asked yet"
        self._watch: asyncio.Task[None] | None = None
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="explaining")
        metrics.waiting.set_function(lambda: self._waiting)

    async def start(self) -> None:
        """Asks the server every second which version is in service."""
        self._watch = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Closes the connection."""
        if self._watch:
            self._watch.cancel()
        if self._client:
            await self._client.close()
        self._explaining.shutdown(wait=False, cancel_futures=True)

    def problem(self) -> str | None:
        """Returns why the server does not answer; None if it does."""
        return self._problem

    def warning(self) -> str | None:
        """Returns None: what is wrong with the server is a problem."""
        return None

    async def score(self, texts: list[str], wanted: Wanted) -> Scores:
        """Scores messages, also empty ones."""
        limit = self._settings.max_waiting
        if self._waiting and self._waiting + len(texts) > limit:
            raise RequestError(
                TOO_MANY, f"{self._waiting:,} messages wait, and {limit:,} is the limit of [api] max_waiting", 1
            )
        self._waiting += len(texts)
        try:
            return await self._score(texts, wanted)
        finally:
            self._waiting -= len(texts)

    async def _score(self, texts: list[str], wanted: Wanted) -> Scores:
        if not texts:
            version = await self.resolve(wanted)
            return Scores([], await self._threshold(version), version)
        probabilities: list[float | None] = []
        version, size = 0, min(self._settings.largest_batch, MAX_CALL_MESSAGES)
        for start in range(0, len(texts), size):
            piece = texts[start : start + size]
            answer = await self._ask(wanted, partial(_predict, piece, self._settings.timeout))
            probabilities += np.round(answer.probabilities.astype(np.float64), _DECIMALS).tolist()
            # All pieces of a request are of one version, also if the label moves meanwhile.
            version, wanted = answer.version, Wanted(answer.version)
        return Scores(probabilities, await self._threshold(version), version)

    async def explain(self, text: str, wanted: Wanted) -> ExplainedMessage:
        """Finds the words that changed the score of a message."""
        version = await self.resolve(wanted)
        threshold = await self._threshold(version)
        loop = asyncio.get_running_loop()
        return await self._noted(
            Wanted(version), loop.run_in_executor(self._explaining, self._explain, text, version, threshold)
        )

    def _explain(self, text: str, version: int, threshold: float) -> ExplainedMessage:
        from pipeline.answers.explanations import MessageExplainer

        with GrpcClient(configured_server(version=version)) as client:
            scorer = _RemoteScorer(client)
            return MessageExplainer(version, scorer, threshold).explain(text)  # type: ignore[arg-type]

    async def resolve(self, wanted: Wanted) -> int:
        """Returns the version that a request asks for."""
        metadata = await self._ask(wanted, lambda client: client.metadata())
        return metadata.version

    async def versions(self) -> list[VersionState]:
        """Returns the versions that the server has loaded or could not load."""
        statuses = await self._ask(Wanted(), lambda client: client.status())
        return [VersionState(one.version, one.error) for one in statuses if one.error or one.state == "AVAILABLE"]

    async def _ask(self, wanted: Wanted, call: Callable[[AsyncGrpcClient], Awaitable[Answer]]) -> Answer:
        """Makes a call, unless the circuit is open."""
        if not self._breaker.lets_pass():
            raise RequestError(
                UNAVAILABLE, f"TensorFlow Serving at {self._server.address} does not answer", round(OPEN_SECONDS)
            )
        self._client = self._client or AsyncGrpcClient(self._server)
        client = self._client.asking(wanted.version, None if wanted.version else wanted.label or STABLE)
        return await self._noted(wanted, call(client))

    async def _noted(self, wanted: Wanted, call: Awaitable[Answer]) -> Answer:
        """Awaits a call, and tells the circuit breaker how it ended."""
        try:
            answer = await call
        except ServerError as error:
            self._metrics.backend_failures.labels(error.kind).inc()
            if error.temporary:
                self._breaker.fail()
                raise RequestError(UNAVAILABLE, str(error), 1) from None
            self._breaker.succeed()
            if error.kind == "not served":
                raise NotServedError(wanted) from None
            raise RequestError(INTERNAL, str(error)) from None
        finally:
            self._metrics.circuit_open.set(self._breaker.is_open)
        self._breaker.succeed()
        return answer

    async def _threshold(self, version: int) -> float:
        if version not in self._thresholds:
            try:
                self._thresholds[version] = await asyncio.to_thread(_read_threshold, version)
            except (SpamscoreError, OSError) as error:
                raise RequestError(
                    UNAVAILABLE,
                    f"the threshold of version {version} is not known: {error} Or set [scoring] threshold.",
                ) from None
        return self._thresholds[version]

    async def _follow(self) -> None:
        while True:
            try:
                version = await self.resolve(Wanted())
                await self._threshold(version)
                self._metrics.version.set(version)
                problem = None
            except RequestError as error:
                problem = str(error)
            if problem and problem != self._problem:
                log.error("%s", problem)
            self._problem = problem
            self._metrics.ready.set(problem is None)
            await asyncio.sleep(_POLL_SECONDS)


def _predict(texts: list[str], timeout: float, client: AsyncGrpcClient) -> Awaitable[ServerScores]:
    return client.predict(texts, timeout)


def _read_threshold(version: int) -> float:
    from tasks.artifacts.trainings import verified_training_folder
    from tasks.scoring.scorer import load_threshold

    setting = load(ScoringSettings).threshold
    return float(setting) if setting != AUTO else load_threshold(verified_training_folder(version)).value


class _RemoteScorer:
    """The part of `models.inference.scorer.Scorer` that an explanation needs, computed by the server."""

    def __init__(self, client: GrpcClient) -> None:
        self._client = client

    def encode(self, texts: Sequence[str]) -> Sequence[str]:
        """Returns the texts, which the server encodes."""
        return texts

    def logits(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Returns the logits of messages, float64 [messages]."""
        pieces = [texts[start : start + MAX_CALL_MESSAGES] for start in range(0, len(texts), MAX_CALL_MESSAGES)]
        scores = np.concatenate([self._client.predict(piece).probabilities for piece in pieces]).astype(np.float64)
        scores = scores.clip(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
        logits: npt.NDArray[np.float64] = np.log(scores) - np.log1p(-scores)
        return logits
