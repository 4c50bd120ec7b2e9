"""`spamscore extract`: shows the snapshot of the messages of a date, and has the messages read again."""

from __future__ import annotations

import datetime

import click

from pipeline import printing
from pipeline.commands.context import SCORE_COMMAND, connect_database
from pipeline.commands.options import DateType, confirm, examples, format_option, print_note, yes_option
from pipeline.printing import Column, print_json, print_lines, print_rows


@click.command(
    short_help="Show the snapshot of a date, or have its messages read again.",
    epilog=examples(
        "spamscore extract yesterday                     what was read, and what changed since",
        "spamscore extract yesterday --json | jq .changes",
        "spamscore extract 2026-01-31 --again            after the source was corrected",
        "spamscore extract 2026-01-31 --again --yes      without a question, for scripts",
    ),
)
@click.argument("date", type=DateType())
@click.option("--again", is_flag=True, help="Make the next run of the date read the source again.")
@yes_option
@format_option(
    "json",
    "Print a JSON object: date, snapshot, source, rows, faults, other_dates, taken_at, files, changes, "
    "published_batch.",
)
def extract(date: datetime.date, again: bool, yes: bool, output_format: str | None) -> None:
    """Show the snapshot of the messages of DATE: what was read and when, and which files were modified since.

    The messages of a date are read once. A later run of the date with the same settings uses the snapshot, or has
    nothing to do. With --again the next run reads the source again and scores its messages. The batch that is published
    stays published until the new one replaces it. `spamscore restore` of the published batch takes --again back.

    In a pipe, prints one line per fact, separated by a tab: name, value.
    """
    engine = connect_database()
    from pipeline.answers.extraction import find_snapshot, format_again_question
    from tasks.database.batches import find_published_batch

    published = find_published_batch(engine, date)
    if again:
        from tasks.extract_messages import ExtractMessages

        confirm(format_again_question(date, published), yes)
        ExtractMessages(date=date).take_again()
        stays = f"; batch {published.batch_id} stays published until the new one replaces it" if published else ""
        print_lines([f"the next run of {date} reads its messages from the source again{stays}"])
        print_note(f"to score them now: {SCORE_COMMAND} --date {date}")
        return
    snapshot = find_snapshot(date, published)
    if output_format == "json":
        print_json(snapshot.to_dict())
        return
    origin = snapshot.origin
    facts = [
        ("source", origin.source),
        ("read at (UTC)", origin.taken_at),
        ("messages", origin.rows),
        *((f"with a fault: {kind}", count) for kind, count in origin.faults.items()),
        ("of other dates, left out", origin.other_dates),
        ("published batch", published and published.batch_id),
        ("snapshot", snapshot.folder),
    ]
    print_rows(_FACT_COLUMNS, [fact for fact in facts if fact[1] is not None])
    for change in origin.find_changes():
        print_note(f"{change}. To read it again: spamscore extract {date} --again")


def _format_fact(value: object) -> str:
    return printing.format_count(value) if isinstance(value, int) else str(value)


_FACT_COLUMNS = [Column("", lambda fact: fact[0], style="bold"), Column("", lambda fact: fact[1], _format_fact)]
