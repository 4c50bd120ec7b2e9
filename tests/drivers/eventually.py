"""Waits for a state that arrives later: luigid, a page, a log or another process shows an event only after a delay.

A test that reads the state once, right after the event, fails on a busy machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
# Counts attempts instead of seconds, because the clock of a busy virtual machine can jump.
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
        accepts: returns whether the value is the expected one; by default any true value.
        check: is called after each attempt that was not accepted; raises if waiting longer is useless.
        detail: returns text that explains a failure, for example the output of the command.

    Raises:
        AssertionError: no value was accepted within two minutes; the message shows the last value.
    """
    value = read()
    for _ in range(ATTEMPTS):
        if accepts(value):
            return value
        check()
        time.sleep(PAUSE)
        value = read()
    raise AssertionError(f"the last value read was {value!r}\n{detail()}")
