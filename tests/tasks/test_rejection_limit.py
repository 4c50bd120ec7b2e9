"""The limit of rejected rows, and the text of the error."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.rejection_limit import Reason, exceeds_limit, format_reasons, make_rejected_error

DATE = datetime.date(2026, 1, 31)


@pytest.mark.parametrize(
    ("rejected", "rows", "limit", "exceeded"),
    [(0, 0, 0.0, False), (0, 1, 0.0, False), (1, 1, 1.0, True), (2, 10, 0.2, False), (3, 10, 0.2, True),
     (9, 10, 1.0, False), (1, 10, 0.0, True)],
)  # fmt: skip
def test_a_share_above_the_limit_or_no_row_left_exceeds_it(
    rejected: int, rows: int, limit: float, exceeded: bool
) -> None:
    assert exceeds_limit([Reason("x", rejected, 1, None)], rows, limit) is exceeded


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1))
def test_a_higher_limit_never_refuses_what_a_lower_one_allows(scored: int, rejected: int, limit: float) -> None:
    rows, reasons = scored + rejected, [Reason("x", rejected, 1, None)]
    assert exceeds_limit(reasons, rows, 1.0) <= exceeds_limit(reasons, rows, limit)
    assert exceeds_limit(reasons, rows, 1.0) is (rejected > 0 and scored == 0)


def test_the_three_most_frequent_reasons_are_named_with_their_first_rows() -> None:
    reasons = [
        Reason("a", 1, 5, None),
        Reason("b", 3, 6, "x" * 500),
        Reason("c", 2, 7, "why", 70),
        Reason("d", 2, 8, "d", 8),
    ]
    assert format_reasons(reasons) == (
        f"3 b (first in row 6: {'x' * 200}); 2 c (first in row 7 of the snapshot, row 70 of the source: why); "
        "2 d (first in row 8: d); and 1 more"
    )


@pytest.mark.parametrize(
    ("reason", "settings"),
    [
        (Reason("empty text", 5, 1, None), " or [messages] text_column,"),
        (Reason("unreadable row", 5, 1, "wrong number of fields: expected 2"), " or [messages] delimiter, quote,"),
        (Reason("wrong number of fields", 5, 1, "expected 2"), " or [messages] delimiter, quote,"),
        (Reason("scoring failed", 5, 1, "ValueError: text"), ","),
    ],
)
def test_the_error_names_the_settings_that_may_cause_the_reason(reason: Reason, settings: str) -> None:
    error = str(make_rejected_error("in.csv", DATE, 10, [reason], 0.2))
    assert error.startswith("in.csv: 5 of 10 messages of 2026-01-31 were rejected (50.0%), more than [")
    assert f"Correct the source{settings} or raise the limit, and run the same command again." in error


def test_raising_the_limit_is_not_advised_where_it_does_not_help() -> None:
    error = str(make_rejected_error("in.csv", DATE, 5, [Reason("empty text", 5, 1, None)], 1.0))
    assert "none can be scored" in error
    assert "raise the limit" not in error
