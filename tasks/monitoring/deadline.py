"""When the scores of a date are due, and what is said as soon as it shows that they will not be ready: not once they
are late.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable

from tasks.scheduler.failures import record_note

log = logging.getLogger("spamscore")

Watch = Callable[[float, float, str], None]  # told how much is done, of how much, and a line of status
_DAY = datetime.timedelta(days=1)


def due_at(date: datetime.date, deadline: str, now: datetime.datetime) -> datetime.datetime | None:
    """When the scores of a date are due; None if they never are, or were long before: a backfill is not late.

    Args:
        date: of the messages.
        deadline: [run] deadline, as 06:00, of the day after, by the local clock; empty for none.
        now: local time, with its zone.
    """
    if not deadline:
        return None
    moment = datetime.time.fromisoformat(deadline)
    due = datetime.datetime.combine(date + _DAY, moment).astimezone()
    return due if now < due + _DAY else None


class DeadlineWatch:
    """Passes on what is done, and says once, in log, status and alert, that it will not be done in time.

    The estimate goes by the messages scored since the first call, for the first chunk also loads the model, and a run
    that goes on finds some done.

    Args:
        watch: told what this is told, with the lateness behind the status.
        due: when all must be done.
        tell: takes the one line that says it, once.
    """

    def __init__(self, watch: Watch, due: datetime.datetime, tell: Callable[[str], None]) -> None:
        self._watch, self._due, self._tell = watch, due, tell
        self._first: tuple[float, float] | None = None
        self._told = False

    def __call__(self, done: float, total: float, status: str) -> None:
        """After a chunk: `done` of `total` messages are scored."""
        end = self._end(done, total)
        late = end > self._due
        if late and not self._told:
            self._told = True
            self._say(end, done, total)
        self._watch(done, total, f"{status}, late: due {self._due:%H:%M}, ends about {end:%H:%M}" if late else status)

    def _end(self, done: float, total: float) -> datetime.datetime:
        """When it will be done, as far as can be told: not before now."""
        now, clock = datetime.datetime.now(self._due.tzinfo), time.monotonic()
        if self._first is None:
            self._first = (done, clock)
        first, began = self._first
        seconds = (total - done) * (clock - began) / (done - first) if done > first else 0.0
        return now + datetime.timedelta(seconds=seconds)

    def _say(self, end: datetime.datetime, done: float, total: float) -> None:
        said = (
            f"too late: {done:,.0f} of {total:,.0f} messages are scored, and the rest will be at about "
            f"{end:%Y-%m-%d %H:%M}; [run] deadline is {self._due:%Y-%m-%d %H:%M}. docs/operations.md says what can be "
            "done"
        )
        log.warning("%s", said)
        record_note(said)
        self._tell(said)


def within_deadline(watch: Watch, date: datetime.date, deadline: str, tell: Callable[[str], None]) -> Watch:
    """A watch that minds when a date is due; one that is never due is watched as before."""
    due = due_at(date, deadline, datetime.datetime.now().astimezone())
    return watch if due is None else DeadlineWatch(watch, due, tell)
