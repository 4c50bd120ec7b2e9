"""Tests how many threads the front end scores a large request with."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.inference.scorer import Scores
from pipeline.api.backends.backend import IN_SERVICE
from pipeline.api.backends.local import LocalBackend
from pipeline.api.backends.version_store import VersionStore
from pipeline.api.metrics import Metrics
from tasks.settings.serving import ApiSettings


class Scorer:
    """Waits in each call until as many calls as expected are in progress."""

    threads = 0

    def __init__(self, expected: int) -> None:
        self.barrier = threading.Barrier(expected, timeout=60)
        self.names: set[str] = set()

    def score(self, texts: Sequence[str]) -> Scores:
        self.names.add(threading.current_thread().name)
        self.barrier.wait()
        return Scores(np.zeros(len(texts)), 0.0, 0.0)


@pytest.mark.parametrize(("threads", "expected"), [("3", 3), ("0", len(os.sched_getaffinity(0)))])
def test_a_large_request_is_scored_in_as_many_threads_as_devices_allow(
    set_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch, threads: str, expected: int
) -> None:
    set_settings("devices", threads=threads)
    scorer = Scorer(expected)

    async def get(*_: object) -> Any:
        return SimpleNamespace(scorer=scorer, threshold=0.5, version=1)

    monkeypatch.setattr(VersionStore, "get", get)

    async def ask() -> int:
        backend = LocalBackend(ApiSettings(largest_batch=100), Metrics())
        scores = await backend.score(["hello"] * 100 * expected * 4, IN_SERVICE)
        await backend.stop()
        return len(scores.probabilities)

    assert asyncio.run(ask()) == 100 * expected * 4
    assert len(scorer.names) == expected
