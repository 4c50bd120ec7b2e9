"""Summarizes a published batch: counts, model version, location of the rows, the most suspicious messages.

`make score` ends with this summary. `summarize` reads it, `print_summary` prints it for a person.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.answers.versions import describe_self_training
from pipeline.printing import (
    Column,
    display_width,
    escape_unprintable,
    format_count,
    format_duration,
    format_minute,
    make_table,
    open_console,
    print_lines,
    styled_text,
    truncate,
)
from tasks.artifacts.locations import snapshot_folder
from tasks.artifacts.source_files import describe_origin
from tasks.settings.masking import mask_password

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow

MOST_SUSPICIOUS = 10
# Copies of the names in `tasks.database.tables`, whose import would load SQLAlchemy.
SCORES_VIEW, SCORES_TABLE, REJECTED_TABLE = "published_scores", "spam_scores", "rejected_messages"
_MIN_MESSAGES_FOR_COST = 10_000  # in a smaller batch, most of the time is spent on loading the model
_ID_WIDTH = 24  # terminal columns
_PROVISIONAL = "scored before its date was over; a run after that scores the whole date"
_LABEL, _NUMBER, _NOTE = Column(""), Column("", align_right=True), Column("", wrap=True)


@dataclass(frozen=True)
class SuspiciousMessage:
    """A message of the batch; its text is None if the snapshot of the batch is missing."""

    message_id: str
    spam_probability: float
    flagged: bool
    text: str | None


@dataclass(frozen=True)
class Summary:
    """The summary of a published batch.

    Attributes:
        batch: its row in the database.
        rejected_because: number of rejected messages by reason, most frequent first.
        database: URL of the database, password masked.
        most_suspicious: the ten messages most likely to be spam.
        origin: from what and when its messages were read, and which files were modified since.
    """

    batch: BatchRow
    rejected_because: dict[str, int]
    database: str
    most_suspicious: list[SuspiciousMessage]
    origin: str

    @property
    def flagged_share(self) -> float | None:
        """Share of the scored messages that were flagged; None if none was scored."""
        return (self.batch.flagged or 0) / self.batch.scored if self.batch.scored else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `spamscore summary --json`."""
        return {
            **dataclasses.asdict(self.batch),
            "flagged_share": self.flagged_share,
            "rejected_because": self.rejected_because,
            "messages_origin": self.origin,
            "database": self.database,
            "scores_view": SCORES_VIEW,
            "scores_table": SCORES_TABLE,
            "rejected_table": REJECTED_TABLE,
            "most_suspicious": [dataclasses.asdict(message) for message in self.most_suspicious],
        }


def summarize(engine: Engine, batch: BatchRow) -> Summary:
    """Reads the summary of a published batch from the database and its snapshot."""
    from tasks.database.batches import stream_rejections, stream_scores

    reasons = Counter(row.reason for row in stream_rejections(engine, batch.batch_id)) if batch.rejected else Counter()
    rows = list(stream_scores(engine, batch.batch_date, limit=MOST_SUSPICIOUS))
    snapshot = snapshot_folder(batch.batch_date, batch.snapshot)
    texts = read_texts(snapshot, [row.message_id for row in rows])
    return Summary(
        batch=batch,
        rejected_because=dict(reasons.most_common()),
        database=mask_password(engine.url),
        most_suspicious=[
            SuspiciousMessage(row.message_id, row.spam_probability, row.flagged, texts.get(row.message_id))
            for row in rows
        ],
        origin=describe_origin(snapshot),
    )


