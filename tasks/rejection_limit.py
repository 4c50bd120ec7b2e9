"""Compares the share of rejected rows with its limit, and describes in one line why they were rejected."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from models.errors import RejectedError

_MAX_NAMED_REASONS = 3  # in one error
_MAX_DETAIL_LENGTH = 200
# Settings of [messages] that cause a reason, by the start of its name or, for an unreadable row, of its detail.
_SETTINGS = {
    "empty text": ("text_column",),
    "missing message_id": ("id_column",),
    "repeated message_id": ("id_column",),
    "unusable message_id": ("id_column",),
    "unreadable date": ("date_column", "date_format"),
    "wrong number of fields": ("delimiter", "quote"),
    "malformed CSV": ("quote", "escape"),
    "field begins with a quotation mark": ("quote",),
    "undeclared null": ("null", "escape"),
    "unfinished escape": ("escape",),
    "invalid JSON": ("format",),
    "not a JSON object": ("format",),
    "text is not a string": ("text_column",),
    "value is not text or a number": ("id_column", "date_column"),
}


class Reason(NamedTuple):
    """A reason why rows were rejected.

    Attributes:
        name: the reason.
        rows: number of rows.
        first_row: the first of them, from 1.
        detail: detail of the first row; None if there is none.
        source_row: the first row in the source, if `first_row` is a row of a snapshot.
    """

    name: str
    rows: int
    first_row: int
    detail: str | None
    source_row: int | None = None

    def __str__(self) -> str:
        in_source = self.source_row is not None and self.source_row != self.first_row
        where = f"{self.first_row}{f' of the snapshot, row {self.source_row} of the source' if in_source else ''}"
        detail = f": {self.detail[:_MAX_DETAIL_LENGTH]}" if self.detail else ""
        return f"{self.rows} {self.name} (first in row {where}{detail})"

    @property
    def settings(self) -> tuple[str, ...]:
        """Keys of [messages] that may cause the reason."""
        texts = (self.name, self.detail or "")
        return next((keys for start, keys in _SETTINGS.items() if any(text.startswith(start) for text in texts)), ())


def exceeds_limit(reasons: Sequence[Reason], rows: int, limit: float) -> bool:
    """Returns whether more rows were rejected than the share `limit` allows, or, whatever the limit, all of them."""
    rejected = sum(reason.rows for reason in reasons)
    return rejected > limit * rows or 0 < rows <= rejected


def format_reasons(reasons: Sequence[Reason]) -> str:
    """Formats the most frequent reasons, each with its first row, and the number of the others."""
    named = sorted(reasons, key=lambda reason: -reason.rows)[:_MAX_NAMED_REASONS]
    others = len(reasons) - len(named)
    return "; ".join([*map(str, named), *([f"and {others} more"] if others else [])])


def make_rejected_error(
    source: str, date: datetime.date, rows: int, reasons: Sequence[Reason], limit: float, note: str = ""
) -> RejectedError:
    """Returns the error of a date with too many rejected messages.

    It names the most frequent reasons and the settings that may cause them.

    Args:
        source: name of the file or query.
        date: date of the messages.
        rows: messages of the date that were read.
        reasons: why messages were rejected, with all rejected messages.
        limit: [messages] max_rejected_share.
        note: one more sentence, with a space before it.
    """
    rejected = sum(reason.rows for reason in reasons)
    none_left = rejected >= rows
    verdict = "none can be scored" if none_left else f"more than [messages] max_rejected_share = {limit:g} allows"
    keys = dict.fromkeys(key for reason in reasons for key in reason.settings)
    settings = f" or [messages] {', '.join(keys)}" if keys else ""
    return RejectedError(
        f"{source}: {rejected:,} of {rows:,} messages of {date} were rejected ({rejected / rows:.1%}), {verdict}: "
        f"{format_reasons(reasons)}. Nothing is published; a batch of the date that was published before stays "
        f"published. Correct the source{settings}{'' if none_left else ', or raise the limit'}, and run the same "
        f"command again.{note}"
    )
