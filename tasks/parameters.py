"""The parameters of tasks: a date that is yesterday unless given, and the number of a model version."""

from __future__ import annotations

import datetime

import luigi

from models.errors import SettingsError

IN_SERVICE = "in service"


class YesterdayParameter(luigi.DateParameter):
    """A date; by default yesterday, as it is when the task is made, not when the module was imported."""

    def __init__(self, description: str) -> None:
        super().__init__(default=None, description=description)  # type: ignore[arg-type]

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
