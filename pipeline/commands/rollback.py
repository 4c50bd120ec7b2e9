"""`spamscore verify`, `withdraw`, `restore` and `prune`: what was written, checked and taken back."""

from __future__ import annotations

import datetime
import sys

import click

from pipeline import printing
from pipeline.commands.context import open_scores, require_published
from pipeline.commands.group import FAILED
from pipeline.commands.options import NUMBER, Date, ask, examples, form, remark, yes_option
from pipeline.printing import Column, print_json, print_lines, print_rows
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings


@click.command(
    short_help="Check that a batch's rows are those that were published.",
    epilog=examples(
        "spamscore verify yesterday",
        "spamscore verify 2026-01-31 --batch 3           before it is restored",
        "spamscore verify yesterday --json | jq .agrees",
    ),
)
@click.argument("date", type=Date())
@click.option("--batch", "number", type=NUMBER, metavar="N", help="A batch of the date instead of the published one.")
@form("json", "A JSON object: batch_id, batch_date, state, agrees, and what was compared.")
def verify(date: datetime.date, number: int | None, form: str | None) -> None:
    """Check that the rows of the published batch of DATE are still those that were published.

    The checksum is computed from the rows again, the rows are counted, and both are compared with what score_batches
    says; messages_read must be scored + rejected. Exit code 0 when all agree, 1 when not. In a pipe: a line for each
    with tabs between what it is, expected (score_batches), found (the rows) and whether they agree (true or false).
    """
    engine = open_scores()
    from pipeline.answers.rollback import batch_of_date, verified

    found = verified(engine, batch_of_date(engine, date, number) if number else require_published(engine, date))
    if form == "json":
        print_json(found.to_dict())
    else:
        print_rows(_COMPARISON_COLUMNS, found.compared)
    if not found.agrees:
        remark(found.said())
        raise click.exceptions.Exit(FAILED)


_COMPARISON_COLUMNS = [
    Column("compared", lambda one: one.name, style="bold"),
    Column("expected", lambda one: one.expected, right=True),
    Column("found", lambda one: one.found, right=True),
    Column("", lambda one: one.agrees, lambda agrees: "agrees" if agrees else "differs"),
]


@click.command(
    short_help="Take a date's published scores back.",
    epilog=examples(
        "spamscore withdraw yesterday",
        "spamscore withdraw 2026-01-31 --yes             without a question, for scripts",
        "spamscore restore 2026-01-31 --batch 3          puts them back",
    ),
)
@click.argument("date", type=Date())
@yes_option
def withdraw(date: datetime.date, yes: bool) -> None:
    """Take the published batch of DATE back: published_scores shows nothing of the date from then on.

    One transaction. The rows stay, so that `spamscore restore` can put them back, until `spamscore prune` deletes them.
    The next run of the date scores it anew.
    """
    engine = open_scores()
    from pipeline.answers.rollback import question_of_withdrawing
    from tasks.database.ledger import withdraw_batch

    batch = require_published(engine, date)
    ask(question_of_withdrawing(batch), yes)
    withdraw_batch(engine, batch.batch_id)
    print_lines([f"batch {batch.batch_id} of {date} is withdrawn: published_scores shows nothing of the date"])
    remark(f"to put it back: spamscore restore {date} --batch {batch.batch_id}; a run of the date scores it anew")


@click.command(
    short_help="Publish an older batch of a date again.",
    epilog=examples(
        "spamscore batches                               which batches there are",
        "spamscore verify 2026-01-31 --batch 3           whether its rows are whole",
        "spamscore restore 2026-01-31 --batch 3",
    ),
)
@click.argument("date", type=Date())
@click.option("--batch", "number", type=NUMBER, metavar="N", required=True, help="The batch to publish again.")
@yes_option
def restore(date: datetime.date, number: int, yes: bool) -> None:
    """Publish a superseded or withdrawn batch of DATE again, in place of the one published now.

    One transaction: who reads published_scores sees the rows of the one or of the other. The batch must have been
    published once and have all its rows. No run of the same settings undoes it.
    """
    engine = open_scores()
    from pipeline.answers.rollback import question_of_restoring, restorable
    from tasks.database.batches import find_published_batch
    from tasks.database.ledger import restore_batch

    batch = restorable(engine, date, number)
    before = find_published_batch(engine, date)
    if batch.state != "published":
        ask(question_of_restoring(batch, before), yes)
        restore_batch(engine, number)
    shown = f"published_scores shows its {printing.count(batch.scored or 0)} rows"
    print_lines([f"batch {number} of {date} is published{' already' * (batch.state == 'published')}: {shown}"])


@click.command(
    short_help="Delete the rows of old batches that nobody reads.",
    epilog=examples(
        "spamscore prune --dry-run                       what would go",
        "spamscore prune --keep-days 30",
        "spamscore prune --yes                           every night, from cron",
        "sqlite3 spamscore.db VACUUM                     gives the room back to the disk",
    ),
)
@click.option(
    "--keep-days",
    type=click.IntRange(min=0, max=36_500),
    metavar="N",
    help="Batches of the last N days are kept, all if 0; [database] keep_days if not given.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")
@yes_option
def prune(keep_days: int | None, dry_run: bool, yes: bool) -> None:
    """Delete the rows of superseded, withdrawn and stale running batches whose date is older than N days.

    Published batches stay, however old. Of the others the scores, rejected messages and chunks go, for good; the row in
    score_batches stays as history. Stale is a running batch that was begun, and last written to, before those days.
    Each transaction deletes 10,000 rows at most. Killed in the middle, it can simply be run again. SQLite fills the
    room with new rows; its VACUUM, which needs the database for itself, gives it back to the disk.
    """
    engine = open_scores()
    from pipeline.answers.rollback import pruned_line, question_of_pruning
    from tasks.database.retention import find_prunable_batches, prune_batch

    days = load(DatabaseSettings).keep_days if keep_days is None else keep_days
    before = datetime.date.today() - datetime.timedelta(days=days)
    found = find_prunable_batches(engine, before) if days else []
    if not found:
        remark(f"nothing to delete before {before}" if days else "nothing to delete: 0 days keep all")
    elif dry_run:
        print_lines(map(pruned_line, found))
    else:
        ask(question_of_pruning(found, before), yes)
        for one in found:
            print_lines([pruned_line(prune_batch(engine, one, before))])
            sys.stdout.flush()
