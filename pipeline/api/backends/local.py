"""Scores messages in this process, with the model version in service."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from typing import TYPE_CHECKING

from models.errors import SpamscoreError
from pipeline.api.backends.backend import Scores, Wanted
from pipeline.api.backends.batching import Batching
from pipeline.api.limits import NOT_FOUND, UNAVAILABLE, RequestError
from tasks.artifacts.exports import list_versions, no_version_error, served_versions
from tasks.artifacts.model_config import CANARY, STABLE, ServedVersions

if TYPE_CHECKING:
    from pipeline.answers.explanations import ExplainedMessage
    from pipeline.answers.probabilities import LoadedModel
    from tasks.settings.serving import ApiSettings

log = logging.getLogger("spamscore")

_POLL_SECONDS = 1.0


class LocalBackend:
    """The loaded model versions, and the batching of requests to them."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._batching = Batching(settings, threads=len(os.sched_getaffinity(0)))
        self._served: ServedVersions | None = None
        self._current: LoadedModel | None = None
        self._models: OrderedDict[int, LoadedModel] = OrderedDict()
        self._loading = asyncio.Lock()
        self._problem: str | None = "the model version in service is not loaded yet"
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Loads the version in service, and follows `models.config` from now on."""
        await self._follow()
        self._watch = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """Stops following `models.config`."""
        if self._watch:
            self._watch.cancel()
        self._batching.close()

    def problem(self) -> str | None:
        """Returns why no version is loaded; None if one is."""
        return None if self._current else self._problem

    def warning(self) -> str | None:
        """Returns why the version in service is not the one that answers; None if it is."""
        return self._problem

    async def score(self, texts: list[str], wanted: Wanted) -> Scores:
        """Scores messages, also empty ones."""
        model = self._find(wanted) or await self._load(self._resolve(wanted))
        return Scores(await self._batching.score(model, texts), model.threshold, model.version)

    async def explain(self, text: str, wanted: Wanted) -> ExplainedMessage:
        """Finds the words that changed the score of a message."""
        from pipeline.answers.explanations import MessageExplainer

        model = self._find(wanted) or await self._load(self._resolve(wanted))
        explainer = MessageExplainer(model.version, model.scorer, model.threshold)
        return await asyncio.to_thread(explainer.explain, text)

    def _find(self, wanted: Wanted) -> LoadedModel | None:
        if wanted.version is None and wanted.label in (None, STABLE):
            return self._current
        return self._models.get(self._resolve(wanted))

    def _resolve(self, wanted: Wanted) -> int:
        """Returns the number of the version that a request asks for.

        Raises:
            RequestError: it is not served.
        """
        if self._served is None:
            raise RequestError(UNAVAILABLE, self._problem or "no model version is in service", 5)
        version = wanted.version
        if version is None:
            labels = {STABLE: self._served.stable, CANARY: self._served.canary}
            version = labels.get(wanted.label or STABLE)
            if version is None:
                raise RequestError(
                    NOT_FOUND, "no model version has this label. Expected stable, or canary if there is a candidate."
                )
        if version not in self._served.loaded or version not in list_versions():
            raise RequestError(
                NOT_FOUND, f"model version {version} is not served; models.config lists the ones that are"
            )
        return version

    async def _load(self, version: int) -> LoadedModel:
        from pipeline.answers.probabilities import load_version

        async with self._loading:
            if version not in self._models:
                self._models[version] = await asyncio.to_thread(load_version, version)
            self._models.move_to_end(version)
            while len(self._models) > self._settings.versions_loaded:
                self._models.popitem(last=False)
            return self._models[version]

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            await self._follow()

    async def _follow(self) -> None:
        """Loads the version in service if it is another one than before; keeps the one before if that fails."""
        try:
            served = await asyncio.to_thread(served_versions)
            if served is None:
                raise no_version_error()
            self._served = served
            if self._current is None or self._current.version != served.stable:
                self._current = await self._load(served.stable)
                log.info("model version %d is in service", served.stable)
            self._problem = None
        except (SpamscoreError, OSError) as error:
            if str(error) != self._problem:
                log.error("%s", error)
            self._problem = str(error)
