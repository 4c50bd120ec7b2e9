"""What happened in a published batch: how many messages, by which model, where the rows are, the most suspicious ones.

This is what `make score` ends with. `summarize` asks, `print_summary` shows it to a person.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.printing import (
    Column,
    cell_len,
    count,
    duration,
    grid,
    minute,
    page,
    print_lines,
    shortened,
    styled,
    visible,
)
from tasks.artifacts.locations import snapshot_folder

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow

MOST_SUSPICIOUS = 10
# The names of `tasks.database.tables`, which cannot be imported without SQLAlchemy.
SCORES_VIEW, SCORES_TABLE, REJECTED_TABLE = "published_scores", "spam_scores", "rejected_messages"
_ENOUGH_TO_TELL = 10_000  # messages; of fewer the cost is that of loading the model
_ID_COLUMNS = 24
_LABEL, _FIGURE, _REMARK = Column(""), Column("", right=True), Column("", wraps=True)


@dataclass(frozen=True)
class SuspiciousMessage:
    """A message of the batch; its text is None where the snapshot that was scored is gone."""

    message_id: str
    spam_probability: float
    flagged: bool
    text: str | None


@dataclass(frozen=True)
class Summary:
    """What happened in a batch.

    Attributes:
        batch: as the database has it.
        rejected_because: messages refused, by reason, the most frequent first.
        database: its address, password masked.
        most_suspicious: the ten messages that are most likely spam.
    """

    batch: BatchRow
    rejected_because: dict[str, int]
    database: str
    most_suspicious: list[SuspiciousMessage]

    @property
    def flagged_share(self) -> float | None:
        """Share of the scored messages that were flagged; None if none was scored."""
        return (self.batch.flagged or 0) / self.batch.scored if self.batch.scored else None

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            **dataclasses.asdict(self.batch),
            "flagged_share": self.flagged_share,
            "rejected_because": self.rejected_because,
            "database": self.database,
            "scores_view": SCORES_VIEW,
            "scores_table": SCORES_TABLE,
            "rejected_table": REJECTED_TABLE,
            "most_suspicious": [dataclasses.asdict(one) for one in self.most_suspicious],
        }


def summarize(engine: Engine, batch: BatchRow) -> Summary:
    """Asks the database and the snapshot about a published batch."""
    from tasks.database.batches import stream_rejections, stream_scores
    from tasks.database.connection import mask_password

    reasons = Counter(one.reason for one in stream_rejections(engine, batch.batch_id)) if batch.rejected else Counter()
    rows = list(stream_scores(engine, batch.batch_date, limit=MOST_SUSPICIOUS))
    texts = texts_of(snapshot_folder(batch.batch_date, batch.snapshot), [row.message_id for row in rows])
    return Summary(
        batch=batch,
        rejected_because=dict(reasons.most_common()),
        database=mask_password(engine.url),
        most_suspicious=[
            SuspiciousMessage(row.message_id, row.spam_probability, row.flagged, texts.get(row.message_id))
            for row in rows
        ],
    )


def texts_of(snapshot: Path, message_ids: Iterable[str]) -> dict[str, str]:
    """The texts of some messages of a snapshot; none of them where it is gone or cannot be read."""
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
    # Of rows with one identifier the first that holds something was scored, so it is set last.
    latest_first = sorted(rows, key=lambda row: -row["row_number"])
    return {row["message_id"]: row["text"] for row in latest_first if row["text"] and row["text"].strip()}


def print_summary(summary: Summary) -> None:
    """Shows a summary to a person."""
    console = page()
    with console.capture() as drawn:
        _draw(console, summary)
    print_lines(line.rstrip() for line in drawn.get().splitlines())


def _draw(console: Console, summary: Summary) -> None:
    batch = summary.batch
    console.print(styled(f"\nBatch {batch.batch_id} of {batch.batch_date:%A, %-d %B %Y}\n", "bold"))
    console.print(_figures(summary))
    console.print()
    console.print(_circumstances(summary))
    if summary.most_suspicious:
        console.print(styled("\nMost suspicious messages\n", "bold"))
        console.print(_messages(summary.most_suspicious, console.width))
    if any(one.text is None for one in summary.most_suspicious):
        console.print(
            styled(
                f"\n  No text: {snapshot_folder(batch.batch_date, batch.snapshot)} is not here, or cannot be read.",
                "dim",
            )
        )
    console.print()


def _figures(summary: Summary) -> Table:
    batch, table = summary.batch, grid([_LABEL, _FIGURE, _REMARK])
    reasons = ", ".join(f"{count(number)} {visible(reason)}" for reason, number in summary.rejected_because.items())
    share = f"{summary.flagged_share or 0:.1%} of the scored, at probability {batch.threshold:g} or more"
    for label, figure, remark in (
        ("Messages read", batch.messages_read, ""),
        ("Scored", batch.scored, ""),
        ("Rejected", batch.rejected, reasons),
        ("Flagged", batch.flagged, share if batch.scored else ""),
    ):
        style = "bold red" if label == "Flagged" and figure else "bold"
        table.add_row(styled(f"  {label:<14}"), styled(count(figure or 0), style), styled(remark))
    return table


def _circumstances(summary: Summary) -> Table:
    batch, table = summary.batch, grid([_LABEL, _REMARK])
    took = f", {duration(batch.seconds_total)} on {batch.devices}" if batch.seconds_total is not None else ""
    for label, value in (
        ("Model", f"{batch.model_name}, version {batch.model_version}"),
        ("Checkpoint", batch.checkpoint),
        ("Published", f"{minute(batch.published_at)} UTC{took}" if batch.published_at else ""),
        ("Cost", cost(batch)),
        ("Database", summary.database),
        ("Rows", f"{SCORES_VIEW} (view), {SCORES_TABLE}, {REJECTED_TABLE}"),
    ):
        if value:
            table.add_row(styled(f"  {label:<14}"), styled(visible(value)))
    return table


def cost(batch: BatchRow) -> str:
    """What a million messages cost in a batch like this; empty where its times are unknown, or those of loading."""
    few = (batch.messages_read or 0) < _ENOUGH_TO_TELL
    if few or batch.messages_read is None or batch.seconds_total is None or batch.seconds_processor is None:
        return ""
    whole, processor = (1e6 * each / batch.messages_read for each in (batch.seconds_total, batch.seconds_processor))
    return f"{duration(whole)} and {duration(processor)} of processors a million messages"


def _messages(messages: Sequence[SuspiciousMessage], width: int) -> Table:
    table = grid([_LABEL, _LABEL, _REMARK])
    ids = [shortened(one.message_id, _ID_COLUMNS) for one in messages]
    room = max(width - max(map(cell_len, ids), default=0) - len("  0.0000  ") - 2, 1)
    for one, message_id in zip(messages, ids, strict=True):
        probability = styled(f"  {one.spam_probability:.4f}", "bold red" if one.flagged else "")
        text = styled("?", "dim") if one.text is None else styled(shortened(one.text, room))
        table.add_row(probability, styled(message_id, "dim"), text)
    return table
