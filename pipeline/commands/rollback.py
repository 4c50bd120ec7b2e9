"""`spamscore verify`, `withdraw`, `restore` and `prune`: checks, rolls back and deletes published batches."""

from __future__ import annotations

import datetime
import sys

import click

from pipeline import printing
from pipeline.command_group import FAILED
from pipeline.commands.context import connect_database, require_published
from pipeline.commands.options import (
    POSITIVE_INTEGER,
    DateType,
    confirm,
    examples,
    format_option,
    print_note,
    yes_option,
)
from pipeline.printing import Column, print_json, print_lines, print_rows
from tasks.scheduler.calendar import current_date
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings


@click.command(
    short_help="Check that the rows of a batch are as published.",
    epilog=examples(
        "spamscore verify yesterday",
        "spamscore verify 2026-01-31 --batch 3           before it is restored",
        "spamscore verify yesterday --json | jq .agrees",
    ),
)
@click.argument("date", type=DateType())
@click.option(
    "--batch",
    "batch_id",
    type=POSITIVE_INTEGER,
    metavar="N",
    help="Check this batch of the date instead of the published one.",
)
@format_option("json", "Print a JSON object: batch_id, batch_date, state, agrees, compared.")
def verify(date: datetime.date, batch_id: int | None, output_format: str | None) -> None:
    """Check that the rows of the published batch of DATE are unchanged since they were published.

    Counts the rows, computes their checksum, and compares both with score_batches. messages_read must equal scored +
    rejected. The exit code is 0 if everything agrees, and 1 if not.

    In a pipe, prints one line per comparison, separated by tabs: name, expected (from score_batches), found (in the
    rows), agrees (true or false).
    """
    engine = connect_database()
    from pipeline.answers.rollback import find_batch, verify_batch

    batch = find_batch(engine, date, batch_id) if batch_id else require_published(engine, date)
    verification = verify_batch(engine, batch)
    if output_format == "json":
        print_json(verification.to_dict())
    else:
        print_rows(_COMPARISON_COLUMNS, verification.comparisons)
    if not verification.agrees:
        print_note(verification.describe())
        raise click.exceptions.Exit(FAILED)


_COMPARISON_COLUMNS = [
    Column("compared", lambda comparison: comparison.name, style="bold"),
    Column("expected", lambda comparison: comparison.expected, align_right=True),
    Column("found", lambda comparison: comparison.found, align_right=True),
    Column("", lambda comparison: comparison.agrees, lambda agrees: "agrees" if agrees else "differs"),
]


@click.command(
    short_help="Withdraw the published scores of a date.",
    epilog=examples(
        "spamscore withdraw yesterday",
        "spamscore withdraw 2026-01-31 --yes             without a question, for scripts",
        "spamscore restore 2026-01-31 --batch 3          publishes the batch again",
    ),
)
@click.argument("date", type=DateType())
@yes_option
def withdraw(date: datetime.date, yes: bool) -> None:
    """Withdraw the published batch of DATE: published_scores has no rows for the date from then on.

    Runs in one transaction. The rows are kept until `spamscore prune` deletes them; until then `spamscore restore` can
    publish them again. The next run of the date reads its messages from the source again and scores them. To score the
    same messages with another model, do not withdraw the batch: run ScoreBatch with --model-version.
    """
    engine = connect_database()
    from pipeline.answers.extraction import describe_missing
    from pipeline.answers.rollback import format_withdraw_question
    from tasks.database.ledger import withdraw_batch
    from tasks.extract_messages import ExtractMessages

    batch = require_published(engine, date)
    confirm(format_withdraw_question(batch, describe_missing(date)), yes)
    ExtractMessages(date=date).take_again()  # first: the command can be repeated as long as the batch is published
    withdraw_batch(engine, batch.batch_id)
    print_lines([f"batch {batch.batch_id} of {date} is withdrawn: published_scores has no rows for the date"])
    print_note(
        f"to publish it again: spamscore restore {date} --batch {batch.batch_id}. A run of the date reads its messages "
        "from the source again"
    )


