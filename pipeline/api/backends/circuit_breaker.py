"""Stops calls to a server that fails, and lets single calls try it again."""

from __future__ import annotations

import time
from collections.abc import Callable

# Failures in a row after which no call is made, and the seconds until one call tries again.
MAX_FAILURES = 5
OPEN_SECONDS = 2.0


class CircuitBreaker:
    """Counts failures in a row. Belongs to one thread.

    Closed, it lets every call pass. After `MAX_FAILURES` failures it is open and lets none pass; every `OPEN_SECONDS`
    it lets one pass, whose success closes it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._next_trial = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are stopped."""
        return self._failures >= MAX_FAILURES

    def lets_pass(self) -> bool:
        """Returns whether a call may be made now. If the circuit is open, the next call is the trial."""
        if not self.is_open:
            return True
        if self._clock() < self._next_trial:
            return False
        self._next_trial = self._clock() + OPEN_SECONDS
        return True

    def succeed(self) -> None:
        """Notes a call that succeeded."""
        self._failures = 0

    def fail(self) -> None:
        """Notes a call that failed because of the server."""
        self._failures += 1
        if self._failures == MAX_FAILURES:
            self._next_trial = self._clock() + OPEN_SECONDS
