"""A decorator that compiles loops over bytes and numbers with Numba.

It is for loops for which NumPy would need many passes over the arrays. Compiled loops release Python's lock (the GIL),
so other threads keep running. Numba does not check array bounds, so each loop states what it requires of its
arguments. The tests run with NUMBA_BOUNDSCHECK=1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

log = logging.getLogger("spamscore")
Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """Compiles a function at its first call, and caches the machine code for later processes.

    The cache is next to the function's file or, where that folder is not writable, in the user's cache folder. Numba's
    environment variable NUMBA_CACHE_DIR sets another folder.
    """
    try:
        machine_code = numba.njit(nogil=True, cache=True)(loop)
    except RuntimeError as error:
        # Without a writable cache folder each process starts some seconds later, and is as fast after that.
        log.info(
            "the compiled code of %s cannot be cached, so each process compiles it again: %s", loop.__name__, error
        )
        machine_code = numba.njit(nogil=True)(loop)
    return cast("Loop", machine_code)