@click.command(
    short_help="Publish an earlier batch of a date again.",
    epilog=examples(
        "spamscore batches                               lists the batches and their ids",
        "spamscore verify 2026-01-31 --batch 3           checks that its rows are complete",
        "spamscore restore 2026-01-31 --batch 3",
    ),
)
@click.argument("date", type=DateType())
@click.option(
    "--batch", "batch_id", type=POSITIVE_INTEGER, metavar="N", required=True, help="The batch to publish again."
)
@yes_option
def restore(date: datetime.date, batch_id: int, yes: bool) -> None:
    """Publish a superseded or withdrawn batch of DATE again, in place of the one that is published now.

    Runs in one transaction: a reader of published_scores sees the rows of either batch, never of both. The batch must
    have been published before and have all its rows. A run with the same settings does not undo it: until `spamscore
    extract --again`, the messages of the date are those of the restored batch.
    """
    engine = connect_database()
    from pipeline.answers.rollback import format_restore_question, require_restorable
    from tasks.database.batches import find_published_batch
    from tasks.database.ledger import restore_batch
    from tasks.extract_messages import ExtractMessages

    batch = require_restorable(engine, date, batch_id)
    published = find_published_batch(engine, date)
    if batch.state != "published":
        confirm(format_restore_question(batch, published), yes)
    # First, as otherwise a run that starts in between could replace the restored batch.
    ExtractMessages(date=date).keep_snapshot(batch.snapshot)
    if batch.state != "published":
        restore_batch(engine, batch_id)
    rows = f"published_scores has its {printing.format_count(batch.scored or 0)} rows"
    print_lines([f"batch {batch_id} of {date} is published{' already' * (batch.state == 'published')}: {rows}"])


@click.command(
    short_help="Delete the rows of old batches that are not published.",
    epilog=examples(
        "spamscore prune --dry-run                       what would be deleted",
        "spamscore prune --keep-days 30",
        "spamscore prune --yes                           every night, from cron",
        "sqlite3 spamscore.db VACUUM                     returns the free space to the disk",
    ),
)
@click.option(
    "--keep-days",
    type=click.IntRange(min=0, max=36_500),
    metavar="N",
    help="Keep the batches of the last N days; 0 keeps all. Default: [database] keep_days.",
)
@click.option("--dry-run", is_flag=True, help="List what would be deleted, and delete nothing.")
@yes_option
def prune(keep_days: int | None, dry_run: bool, yes: bool) -> None:
    """Delete the rows of superseded, withdrawn and stale running batches whose date is more than N days ago.

    Published batches are always kept. Of the others, the scores, rejected messages and chunks are deleted permanently;
    the row in score_batches is kept as history. A running batch is stale if it was started, and last written to, more
    than N days ago.

    Each transaction deletes at most 10,000 rows. If the command is interrupted, run it again. SQLite reuses the free
    space for new rows; its VACUUM, which needs exclusive access to the database, returns it to the disk.
    """
    engine = connect_database()
    from pipeline.answers.rollback import format_prune_question, format_pruned
    from tasks.database.retention import find_prunable_batches, prune_batch

    days = load(DatabaseSettings).keep_days if keep_days is None else keep_days
    first_kept = current_date() - datetime.timedelta(days=days)
    batches = find_prunable_batches(engine, first_kept) if days else []
    if not batches:
        print_note(f"nothing to delete before {first_kept}" if days else "nothing to delete: 0 days keep all batches")
    elif dry_run:
        print_lines(map(format_pruned, batches))
    else:
        confirm(format_prune_question(batches, first_kept), yes)
        for batch in batches:
            print_lines([format_pruned(prune_batch(engine, batch, first_kept))])
            sys.stdout.flush()
