"""The base classes of the stages: the number of threads of a task."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from models.settings import DeviceSettings
from tasks.stage import processor_threads


@pytest.mark.parametrize(
    ("cores", "workers", "threads", "expected"), [(8, 1, 0, 8), (8, 2, 0, 4), (2, 4, 0, 1), (8, 2, 3, 3), (1, 1, 0, 1)]
)
def test_concurrent_tasks_share_the_cores(
    monkeypatch: pytest.MonkeyPatch,
    set_settings: Callable[..., None],
    cores: int,
    workers: int,
    threads: int,
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    set_settings("core", workers=str(workers))
    assert processor_threads(DeviceSettings(threads=threads)) == expected
