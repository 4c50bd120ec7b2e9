"""Loops over bytes and numbers, compiled by Numba: for what NumPy would take many passes over arrays for.

They hold no lock of Python's, so that other threads go on. Numba does not look whether a place is inside its array, so
each says what it takes for granted; the tests run with NUMBA_BOUNDSCHECK=1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

log = logging.getLogger("spamscore")
Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """Compiles a function when it is first called, and keeps that for later processes: beside its file or, where that
    cannot be written, in the user's cache. The folder can be set, with Numba's NUMBA_CACHE_DIR.
    """
    try:
        machine_code = numba.njit(nogil=True, cache=True)(loop)
    except RuntimeError as error:
        # Where nothing can be written a process starts some seconds later, and is as fast then.
        log.info("%s is compiled anew in each process: %s", loop.__name__, error)
        machine_code = numba.njit(nogil=True)(loop)
    return cast("Loop", machine_code)