def read_texts(snapshot: Path, message_ids: Iterable[str]) -> dict[str, str]:
    """Reads the texts of messages from a snapshot.

    Returns:
        The text of each message_id that has one; empty if the snapshot is missing or cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.sources.snapshots import SNAPSHOT_FILE

    columns = ["row_number", "message_id", "text"]
    try:
        rows = pq.read_table(
            snapshot / SNAPSHOT_FILE, columns=columns, filters=[("message_id", "in", list(message_ids))]
        ).to_pylist()
    except (OSError, pa.ArrowException):
        return {}
    # Of rows with the same message_id, the first one with a text was scored. It comes last here, and overwrites.
    latest_first = sorted(rows, key=lambda row: -row["row_number"])
    return {row["message_id"]: row["text"] for row in latest_first if row["text"] and row["text"].strip()}


def print_summary(summary: Summary) -> None:
    """Prints a summary for a person."""
    console = open_console()
    with console.capture() as capture:
        _draw(console, summary)
    print_lines(line.rstrip() for line in capture.get().splitlines())


def _draw(console: Console, summary: Summary) -> None:
    batch = summary.batch
    console.print(styled_text(f"\nBatch {batch.batch_id} of {batch.batch_date:%A, %-d %B %Y}\n", "bold"))
    console.print(_make_count_table(summary))
    console.print()
    console.print(_make_detail_table(summary))
    if summary.most_suspicious:
        console.print(styled_text("\nMost suspicious messages\n", "bold"))
        console.print(_make_message_table(summary.most_suspicious, console.width))
    if any(message.text is None for message in summary.most_suspicious):
        console.print(
            styled_text(
                f"\n  No text: {snapshot_folder(batch.batch_date, batch.snapshot)} is missing or cannot be read.",
                "dim",
            )
        )
    console.print()


def _make_count_table(summary: Summary) -> Table:
    batch, table = summary.batch, make_table([_LABEL, _NUMBER, _NOTE])
    reasons = ", ".join(
        f"{format_count(number)} {escape_unprintable(reason)}" for reason, number in summary.rejected_because.items()
    )
    share = f"{summary.flagged_share or 0:.1%} of the scored messages, at a threshold of {batch.threshold:g}"
    for label, number, note in (
        ("Messages read", batch.messages_read, ""),
        ("Scored", batch.scored, ""),
        ("Rejected", batch.rejected, reasons),
        ("Flagged", batch.flagged, share if batch.scored else ""),
    ):
        style = "bold red" if label == "Flagged" and number else "bold"
        table.add_row(styled_text(f"  {label:<14}"), styled_text(format_count(number or 0), style), styled_text(note))
    return table


def _make_detail_table(summary: Summary) -> Table:
    batch, table = summary.batch, make_table([_LABEL, _NOTE])
    duration = (
        f", in {format_duration(batch.seconds_total)} on {batch.devices}" if batch.seconds_total is not None else ""
    )
    for label, value in (
        ("Provisional", _PROVISIONAL if batch.provisional else ""),
        ("Messages", summary.origin),
        ("Model", f"{batch.model_name}, version {batch.model_version}{describe_self_training(batch.model_version)}"),
        ("Checkpoint", batch.checkpoint),
        ("Published", f"{format_minute(batch.published_at)} UTC{duration}" if batch.published_at else ""),
        ("Cost", format_cost(batch)),
        ("Database", summary.database),
        ("Rows", f"{SCORES_VIEW} (view), {SCORES_TABLE}, {REJECTED_TABLE}"),
    ):
        if value:
            table.add_row(styled_text(f"  {label:<14}"), styled_text(escape_unprintable(value)))
    return table


def format_cost(batch: BatchRow) -> str:
    """Formats the cost of a million messages, extrapolated from a batch.

    Empty if the times of the batch are unknown, or if it is too small: then they are mostly the time to load the model.
    """
    too_small = (batch.messages_read or 0) < _MIN_MESSAGES_FOR_COST
    if too_small or batch.messages_read is None or batch.seconds_total is None or batch.seconds_processor is None:
        return ""
    total, processor = (
        1e6 * seconds / batch.messages_read for seconds in (batch.seconds_total, batch.seconds_processor)
    )
    return f"{format_duration(total)} and {format_duration(processor)} of CPU time per million messages"


def _make_message_table(messages: Sequence[SuspiciousMessage], width: int) -> Table:
    table = make_table([_LABEL, _LABEL, _NOTE])
    ids = [truncate(message.message_id, _ID_WIDTH) for message in messages]
    text_width = max(width - max(map(display_width, ids), default=0) - len("  0.0000  ") - 2, 1)
    for message, message_id in zip(messages, ids, strict=True):
        probability = styled_text(f"  {message.spam_probability:.4f}", "bold red" if message.flagged else "")
        text = styled_text("?", "dim") if message.text is None else styled_text(truncate(message.text, text_width))
        table.add_row(probability, styled_text(message_id, "dim"), text)
    return table
