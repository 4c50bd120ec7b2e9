"""`spamscore batches`, `scores` and `summary`: what the nightly batches wrote."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import click

from models.errors import DatabaseError
from pipeline import printing
from pipeline.commands.context import SCORE_COMMAND, connect_database, require_published
from pipeline.commands.options import POSITIVE_INTEGER, DateType, examples, format_option, print_note
from pipeline.printing import Column, print_json, print_lines, print_rows

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow, ScoreRow


@click.command(
    short_help="List the batches: state, counts, times.",
    epilog=examples(
        "spamscore batches",
        "spamscore batches --limit 100 --json | jq '.[] | select(.state == \"published\") | .flagged'",
        "spamscore batches | cut -f 2,3,8                date, state and flagged, separated by tabs",
    ),
)
@click.option(
    "--limit",
    type=POSITIVE_INTEGER,
    metavar="N",
    default=20,
    show_default=True,
    help="Maximum number of batches to list.",
)
@format_option("json", "Print a JSON array of objects with every column of score_batches.")
def batches(limit: int, output_format: str | None) -> None:
    """List the batches, latest date first.

    In a pipe, prints one line per batch, separated by tabs: id, date, state, model version, read, scored, rejected,
    flagged, published at (UTC), seconds, provisional (true or false), checkpoint. A batch has counts only after it was
    published. A provisional batch was scored before its date was over. The checkpoint is given if a person chose one
    (ScoreBatch --checkpoint).
    """
    engine = connect_database()
    from tasks.database.batches import list_batches as read_batches

    rows = read_batches(engine, limit)
    if output_format == "json":
        print_json([dataclasses.asdict(row) for row in rows])
        return
    is_pipe = not printing.is_terminal()
    optional = [column for column in _OPTIONAL_COLUMNS if is_pipe or any(map(column.value, rows))]
    print_rows([*_BATCH_COLUMNS, *optional], rows)
    if not rows:
        print_note(f"no batches yet. To score one: {SCORE_COMMAND}")


_BATCH_COLUMNS = [
    Column("id", lambda batch: batch.batch_id, align_right=True),
    Column("date", lambda batch: batch.batch_date, style="bold"),
    Column("state", lambda batch: batch.state),
    Column("model", lambda batch: batch.model_version, align_right=True, drop_priority=1),
    Column("read", lambda batch: batch.messages_read, printing.format_count, align_right=True),
    Column("scored", lambda batch: batch.scored, printing.format_count, align_right=True, drop_priority=3),
    Column("rejected", lambda batch: batch.rejected, printing.format_count, align_right=True),
    Column("flagged", lambda batch: batch.flagged, printing.format_count, align_right=True, style="bold"),
    Column("published (UTC)", lambda batch: batch.published_at, printing.format_minute, drop_priority=2),
    Column(
        "took",
        lambda batch: batch.seconds_total and round(batch.seconds_total, 3),
        printing.format_duration,
        align_right=True,
        drop_priority=4,
    ),
]
# A terminal shows these columns only if a batch has such a value.
_OPTIONAL_COLUMNS = [
    Column("provisional", lambda batch: batch.provisional, lambda value: "provisional" if value else ""),
    Column("checkpoint", lambda batch: batch.chosen_checkpoint),
]


@click.command(
    short_help="Show the published scores of a date.",
    epilog=examples(
        "spamscore scores yesterday --flagged",
        "spamscore scores 2026-01-31 --limit 100",
        "spamscore scores 2026-01-31 --order message_id --csv > scores.csv",
        "spamscore scores today --json | jq -r 'select(.spam_probability > 0.9) | .message_id'",
        "spamscore scores today --plain | head           ends when head has its ten lines",
    ),
)
@click.argument("date", type=DateType())
@click.option("--flagged", is_flag=True, help="Only messages whose probability reaches the threshold.")
@click.option("--limit", type=POSITIVE_INTEGER, metavar="N", help="Maximum number of messages; all if not given.")
@click.option(
    "--order",
    type=click.Choice(["probability", "message_id"]),
    default="probability",
    show_default=True,
    help="Sort by probability, highest first, or by identifier.",
)
@format_option("plain", "Print in a terminal as in a pipe.")
@format_option("csv", "Print CSV with a header and every column of published_scores; exact in a file or pipe.")
@format_option("json", "Print one JSON object per line, with every column of published_scores.")
def scores(
    date: datetime.date,
    flagged: bool,
    limit: int | None,
    order: Literal["probability", "message_id"],
    output_format: str | None,
) -> None:
    """Show the published scores of DATE (2026-01-31, yesterday, today).

    In a pipe, prints one line per message, separated by tabs: probability, flagged (true or false), message_id.
    Control characters in a message_id are escaped. A user of the database needs SELECT on published_scores only.

    --csv keeps identifiers exact. Import the column as text: a spreadsheet would evaluate an identifier such as =1+1.
    """
    engine = connect_database()
    from tasks.database.batches import stream_scores as read_scores

    batch = _find_batch(engine, date)
    rows = read_scores(engine, date, flagged, limit, order)
    if output_format == "json":
        print_lines(printing.format_json(row._asdict()) for row in rows)
    elif output_format == "csv":
        from tasks.database.batches import ScoreRow

        print_lines(printing.csv_lines(ScoreRow._fields, rows))
    elif output_format == "plain" or not printing.is_terminal():
        print_lines(
            f"{row.spam_probability:.6f}\t{printing.format_plain(row.flagged)}\t"
            f"{printing.escape_unprintable(row.message_id)}"
            for row in rows
        )
    else:
        _show_scores(batch, rows)


def _find_batch(engine: Engine, date: datetime.date) -> BatchRow | ScoreRow:
    """Returns the published batch of a date, or one of its scores for a user who may read only the view of scores."""
    from tasks.database.batches import stream_scores as read_scores
    from tasks.database.driver_errors import is_denied

    try:
        return require_published(engine, date)
    except DatabaseError as error:
        if not is_denied(error.__cause__):
            raise
        if score := next(read_scores(engine, date, limit=1, order="message_id"), None):
            return score
        raise DatabaseError(
            f"published_scores has no score of {date}, and whether the date has an empty batch or none cannot be read: "
            f"{error}"
        ) from None


def _show_scores(batch: BatchRow | ScoreRow, rows: Iterator[ScoreRow]) -> None:
    console = printing.open_console()
    provisional = ", provisional" if getattr(batch, "provisional", False) else ""
    batch_title = f"(batch {batch.batch_id}{provisional}, model version {batch.model_version})"
    console.print(printing.styled_text(f"{'probability':<22}message_id  {batch_title}", "bold"))
    for row in rows:
        line = printing.styled_text(f"{row.spam_probability:.6f}  ", "bold" if row.flagged else "")
        line.append("flagged  " if row.flagged else "         ", "bold red").append("   ")
        console.print(line.append(printing.escape_unprintable(row.message_id)), soft_wrap=True)


@click.command(
    short_help="Summarize the published batch of a date.",
    epilog=examples(
        "spamscore summary                               the latest published batch",
        "spamscore summary 2026-01-31",
        "spamscore summary yesterday --json | jq .flagged_share",
    ),
)
@click.argument("date", type=DateType(), required=False)
@format_option(
    "json",
    "Print a JSON object: columns of score_batches, rejected_because, messages_origin, most_suspicious, "
    "location of the rows.",
)
def summary(date: datetime.date | None, output_format: str | None) -> None:
    """Summarize the published batch of DATE, or of the latest date if not given.

    Shows how many messages were read, scored, rejected (with reasons) and flagged; the model version; where the rows
    are stored; and the ten messages most likely to be spam, with their texts while the snapshot of the batch exists.
    """
    engine = connect_database()
    from pipeline.answers.summary import print_summary, summarize

    batch = require_published(engine, date)
    batch_summary = summarize(engine, batch)
    if output_format == "json":
        print_json(batch_summary.to_dict())
    else:
        print_summary(batch_summary)
