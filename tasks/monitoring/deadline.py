"""Computes when the scores of a date are due, and warns as soon as the estimate is later than that."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable

from tasks.scheduler.calendar import find_time_zone
from tasks.scheduler.failures import record_note
from tasks.settings.inputs import MessagesSettings
from tasks.settings.loading import load

log = logging.getLogger("spamscore")

ProgressCallback = Callable[[float, float, str], None]  # done, total, a line of status
_DAY = datetime.timedelta(days=1)


def find_due_time(
    date: datetime.date, deadline: str, now: datetime.datetime, zone: datetime.tzinfo | None = None
) -> datetime.datetime | None:
    """Returns when the scores of a date are due; None if there is no deadline, or if the run is a backfill.

    A run that starts a day or more after the due time is a backfill.

    Args:
        date: date of the messages.
        deadline: [run] deadline, for example 06:00, on the day after `date`; empty for no deadline.
        now: the time, with its time zone.
        zone: time zone of the date and the deadline; None for the one of this machine.
    """
    if not deadline:
        return None
    moment = datetime.time.fromisoformat(deadline)
    due = datetime.datetime.combine(date + _DAY, moment, zone).astimezone(zone)
    return due if now < due + _DAY else None


class DeadlineMonitor:
    """A progress callback that warns once, in log, status and alert, if the batch will be late.

    The estimate uses only the messages scored after the first ones of this run: those also include loading the model,
    and a resumed run starts with messages that are already scored. The first call is made before any is scored.

    Args:
        on_progress: called with the same values; if the batch will be late, the status says so.
        due: when all messages must be scored.
        notify: called once with the warning, one line.
    """

    def __init__(self, on_progress: ProgressCallback, due: datetime.datetime, notify: Callable[[str], None]) -> None:
        self._on_progress, self._due, self._notify = on_progress, due, notify
        self._done_before: float | None = None
        self._first: tuple[float, float] | None = None
        self._warned = False

    def __call__(self, done: float, total: float, status: str) -> None:
        """Reports that `done` of `total` messages are scored, before the first chunk and after each one."""
        if self._done_before is None:
            self._done_before = done
        if done == self._done_before:  # nothing is known of the rate
            self._on_progress(done, total, status)
            return
        end = self._estimate_end(done, total)
        late = end > self._due
        if late and not self._warned:
            self._warned = True
            self._warn(end, done, total)
        if late:
            status = f"{status}, late: due {self._due:%H:%M}, estimated end {end:%H:%M}"
        self._on_progress(done, total, status)

    def _estimate_end(self, done: float, total: float) -> datetime.datetime:
        """Estimates when all messages will be scored; never earlier than now."""
        now, clock = datetime.datetime.now(self._due.tzinfo), time.monotonic()
        if self._first is None:
            self._first = (done, clock)
        first_done, started = self._first
        seconds = (total - done) * (clock - started) / (done - first_done) if done > first_done else 0.0
        return now + datetime.timedelta(seconds=seconds)

    def _warn(self, end: datetime.datetime, done: float, total: float) -> None:
        warning = (
            f"too late: {done:,.0f} of {total:,.0f} messages are scored, and the others will be scored at about "
            f"{end:%Y-%m-%d %H:%M}; [run] deadline is {self._due:%Y-%m-%d %H:%M}. docs/operations.md lists what "
            "you can do"
        )
        log.warning("%s", warning)
        record_note(warning)
        self._notify(warning)


def monitor_deadline(
    on_progress: ProgressCallback, date: datetime.date, deadline: str, notify: Callable[[str], None]
) -> ProgressCallback:
    """Wraps a progress callback with a `DeadlineMonitor`; returns it unchanged if the date has no due time."""
    zone = find_time_zone(load(MessagesSettings).timezone)
    due = find_due_time(date, deadline, datetime.datetime.now().astimezone(zone), zone)
    return on_progress if due is None else DeadlineMonitor(on_progress, due, notify)
