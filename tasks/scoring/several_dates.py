"""Reports the progress and the failures of a run that scores several dates."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from models.errors import AlreadyRunningError, DateNotOverError, DatesError, RejectedError
from tasks.scheduler.failures import describe_error, find_expected_error

if TYPE_CHECKING:
    from tasks.monitoring.deadline import ProgressCallback

_MAX_NAMED_DATES = 3  # failed dates that the error names with their reason


def scale_progress(
    on_progress: ProgressCallback, dates: Sequence[datetime.date], date: datetime.date
) -> ProgressCallback:
    """Returns a progress callback for one date that reports the progress of all dates to another callback."""
    if len(dates) == 1:
        return on_progress
    index = dates.index(date)

    def on_date_progress(done: float, total: float, status: str) -> None:
        on_progress(index + done / max(total, 1), len(dates), f"{date}, {index + 1} of {len(dates)}: {status}")

    return on_date_progress


def raise_failures(failures: Mapping[datetime.date, Exception], dates: Sequence[datetime.date]) -> None:
    """Raises one error for all dates that failed; does nothing if none failed.

    Raises:
        AlreadyRunningError: all failed dates are being scored by other runs.
        DateNotOverError: all failed dates cannot be scored yet.
        RejectedError: too many messages of each failed date were rejected.
        DatesError: dates failed; names the first of them with their reasons.
    """
    if not failures:
        return
    texts = [(str(date), describe_error(error)) for date, error in list(failures.items())[:_MAX_NAMED_DATES]]
    reasons = [text if date in text else f"{date}: {text}" for date, text in texts]
    if len(failures) > _MAX_NAMED_DATES:
        reasons.append(f"{len(failures) - _MAX_NAMED_DATES} more, see the log")
    kinds = {type(find_expected_error(error)) for error in failures.values()}
    same_code = (AlreadyRunningError, DateNotOverError, RejectedError)
    kind = next((kind for kind in same_code if kinds == {kind}), DatesError)
    others = ", the others are published" if len(failures) < len(dates) else ""
    raise kind(f"{len(failures)} of {len(dates)} dates failed{others}. {'; '.join(reasons)}")
