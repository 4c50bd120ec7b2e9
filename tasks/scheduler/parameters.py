"""The parameters of tasks: a date, by default yesterday, or several of them, and the number of a model version."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from typing import Any

import luigi

from models.errors import SettingsError

IN_SERVICE = "in service"


class YesterdayParameter(luigi.DateParameter):
    """A date; by default yesterday, as it is when the task is made, not when the module was imported."""

    def __init__(self, description: str, **luigis: Any) -> None:
        super().__init__(default=None, description=description, **luigis)  # type: ignore[arg-type]

    def parse(self, s: str) -> datetime.date:
        """Turns ISO text into a date.

        Raises:
            SettingsError: it is none.
        """
        try:
            return datetime.date.fromisoformat(s)
        except ValueError:
            raise SettingsError(f"--date {s}: expected a date such as 2026-01-31") from None

    def normalize(self, value: datetime.date | None) -> datetime.date:
        """The date, or yesterday's by the local clock."""
        return value or datetime.date.today() - datetime.timedelta(days=1)


class DatesParameter(YesterdayParameter):
    """A date or several; Luigi makes one task of those that differ in it alone.

    Written as ``2026-01-31``, ``2026-01-01..2026-01-31`` (both included), or some of these with commas between them.
    One date is a `datetime.date`, several are a tuple in their order.
    """

    def __init__(self, description: str) -> None:
        super().__init__(description, batch_method=tuple)

    def parse(self, s: str) -> Any:
        """Turns text into a date or a tuple of dates.

        Raises:
            SettingsError: it is neither.
        """
        return self.normalize([date for part in s.split(",") for date in self._of_part(part.strip())])

    def _of_part(self, part: str) -> Iterator[datetime.date]:
        first, dots, last = part.partition("..")
        start = super().parse(first)
        for days in range((super().parse(last if dots else first) - start).days + 1):
            yield start + datetime.timedelta(days=days)

    def serialize(self, dt: Any) -> str:
        """The dates, those without a gap between them as a range."""
        runs: list[list[datetime.date]] = []
        for date in dates_of(dt):
            if runs and date - runs[-1][-1] == datetime.timedelta(days=1):
                runs[-1][1:] = [date]
            else:
                runs.append([date])
        return ",".join("..".join(map(str, run)) for run in runs)

    def normalize(self, value: Any) -> Any:
        """The date, or yesterday's by the local clock; of several each once, in their order.

        Raises:
            SettingsError: there is none among several.
        """
        if value is None or isinstance(value, datetime.date):
            return super().normalize(value)
        dates = tuple(sorted(set(value)))
        if not dates:
            raise SettingsError("--date: expected the first date of a range before its last, as 2026-01-01..2026-01-31")
        return dates if len(dates) > 1 else dates[0]

    def next_in_enumeration(self, value: Any) -> Any:
        """The day after, for Luigi's summary; several have none."""
        return None if isinstance(value, tuple) else super().next_in_enumeration(value)


def dates_of(value: datetime.date | Iterable[datetime.date]) -> tuple[datetime.date, ...]:
    """The value of a `DatesParameter` as a tuple, whether it is one date or several."""
    return (value,) if isinstance(value, datetime.date) else tuple(value)


class VersionParameter(luigi.OptionalIntParameter):
    """The number of a model version, or nothing for the one in service."""

    def serialize(self, x: int | None) -> str:
        """As Luigi's page and log show it."""
        return IN_SERVICE if x is None else str(x)

    def parse(self, x: str) -> int | None:
        """Turns text into a number.

        Raises:
            SettingsError: it is none.
        """
        if x == IN_SERVICE:
            return None
        if x and not (x.isdecimal() and int(x) > 0):
            raise SettingsError(
                f"--model-version {x}: expected the number of a version such as 3; see `spamscore models`"
            )
        return int(x) if x else None
