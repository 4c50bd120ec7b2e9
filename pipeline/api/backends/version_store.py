"""Keeps model versions in memory: those with a label, the one that was in service before, and the latest ones used."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from models.errors import ArtifactError, SpamscoreError
from pipeline.api.backends.backend import NotServedError, VersionState, Wanted
from pipeline.api.limits import UNAVAILABLE, RequestError, describe_failure
from tasks.artifacts.exports import list_versions, no_version_error, served_versions
from tasks.artifacts.model_config import CANARY, STABLE, ServedVersions

if TYPE_CHECKING:
    from pipeline.answers.probabilities import LoadedModel
    from pipeline.api.metrics import Metrics

log = logging.getLogger("spamscore")

# A version that could not be loaded is tried again after this time: its files may have been restored.
_RETRY_SECONDS = 30.0
_LOADING = "the model version in service is not loaded yet"


class VersionStore:
    """The loaded versions, and what `models.config` says about them.

    Attributes:
        in_service: the version that answers requests without version and label; None if none is loaded yet.
        problem: why `in_service` is not the version that `models.config` names; None if it is.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        """Loads nothing yet.

        Args:
            limit: [api] versions_loaded.
            metrics: counts the loads.
        """
        self.in_service: LoadedModel | None = None
        self.problem: str | None = _LOADING
        self._limit, self._metrics = limit, metrics
        self._served: ServedVersions | None = None
        self._previous: int | None = None
        self._models: OrderedDict[int, LoadedModel] = OrderedDict()
        self._failures: dict[int, tuple[str, float]] = {}
        self._loading = asyncio.Lock()
        self._frozen = False

    async def get(self, wanted: Wanted) -> LoadedModel:
        """Returns a version; loads it if it is not in memory.

        Raises:
            RequestError: the version is not served, or cannot be loaded.
        """
        if wanted.version is None and wanted.label in (None, STABLE) and self.in_service:
            return self.in_service
        version = await self.resolve(wanted)
        if version in self._models:
            self._models.move_to_end(version)
            return self._models[version]
        try:
            return await self._load(version)
        except ArtifactError as error:
            raise RequestError(UNAVAILABLE, f"model version {version} cannot be loaded: {error}") from None

    async def resolve(self, wanted: Wanted) -> int:
        """Returns the number of the version that a request asks for.

        Raises:
            RequestError: it is not served.
        """
        served = self._served
        if served is None:
            raise RequestError(UNAVAILABLE, self.problem or _LOADING, 5)
        if wanted.version is None:
            in_service = self.in_service.version if self.in_service else served.stable
            version = {STABLE: in_service, CANARY: served.canary}.get(wanted.label or STABLE)
        else:
            version = wanted.version if wanted.version in served.loaded else None
        if version is None or (version not in self._models and version not in await _list_versions()):
            raise NotServedError(wanted)
        return version

    async def states(self) -> list[VersionState]:
        """Returns the versions that `models.config` lists and that exist."""
        if self._served is None:
            raise RequestError(UNAVAILABLE, self.problem or _LOADING, 5)
        existing = await _list_versions()
        return [
            VersionState(version, self._failures.get(version, ("",))[0])
            for version in self._served.loaded
            if version in existing
        ]

    async def follow(self) -> None:
        """Reads `models.config`, and loads the versions with a label. If that fails, those before keep answering."""
        problem = None
        try:
            served = await asyncio.to_thread(served_versions)
            if served is None:
                raise no_version_error()
            self._served = served
            if self.in_service is None or self.in_service.version != served.stable:
                await self._put_in_service(served.stable)
            if served.canary:
                await self._load(served.canary)
        except (SpamscoreError, OSError) as error:
            problem = str(error)
        if problem and problem != self.problem:
            answering = f"; version {self.in_service.version} keeps answering" if self.in_service else ""
            log.error("%s%s", problem.rstrip("."), answering)
        self.problem = problem

    async def _put_in_service(self, version: int) -> None:
        model = await self._load(version)
        self._previous = self.in_service.version if self.in_service else None
        self.in_service = model
        self._metrics.version.set(version)
        log.info("model version %d answers", version)

    async def _load(self, version: int) -> LoadedModel:
        """Loads a version in a thread, unless it is in memory."""
        async with self._loading:
            if version not in self._models:
                text, failed_at = self._failures.get(version, ("", -_RETRY_SECONDS))
                if time.monotonic() - failed_at < _RETRY_SECONDS:
                    raise ArtifactError(text)
                self._models[version] = await asyncio.to_thread(self._load_counted, version)
            self._models.move_to_end(version)
            self._evict()
            return self._models[version]

    def _load_counted(self, version: int) -> LoadedModel:
        try:
            model = _load_warm(version)
        except Exception as error:  # whatever is wrong with its files, the other versions keep answering
            text = str(error) if isinstance(error, SpamscoreError | OSError) else describe_failure(error)
            self._failures[version] = (text, time.monotonic())
            self._metrics.loads.labels("failed").inc()
            raise ArtifactError(text) from error
        self._failures.pop(version, None)
        self._metrics.loads.labels("loaded").inc()
        _release_memory()
        if not self._frozen:
            # A collection looks through all objects of TensorFlow, which takes half a second, in which no request is
            # answered. They stay anyway, so later collections leave them out.
            gc.freeze()
            self._frozen = True
        return model

    def _evict(self) -> None:
        served = self._served
        kept = {served.stable, served.canary} if served else set()
        kept |= {self._previous, self.in_service.version if self.in_service else None}
        for version in list(self._models):
            if len(self._models) <= self._limit:
                return
            if version not in kept and version != next(reversed(self._models)):
                del self._models[version]


async def _list_versions() -> list[int]:
    return await asyncio.to_thread(list_versions)


def _release_memory() -> None:
    """Frees what loading leaves behind: objects in cycles, and TensorFlow's compiled operations."""
    import keras

    keras.backend.clear_session()
    gc.collect()


def _load_warm(version: int) -> LoadedModel:
    """Loads a version, and scores messages, so that the first request does not wait for compiled loops."""
    from pipeline.answers.probabilities import load_version

    model = load_version(version)
    model.scorer.warm_up()
    return model
