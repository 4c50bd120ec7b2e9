"""A stand-in for NVIDIA's driver library, on machines without a GPU."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

INVALID_DEVICE = 101
_FIRST_HANDLE = 40  # a handle is not the number of the device


class StandInDriver:
    """Has the functions of `libcuda` that this project calls, for GPUs with given memory."""

    def __init__(self, total: list[int], free: list[int] | None = None) -> None:
        """Takes the total and the free memory of each GPU in bytes."""
        self.total, self.free = total, free or total

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes `ctypes` load this driver."""
        monkeypatch.setattr(ctypes, "CDLL", lambda _: self)

    def cuInit(self, flags: int) -> int:  # noqa: N802 - the name in the library
        return int(flags != 0)

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        device._obj.value = number + _FIRST_HANDLE
        return 0 if number < len(self.total) else INVALID_DEVICE

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:  # noqa: N802
        memory._obj.value = self.total[device.value - _FIRST_HANDLE]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:  # noqa: N802
        context._obj.value = device.value
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:  # noqa: N802
        self.current = context.value - _FIRST_HANDLE
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:  # noqa: N802
        free._obj.value, total._obj.value = self.free[self.current], self.total[self.current]
        return 0
