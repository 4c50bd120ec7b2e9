"""Decides in which time zone a date begins and ends, which date is today, and whether a date is over.

[messages] timezone sets the time zone. In the `luigi` command the clock stands still: `start_run` sets it to the start
of the run, so that all tasks of the run agree, also if a day ends meanwhile. In other programs the clock runs.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from models.errors import DateNotOverError
from tasks.settings.input_checks import LOCAL
from tasks.settings.inputs import MessagesSettings
from tasks.settings.loading import load

_DAY = datetime.timedelta(days=1)
_EPOCH = datetime.date(1970, 1, 1)
_run_start: datetime.datetime | None = None


def start_run() -> None:
    """Stops the clock of this process, and of those it forks, at the current time."""
    global _run_start
    _run_start = datetime.datetime.now(datetime.UTC)


def current_time() -> datetime.datetime:
    """Returns the time at which the run started; without a run, the current time. It has a time zone."""
    return _run_start or datetime.datetime.now(datetime.UTC)


def find_time_zone(name: str) -> datetime.tzinfo | None:
    """Returns the time zone of a name that [messages] timezone allows; None for the one of this machine."""
    if name == LOCAL:
        return None
    import zoneinfo

    return zoneinfo.ZoneInfo(name)


def current_date() -> datetime.date:
    """Returns today's date in [messages] timezone.

    Raises:
        SettingsError: a setting of [messages] is not valid.
    """
    return current_time().astimezone(find_time_zone(load(MessagesSettings).timezone)).date()


def start_of_period(days: int) -> datetime.date:
    """Returns the first date of the current period of so many days, counted from 1970-01-01, in [messages] timezone."""
    today = current_date().toordinal() - _EPOCH.toordinal()
    return _EPOCH + _DAY * (today // days * days)


def start_of_day(date: datetime.date, zone: datetime.tzinfo | None) -> datetime.datetime:
    """Returns the time at which a date begins in a time zone, with the offset that it has then.

    Where clocks skip midnight, it is the time at which they skip it; where midnight comes twice, the first one.

    Args:
        date: the date.
        zone: the time zone; None for the one of this machine.
    """
    midnight = datetime.datetime.combine(date, datetime.time(), zone)
    return midnight.astimezone(datetime.UTC).astimezone(zone)


def is_over(date: datetime.date) -> bool:
    """Returns whether a date has ended in [messages] timezone."""
    return date < current_date()


def is_provisional(date: datetime.date) -> bool:
    """Returns whether the messages of a date are provisional: it is not over, and [messages] provisional is set."""
    return load(MessagesSettings).provisional and not is_over(date)


def is_scorable(date: datetime.date) -> bool:
    """Returns whether a date can be scored: it is over, or it has begun and [messages] provisional is set."""
    today = current_date()
    return date < today or (date == today and load(MessagesSettings).provisional)


def require_scorable(date: datetime.date) -> None:
    """Checks that a date can be scored, as `is_scorable`.

    Raises:
        DateNotOverError: it cannot. Says when it will be, and how to score it now.
    """
    if is_scorable(date):
        return
    zone = f"[messages] timezone = {load(MessagesSettings).timezone}"
    if date > current_date():
        raise DateNotOverError(
            f"{date} has not begun: it begins at {describe_end(date - _DAY)} ({zone}). Correct the date, or the zone."
        )
    raise DateNotOverError(
        f"{date} is not over: it ends at {describe_end(date)} ({zone}), and messages that arrive until then would not "
        "be scored. Run again after that. To score the date now, and again when it is over: --messages-provisional true"
    )


def describe_provisional(dates: Iterable[datetime.date]) -> str:
    """Returns a sentence for each date whose messages are provisional, with a space after it; else an empty string."""
    return "".join(
        f"{date} is provisional: the first run after {describe_end(date)} scores all of its messages. "
        for date in dates
        if is_provisional(date)
    )


def describe_end(date: datetime.date) -> str:
    """Returns the time at which a date ends, such as ``2026-02-01 00:00 CET``."""
    end = start_of_day(date + _DAY, find_time_zone(load(MessagesSettings).timezone))
    return f"{end:%Y-%m-%d %H:%M %Z}"
