"""The tasks that run another task for each date of a range. They replace Luigi's own of the same name.

Luigi's own need `bulk_complete` or files as outputs, count in UTC, and take an empty range for a complete one.
"""

from __future__ import annotations

import datetime
from functools import cached_property
from typing import Any

import luigi
from luigi.parameter import ParameterException
from luigi.tools import range as luigi_ranges

from models.errors import ArgumentError
from tasks.scheduler.calendar import current_date
from tasks.scheduler.failures import record_note
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.stage import Stage, cache_fingerprints

_DAY = datetime.timedelta(days=1)
_DATES_PER_QUERY = 10_000  # databases limit the number of parameters of a query
_LIMITS = LUIGI_DEFAULTS["RangeDaily"]
_NONE: Any = None  # as a default: Luigi declares the types of defaults without None
# Luigi declares it as a text, and warns that None is no text.
_PARAM_NAME = luigi.OptionalParameter(
    default=None, positional=False, description="parameter that takes the date; the first one by default"
)


class RangeDaily(luigi_ranges.RangeDaily):
    """Runs a task for each date of a range for which it is not complete. A date that is not over is left out."""

    days_back = luigi.IntParameter(
        default=int(_LIMITS["days_back"]), description="dates more than this number of days before today are left out"
    )
    days_forward = luigi.IntParameter(
        default=0, description="days from today on that are included, although they are not over; 1 includes today"
    )
    param_name = _PARAM_NAME
    task_limit = luigi.IntParameter(
        default=int(_LIMITS["task_limit"]), description="maximum number of dates in one run; run again for the others"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Checks the parameters.

        Raises:
            ArgumentError: the task has no date, or there is no date in the range.
        """
        super().__init__(*args, **kwargs)
        self._check_task()
        self._check_range()
        try:
            self.of(**self._task_parameters(self.dates[0]))
        except ParameterException as error:
            raise ArgumentError(f"--of {self.of.task_family} --of-params: {error}") from None
        self._note_dates_left_out()

    def __str__(self) -> str:
        return f"{self.task_family}(of={self.of.task_family}, dates={self.dates[0]}..{self.dates[-1]})"

    @cached_property
    def dates(self) -> list[datetime.date]:
        """The dates of the range, in order."""
        first, end = self._today - self._limited(self.days_back), self._today + self._limited(self.days_forward)
        first, end = max(self.start or first, first), min(self.stop or end, end)
        return [first + days * _DAY for days in range((end - first).days)]

    @cached_property
    def _today(self) -> datetime.date:
        return current_date() if self.now is None else datetime.date.fromtimestamp(self.now)

    def _limited(self, days: int) -> datetime.timedelta:
        """Returns a number of days, as far as the calendar reaches."""
        ordinal = self._today.toordinal()
        return min(max(days, 1 - ordinal), min(ordinal - 1, datetime.date.max.toordinal() - ordinal)) * _DAY

    def _check_task(self) -> None:
        dated = [name for name, parameter in self.of.get_params() if isinstance(parameter, luigi.DateParameter)]
        if not dated or self.param_name not in (None, *dated) or issubclass(self.of, luigi_ranges.RangeBase):
            raise ArgumentError(
                f"--of {self.of.task_family}: expected a task with a date, such as ScoreBatch, ReportBatch, "
                "ExtractMessages or Nightly."
            )

    def _check_range(self) -> None:
        if self.start is None and not (self.reverse and self.days_back < int(_LIMITS["days_back"])):
            raise ArgumentError(
                f"{self.task_family}: --start is missing. Give the first date, as --start 2026-01-31, or the number of "
                "days before today, as --days-back 30 --reverse."
            )
        if self.start and self.stop and self.start >= self.stop:
            raise ArgumentError(
                f"--start {self.start} --stop {self.stop}: there is no date in this range, nothing was run. --stop is "
                f"the first date after the range: for {self.start} alone, give --stop {self._following(self.start)}."
            )
        end = self._today + self._limited(self.days_forward)
        if self.start and self.start >= end:
            raise ArgumentError(
                f"--start {self.start}: no date of this range is over yet, nothing was run. The latest is "
                f"{end - _DAY}. --days-forward 1 includes today."
            )
        if not self.dates:
            raise ArgumentError(
                f"{self.task_family}: there is no date in this range, nothing was run. Dates before "
                f"{self._today - self._limited(self.days_back)} are left out, because days_back = {self.days_back}."
            )

    def _following(self, start: datetime.date) -> str:
        """Returns the value of --stop for a range that has only the value of --start."""
        return str(start + _DAY)

    def _note_dates_left_out(self) -> None:
        if self.start and self.start < self.dates[0]:
            record_note(f"{self}: the dates before {self.dates[0]} are left out: days_back = {self.days_back}")
        if self.stop and self.stop > self.dates[-1] + _DAY:
            record_note(
                f"{self}: the dates from {self.dates[-1] + _DAY} on are left out, because they are not over. "
                "--days-forward 1 includes today."
            )

    def requires(self) -> list[luigi.Task]:
        """Returns the task for each date for which it is not complete, up to `task_limit`."""
        return self._required

    @cached_property
    def _required(self) -> list[luigi.Task]:
        missing = self._find_missing_dates()
        if len(missing) > self.task_limit:
            left = len(missing) - self.task_limit
            record_note(f"{self}: {left} more dates are not complete (task_limit = {self.task_limit}). Run again.")
        ordered = sorted(missing, reverse=self.reverse)
        return [self.of(**self._task_parameters(date)) for date in ordered[: self.task_limit]]

    def _find_missing_dates(self) -> set[datetime.date]:
        """Returns the dates for which the task is not complete, in one query if the task has `bulk_complete`."""
        with cache_fingerprints():
            if "bulk_complete" not in vars(self.of):
                return {date for date in self.dates if not self.of(**self._task_parameters(date)).complete()}
            times = [self.parameter_to_datetime(date) for date in self.dates]
            parts = (times[start : start + _DATES_PER_QUERY] for start in range(0, len(times), _DATES_PER_QUERY))
            return {time.date() for part in parts for time in self.missing_datetimes(part)}


class RangeDailyBase(RangeDaily):
    """The same as RangeDaily. Luigi has both."""


class RangeMonthly(RangeDaily, luigi_ranges.RangeMonthly):
    """The same for each date of a range of months. Luigi's own would run the first date of each month alone."""

    start = luigi.MonthParameter(default=_NONE, description="first month, such as 2026-01")
    stop = luigi.MonthParameter(default=_NONE, description="first month after the range")
    months_back = months_forward = _NONE  # Luigi's limits; those of RangeDaily, in days, hold

    def _following(self, start: datetime.date) -> str:
        return f"{start + 31 * _DAY:%Y-%m}"


class _NotDaily:
    of: type[luigi.Task]
    task_family: str
    param_name = _PARAM_NAME

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if issubclass(self.of, Stage):
            raise ArgumentError(
                f"{self.task_family} --of {self.of.task_family}: the tasks of this pipeline have one batch for each "
                f"day. Use RangeDaily, for January 2026 as RangeDaily --of {self.of.task_family} --start 2026-01-01 "
                "--stop 2026-02-01, or RangeMonthly."
            )


class RangeHourlyBase(_NotDaily, luigi_ranges.RangeHourlyBase):
    """Refuses the tasks of this pipeline."""


class RangeHourly(_NotDaily, luigi_ranges.RangeHourly):
    """Refuses the tasks of this pipeline."""


class RangeByMinutesBase(_NotDaily, luigi_ranges.RangeByMinutesBase):
    """Refuses the tasks of this pipeline."""


class RangeByMinutes(_NotDaily, luigi_ranges.RangeByMinutes):
    """Refuses the tasks of this pipeline."""
