"""Scores messages in this process, with the model version in service."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from models.settings import DeviceSettings
from pipeline.api.backends.backend import Scores, VersionState, Wanted
from pipeline.api.backends.batching import Batching
from pipeline.api.backends.version_store import VersionStore
from tasks.settings.loading import load

if TYPE_CHECKING:
    from pipeline.answers.explanations import ExplainedMessage
    from pipeline.api.metrics import Metrics
    from tasks.settings.serving import ApiSettings

_POLL_SECONDS = 1.0


class LocalBackend:
    """The loaded model versions, and the batching of requests to them."""

    def __init__(self, settings: ApiSettings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._store = VersionStore(settings.versions_loaded, metrics)
        threads = load(DeviceSettings).threads or len(os.sched_getaffinity(0))
        self._batching = Batching(settings, metrics, threads)
        # One explanation scores hundreds of variants of a message. One at a time, so that scores stay fast.
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="explaining")
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts to follow `models.config`, which loads the version in service."""
        self._watch = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stops following `models.config`."""
        if self._watch:
            self._watch.cancel()
        self._batching.close()
        self._explaining.shutdown(wait=False, cancel_futures=True)

    def problem(self) -> str | None:
        """Returns why no version is loaded; None if one is."""
        return None if self._store.in_service else self._store.problem

    def warning(self) -> str | None:
        """Returns why the version that answers is not the one in service; None if it is."""
        return self._store.problem if self._store.in_service else None

    async def score(self, texts: list[str], wanted: Wanted) -> Scores:
        """Scores messages, also empty ones."""
        model = await self._store.get(wanted)
        return Scores(await self._batching.score(model, texts), model.threshold, model.version)

    async def explain(self, text: str, wanted: Wanted) -> ExplainedMessage:
        """Finds the words that changed the score of a message."""
        from pipeline.answers.explanations import MessageExplainer

        model = await self._store.get(wanted)
        explainer = MessageExplainer(model.version, model.scorer, model.threshold)
        return await asyncio.get_running_loop().run_in_executor(self._explaining, explainer.explain, text)

    async def resolve(self, wanted: Wanted) -> int:
        """Returns the version that a request asks for."""
        return await self._store.resolve(wanted)

    async def versions(self) -> list[VersionState]:
        """Returns the versions that can be asked for."""
        return await self._store.states()

    async def _follow(self) -> None:
        while True:
            await self._store.follow()
            self._metrics.ready.set(self.problem() is None)
            self._metrics.degraded.set(self.warning() is not None)
            await asyncio.sleep(_POLL_SECONDS)
