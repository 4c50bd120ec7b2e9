"""Waits for a state that arrives later: luigid, a page, a log and another process learn of an event after it happened.

A test that reads such a place once, right after the event, fails on a machine that is busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
# Attempts are counted instead of seconds: the clock of a busy virtual machine may leap.
ATTEMPTS, PAUSE = 1200, 0.1


def eventually(
    read: Callable[[], Value],
    accepts: Callable[[Value], object] = bool,
    check: Callable[[], None] = lambda: None,
    detail: Callable[[], str] = str,
) -> Value:
    """Reads a value again and again until it is accepted, and returns it.

    Args:
        read: reads the value.
        accepts: tells whether the value is the one that is waited for; by default any that is true.
        check: is called after each attempt that was not accepted, and raises where waiting is of no use any more.
        detail: text that explains a failure, such as the output of the command.

    Raises:
        AssertionError: the value was not accepted within two minutes; has the last value read.
    """
    value = read()
    for _ in range(ATTEMPTS):
        if accepts(value):
            return value
        check()
        time.sleep(PAUSE)
        value = read()
    raise AssertionError(f"the last value read was {value!r}\n{detail()}")
