"""`spamscore batches`, `scores` and `summary`: what the nights wrote."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import click

from pipeline import printing
from pipeline.commands.context import SCORE, open_scores, require_published
from pipeline.commands.options import Date, examples, form, remark
from pipeline.printing import Column, print_json, print_lines, print_rows

if TYPE_CHECKING:
    from tasks.database.batches import BatchRow, ScoreRow


@click.command(
    short_help="List the batches: state, counts, times.",
    epilog=examples(
        "spamscore batches",
        "spamscore batches --limit 100 --json | jq '.[] | select(.state == \"published\") | .flagged'",
        "spamscore batches | cut -f 2,3,8                date, state and flagged, with tabs between",
    ),
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", default=20, show_default=True, help="Most batches shown."
)
@form("json", "A JSON array of objects with every column of score_batches.")
def batches(limit: int, form: str | None) -> None:
    """List the batches, the newest date first.

    In a pipe: a line a batch with tabs between id, date, state, model version, read, scored, rejected, flagged,
    published at (UTC), seconds. The counts are there once a batch was published.
    """
    engine = open_scores()
    from tasks.database.batches import list_batches as found_batches

    found = found_batches(engine, limit)
    if form == "json":
        print_json([dataclasses.asdict(one) for one in found])
        return
    print_rows(_BATCH_COLUMNS, found)
    if not found:
        remark(f"no batches yet. Score one: {SCORE}")


_BATCH_COLUMNS = [
    Column("id", lambda batch: batch.batch_id, right=True),
    Column("date", lambda batch: batch.batch_date, style="bold"),
    Column("state", lambda batch: batch.state),
    Column("model", lambda batch: batch.model_version, right=True, leaves=1),
    Column("read", lambda batch: batch.messages_read, printing.count, right=True),
    Column("scored", lambda batch: batch.scored, printing.count, right=True, leaves=3),
    Column("rejected", lambda batch: batch.rejected, printing.count, right=True),
    Column("flagged", lambda batch: batch.flagged, printing.count, right=True, style="bold"),
    Column("published (UTC)", lambda batch: batch.published_at, printing.minute, leaves=2),
    Column(
        "took",
        lambda batch: batch.seconds_total and round(batch.seconds_total, 3),
        printing.duration,
        right=True,
        leaves=4,
    ),
]


@click.command(
    short_help="Show the published scores of a date.",
    epilog=examples(
        "spamscore scores yesterday --flagged",
        "spamscore scores 2026-01-31 --limit 100",
        "spamscore scores 2026-01-31 --order message_id --csv > scores.csv",
        "spamscore scores today --json | jq -r 'select(.spam_probability > 0.9) | .message_id'",
        "spamscore scores today --plain | head           stops early, as it should",
    ),
)
@click.argument("date", type=Date())
@click.option("--flagged", is_flag=True, help="Only messages whose probability reaches the threshold.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Most messages shown; all if not given.")
@click.option(
    "--order",
    type=click.Choice(["probability", "message_id"]),
    default="probability",
    show_default=True,
    help="The most suspicious first, or by identifier.",
)
@form("plain", "As in a pipe, in a terminal too.")
@form("csv", "CSV with a head and every column of published_scores; exact in a file or pipe.")
@form("json", "A JSON object a line, with every column of published_scores.")
def scores(
    date: datetime.date, flagged: bool, limit: int | None, order: Literal["probability", "message_id"], form: str | None
) -> None:
    """Show the published scores of DATE (2026-01-31, yesterday, today), streamed.

    In a pipe: a line a message with tabs between probability, flagged (true or false) and message_id, which is made
    visible where it holds what a terminal would act on. --csv keeps identifiers exact: import the column as text, for a
    spreadsheet takes one such as =1+1 for a formula.
    """
    engine = open_scores()
    from tasks.database.batches import stream_scores as found_scores

    batch = require_published(engine, date)
    rows = found_scores(engine, date, flagged, limit, order)
    if form == "json":
        print_lines(printing.as_json(row._asdict()) for row in rows)
    elif form == "csv":
        from tasks.database.batches import ScoreRow

        print_lines(printing.csv_lines(ScoreRow._fields, rows))
    elif form == "plain" or not printing.in_terminal():
        print_lines(
            f"{row.spam_probability:.6f}\t{printing.plain(row.flagged)}\t{printing.visible(row.message_id)}"
            for row in rows
        )
    else:
        _show_scores(batch, rows)


def _show_scores(batch: BatchRow, rows: Iterator[ScoreRow]) -> None:
    console = printing.page()
    from_where = f"of batch {batch.batch_id}, by version {batch.model_version}"
    console.print(printing.styled(f"probability         message_id {from_where}", "bold"))
    for row in rows:
        line = printing.styled(f"{row.spam_probability:.6f}  ", "bold" if row.flagged else "")
        line.append("flagged  " if row.flagged else "         ", "bold red").append("   ")
        console.print(line.append(printing.visible(row.message_id)), soft_wrap=True)


@click.command(
    short_help="Tell what happened in a night's batch.",
    epilog=examples(
        "spamscore summary                               the newest published batch",
        "spamscore summary 2026-01-31",
        "spamscore summary yesterday --json | jq .flagged_share",
    ),
)
@click.argument("date", type=Date(), required=False)
@form("json", "A JSON object: the columns of score_batches, rejected_because, most_suspicious and where the rows are.")
def summary(date: datetime.date | None, form: str | None) -> None:
    """Tell what happened in the published batch of DATE; of the newest date if not given.

    How many messages were read, scored, rejected and why, flagged; by which model; where the rows are; the ten most
    suspicious messages, with their texts where the snapshot that was scored is still there.
    """
    engine = open_scores()
    from pipeline.answers.summary import print_summary, summarize

    batch = require_published(engine, date)
    found = summarize(engine, batch)
    if form == "json":
        print_json(found.to_dict())
    else:
        print_summary(found)
