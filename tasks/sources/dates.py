"""Reads the dates of messages, and selects the messages of one date.

[messages] date_format says how a date is written. A text in another format is refused and not guessed: a wrong date
would put a message into the batch of another date, or into none.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tasks.scheduler.calendar import find_time_zone
from tasks.settings.inputs import MessagesSettings
from tasks.sources.rows import SourceRow

# Python also accepts other separators before a time, weeks without a day, and digits after a date: it reads
# 1769041200000 as a time on 1769-04-12.
_ISO = re.compile(r"(?:\d{4}-\d\d-\d\d|\d{8}|\d{4}-W\d\d-\d|\d{4}W\d{3})(?:[T ].*)?", re.ASCII)
# With at most 12 decimals, Python's decimals of 28 digits are exact.
_NUMBER = re.compile(r"[+-]?\d{1,30}(?:\.\d{0,12})?(?:E[+-]?\d{1,2})?", re.ASCII)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UNITS_PER_SECOND = {"epoch_seconds": 1, "epoch_milliseconds": 10**3}
_UNSUPPORTED_UNITS_PER_SECOND = {"epoch microseconds": 10**6, "epoch nanoseconds": 10**9}
_MAX_SHOWN_CHARACTERS = 40


def make_date_reader(date_format: str, zone: datetime.tzinfo | None) -> Callable[[str | None], datetime.date]:
    """Returns a function that reads the date of a text, and raises a ValueError with the fault if there is none.

    A time with an offset keeps its own date. An epoch time is converted to the time zone. Any other time is taken as it
    is.

    Args:
        date_format: a value of [messages] date_format.
        zone: time zone of epoch times; None for the one of this machine.
    """
    read = _make_format_reader(date_format, zone)

    def read_date(text: str | None) -> datetime.date:
        text = (text or "").strip()
        if not text:
            raise ValueError("unreadable date: there is none")
        try:
            date, expected = read(text), ""
        except ValueError as error:
            date, expected = None, str(error)
        # A number of another unit is a date too, long before there were such messages.
        if date is not None and (date_format not in _UNITS_PER_SECOND or _is_plausible(date)):
            return date
        suggestion = _suggest_format(text, date_format, zone)
        if date is not None and not suggestion:
            return date
        if date_format == "iso":
            suggestion = suggestion or "; set [messages] date_format if dates are written differently"
        shown = text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…"
        raise ValueError(f"unreadable date: received {shown!r}, expected {expected or date_format}{suggestion}")

    return read_date


def _make_format_reader(date_format: str, zone: datetime.tzinfo | None) -> Callable[[str], datetime.date]:
    if date_format == "iso":
        return _read_iso
    if units := _UNITS_PER_SECOND.get(date_format):
        return lambda text: _read_epoch(text, units, zone)
    return lambda text: _read_strptime(text, date_format)


def _read_iso(text: str) -> datetime.date:
    try:
        if _ISO.fullmatch(text.upper()):
            return datetime.datetime.fromisoformat(text.upper()).date()
    except ValueError:
        pass  # such as a 30th of February
    raise ValueError("ISO 8601 such as 2026-01-31")


def _read_strptime(text: str, date_format: str) -> datetime.date:
    try:
        return datetime.datetime.strptime(text, date_format).date()
    except ValueError:
        raise ValueError(date_format) from None


def _read_epoch(text: str, units_per_second: int, zone: datetime.tzinfo | None) -> datetime.date:
    if not _NUMBER.fullmatch(text.upper()):
        raise ValueError("a number")
    number = Decimal(text.upper())
    try:
        date = _convert_epoch(number / units_per_second, zone)
        if "E" in text.upper():
            # A spreadsheet rounds what it shows: 1.76904E+12 may be any time within three hours.
            half_digit = Decimal((0, (5,), int(number.as_tuple().exponent) - 1))
            ends = [_convert_epoch((number + sign * half_digit) / units_per_second, zone) for sign in (-1, 1)]
            if ends != [date, date]:
                raise ValueError("all digits of the number: rounded, it may belong to another date")
    except OverflowError:
        raise ValueError("a time of the years 1 to 9999") from None
    return date


def _convert_epoch(seconds: Decimal, zone: datetime.tzinfo | None) -> datetime.date:
    # Rounded down: the last microsecond of a day belongs to that day.
    return (_EPOCH + datetime.timedelta(microseconds=math.floor(seconds * 10**6))).astimezone(zone).date()


def _is_plausible(date: datetime.date) -> bool:
    return 2000 <= date.year < 2100


def _suggest_format(text: str, date_format: str, zone: datetime.tzinfo | None) -> str:
    """Says which date_format would read a text as a date of this century; empty if none would."""
    for name in ("iso", *_UNITS_PER_SECOND):
        with contextlib.suppress(ValueError):
            if name != date_format and _is_plausible(date := _make_format_reader(name, zone)(text)):
                return f"; as {name} it is {date}: set [messages] date_format = {name}"
    for name, units in _UNSUPPORTED_UNITS_PER_SECOND.items():
        with contextlib.suppress(ValueError):
            if _is_plausible(date := _read_epoch(text, units, zone)):
                return f"; as {name} it is {date}: divide the column, and set [messages] date_format = epoch_seconds"
    return ""


@dataclass
class OtherDates:
    """Counts the rows of other dates, which a snapshot leaves out, and their earliest and latest date."""

    rows: int = 0
    first: datetime.date | None = None
    last: datetime.date | None = None

    def add(self, date: datetime.date) -> None:
        """Counts a row of this date."""
        self.rows += 1
        self.first = min(self.first or date, date)
        self.last = max(self.last or date, date)

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts for the manifest."""
        dates = [self.first, self.last] if self.first and self.last else []
        return {"other_dates": {"rows": self.rows, "seen": [date.isoformat() for date in dates]}}


def select_date(
    rows: Iterable[SourceRow], settings: MessagesSettings, date: datetime.date, other_dates: OtherDates
) -> Iterator[SourceRow]:
    """Yields the rows of a date. Rows with an unreadable date are yielded too, with that as their fault.

    Args:
        rows: the rows of the source.
        settings: [messages] with a date column.
        date: the date.
        other_dates: counts the rows that are left out.
    """
    read_date = make_date_reader(settings.date_format, find_time_zone(settings.timezone))
    for row in rows:
        try:
            row_date = read_date(row.values[settings.date_column])
        except ValueError as error:
            yield row._replace(fault=row.fault or str(error))
            continue
        if row_date == date:
            yield row
        else:
            other_dates.add(row_date)
