"""The failures of a run over several dates: its error names them, and keeps their exit code."""

from __future__ import annotations

import datetime

import pytest

from models.errors import AlreadyRunningError, DatesError, InputError, RejectedError, SpamscoreError
from tasks.scoring.several_dates import raise_failures

RUNNING, REJECTED = AlreadyRunningError("it runs"), RejectedError("too many")
KINDS: list[tuple[list[Exception], type[SpamscoreError]]] = [
    ([RUNNING], AlreadyRunningError),
    ([REJECTED, REJECTED], RejectedError),
    ([REJECTED, RUNNING], DatesError),
    ([REJECTED, ValueError("x")], DatesError),
    ([InputError("bad")], DatesError),
]


@pytest.mark.parametrize(("errors", "kind"), KINDS, ids=lambda value: value.__name__ if isinstance(value, type) else "")
def test_failures_of_one_kind_keep_its_exit_code(errors: list[Exception], kind: type[SpamscoreError]) -> None:
    dates = [datetime.date(2026, 1, day) for day in range(1, 4)]
    with pytest.raises(SpamscoreError, match=f"{len(errors)} of 3 dates failed") as raised:
        raise_failures(dict(zip(dates, errors, strict=False)), dates)
    assert type(raised.value) is kind
