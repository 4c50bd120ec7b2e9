"""Luigi parameters of the tasks: a date (yesterday by default), one or more dates, a model version, a checkpoint."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator
from typing import Any

import luigi

from models.errors import SettingsError
from tasks.scheduler.calendar import current_date

IN_SERVICE, FINAL_WEIGHTS = "in service", "final weights"


class YesterdayParameter(luigi.DateParameter):
    """A date. The default is yesterday at the time the task is created, not when the module is imported."""

    def __init__(self, description: str, **options: Any) -> None:
        super().__init__(default=None, description=description, **options)  # type: ignore[arg-type]

    def parse(self, s: str) -> datetime.date:
        """Converts ISO text to a date.

        Raises:
            SettingsError: the text is no date.
        """
        try:
            return datetime.date.fromisoformat(s)
        except ValueError:
            raise SettingsError(f"--date {s}: expected a date such as 2026-01-31") from None

    def normalize(self, value: datetime.date | None) -> datetime.date:
        """Returns the date, or yesterday in [messages] timezone."""
        return value or _today() - datetime.timedelta(days=1)

    def next_in_enumeration(self, value: datetime.date) -> datetime.date | None:
        """Returns the next day, for Luigi's summary; None for the last date that Python knows."""
        return None if value == datetime.date.max else super().next_in_enumeration(value)


def _today() -> datetime.date:
    try:
        return current_date()
    except SettingsError:
        # Every task checks all settings once it has its parameters. It raises this error then, and Nightly can send it.
        return datetime.date.today()


class DatesParameter(YesterdayParameter):
    """One or more dates. Luigi merges tasks that differ only in this parameter into one task.

    The text form is ``2026-01-31``, ``2026-01-01..2026-01-31`` (both included), or several of these, separated by
    commas. The value is a `datetime.date` for one date and a sorted tuple for several.
    """

    def __init__(self, description: str) -> None:
        super().__init__(description, batch_method=tuple)

    def parse(self, s: str) -> Any:
        """Converts text to a date or a tuple of dates.

        Raises:
            SettingsError: the text is neither.
        """
        return self.normalize([date for part in s.split(",") for date in self._parse_range(part.strip())])

    def _parse_range(self, text: str) -> Iterator[datetime.date]:
        first, dots, last = text.partition("..")
        start = super().parse(first)
        for days in range((super().parse(last if dots else first) - start).days + 1):
            yield start + datetime.timedelta(days=days)

    def serialize(self, dt: Any) -> str:
        """Formats the dates, consecutive ones as a range."""
        runs: list[list[datetime.date]] = []
        for date in to_dates(dt):
            if runs and date - runs[-1][-1] == datetime.timedelta(days=1):
                runs[-1][1:] = [date]
            else:
                runs.append([date])
        return ",".join("..".join(map(str, run)) for run in runs)

    def normalize(self, value: Any) -> Any:
        """Returns the date, or yesterday in [messages] timezone. Several dates are sorted, without duplicates.

        Raises:
            SettingsError: the list of dates is empty.
        """
        if value is None or isinstance(value, datetime.date):
            return super().normalize(value)
        dates = tuple(sorted(set(value)))
        if not dates:
            raise SettingsError("--date: expected the first date of a range before its last, as 2026-01-01..2026-01-31")
        return dates if len(dates) > 1 else dates[0]

    def next_in_enumeration(self, value: Any) -> Any:
        """Returns the next day, for Luigi's summary; None for several dates."""
        return None if isinstance(value, tuple) else super().next_in_enumeration(value)


def to_dates(value: datetime.date | Iterable[datetime.date]) -> tuple[datetime.date, ...]:
    """Returns the value of a `DatesParameter` as a tuple, for one date and for several."""
    return (value,) if isinstance(value, datetime.date) else tuple(value)


class VersionParameter(luigi.OptionalIntParameter):
    """The number of a model version; None for the version in service."""

    def serialize(self, x: int | None) -> str:
        """Formats the version as Luigi's page and log show it."""
        return IN_SERVICE if x is None else str(x)

    def parse(self, x: str) -> int | None:
        """Converts text to a version number.

        Raises:
            SettingsError: the text is no version number.
        """
        if x == IN_SERVICE:
            return None
        if x and not (x.isdecimal() and int(x) > 0):
            raise SettingsError(
                f"--model-version {x}: expected the number of a version such as 3; see `spamscore models`"
            )
        return int(x) if x else None


class CheckpointParameter(luigi.OptionalParameter):
    """The name of a checkpoint; None for the final weights of a training."""

    def serialize(self, x: str | None) -> str:
        """Formats the name as Luigi's page shows it."""
        return x or FINAL_WEIGHTS

    def parse(self, x: str) -> str | None:
        """Checks the name.

        Raises:
            SettingsError: the text is no name of a checkpoint.
        """
        if x in ("", FINAL_WEIGHTS):
            return None
        if not re.fullmatch(r"ckpt-[0-9]+", x):
            raise SettingsError(
                f"--checkpoint {x}: expected the name of a checkpoint such as ckpt-72; see `spamscore checkpoints`"
            )
        return x
