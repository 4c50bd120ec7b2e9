"""What happened in a published batch: how many messages, by which model, where the rows are, the most suspicious ones.

This is what `make score` ends with. `summarize` asks, `print_summary` shows it to a person.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.settings import DeviceSettings
from pipeline.tables import Column, count, duration, grid, minute, page, shortened, styled
from tasks.extract_messages import ExtractMessages
from tasks.settings import DatabaseSettings, load
from tasks.stage import artifacts_folder

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy.engine import Engine

    from tasks.batches import BatchRow

MOST_SUSPICIOUS = 10
_ID_COLUMNS = 24


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
        import dataclasses

        return {
            **dataclasses.asdict(self.batch),
            "flagged_share": self.flagged_share,
            "rejected_because": self.rejected_because,
            "database": self.database,
            "scores_view": "published_scores",
            "scores_table": "spam_scores",
            "rejected_table": "rejected_messages",
            "most_suspicious": [dataclasses.asdict(one) for one in self.most_suspicious],
        }


def summarize(engine: Engine, batch: BatchRow) -> Summary:
    """Asks the database and the snapshot about a published batch."""
    from tasks.batches import rejected, scores
    from tasks.database import masked

    reasons = Counter(one.reason for one in rejected(engine, batch.batch_id)) if batch.rejected else Counter()
    rows = list(scores(engine, batch.batch_date, limit=MOST_SUSPICIOUS))
    texts = texts_of(snapshot_folder(batch), [row.message_id for row in rows])
    return Summary(
        batch=batch,
        rejected_because=dict(reasons.most_common()),
        database=masked(engine.url),
        most_suspicious=[
            SuspiciousMessage(row.message_id, row.spam_probability, row.flagged, texts.get(row.message_id)) for row in rows
        ],
    )


def snapshot_folder(batch: BatchRow) -> Path:
    """Where ExtractMessages left the messages of a batch."""
    return artifacts_folder() / "snapshots" / batch.batch_date.isoformat() / batch.snapshot


def texts_of(snapshot: Path, message_ids: Iterable[str]) -> dict[str, str]:
    """The texts of some messages of a snapshot; none of them where it is gone or cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = [("message_id", "in", list(message_ids))]
    try:
        found = pq.read_table(snapshot / "messages.parquet", columns=["row_number", "message_id", "text"], filters=wanted)
    except (OSError, pa.ArrowException):
        return {}
    # Of rows with one identifier the first was scored, so it is set last.
    rows = sorted(found.to_pylist(), key=lambda row: -row["row_number"])
    return {row["message_id"]: row["text"] for row in rows if row["text"] is not None}


def print_summary(summary: Summary) -> None:
    """Shows a summary to a person."""
    console = page()
    batch = summary.batch
    console.print()
    console.print(styled(f"Batch {batch.batch_id} of {batch.batch_date:%A, %-d %B %Y}", "bold"))
    console.print()
    _print_facts(console, summary)
    console.print()
    console.print(styled(f"The {len(summary.most_suspicious)} most suspicious messages", "bold"))
    console.print()
    _print_messages(console, summary.most_suspicious)
    console.print()


def _print_facts(console: Console, summary: Summary) -> None:
    facts = grid([Column("", None), Column("", None, right=True), Column("", None)])
    for name, figure, remark in _counts(summary):
        facts.add_row(styled(f"  {name}", "dim"), styled(figure, "bold red" if name == "Flagged" else "bold"), styled(remark))
    console.print(facts)
    console.print()
    rest = grid([Column("", None), Column("", None)])
    for name, value in _circumstances(summary):
        rest.add_row(styled(f"  {name}", "dim"), styled(value))
    console.print(rest)
