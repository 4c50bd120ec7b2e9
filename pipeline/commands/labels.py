"""`spamscore uncertain`, `label` and `labels`: the labels that people give to messages."""

from __future__ import annotations

import dataclasses
import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import printing
from pipeline.commands.context import connect_database, require_published
from pipeline.commands.options import (
    POSITIVE_INTEGER,
    DateType,
    examples,
    format_option,
    print_note,
    status_line,
)
from pipeline.printing import Column, print_lines, print_rows
from tasks.settings.inputs import CorpusSettings
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings

if TYPE_CHECKING:
    from pipeline.answers.label_candidates import LabelCandidate


@click.command(
    short_help="List the messages of a date most worth labelling.",
    epilog=examples(
        "spamscore uncertain yesterday",
        "spamscore uncertain yesterday --csv > uncertain.csv     fill in the column label, then:",
        "spamscore label yesterday --file uncertain.csv",
        "spamscore uncertain yesterday --limit 100 --json | ./ask_people | spamscore label yesterday",
    ),
)
@click.argument("date", type=DateType())
@click.option(
    "--limit",
    type=POSITIVE_INTEGER,
    metavar="N",
    default=20,
    show_default=True,
    help="Maximum number of messages to list.",
)
@format_option("plain", "Print in a terminal as in a pipe.")
@format_option("csv", "Print CSV with a header; message_id and text are exact in a file or pipe.")
@format_option("json", "Print one JSON object per line: message_id, label, spam_probability, flagged, text.")
def uncertain(date: datetime.date, limit: int, output_format: str | None) -> None:
    """List the messages of DATE (2026-01-31, yesterday, today) whose labels would improve the model most.

    These are the messages whose score is nearest to the threshold of the batch, in logits, nearest first (uncertainty
    sampling, Lewis and Gale 1994). Messages that already have a label are left out. Of near-duplicates, which share
    60 % of their tokens after cleaning, only one is listed, and none if one of them has a label.

    In a pipe, prints one line per message, separated by tabs: message_id, label (empty), probability, text. Fill in the
    label in any of the formats, and `spamscore label` reads it.
    """
    engine = connect_database()
    from pipeline.answers.label_candidates import LabelCandidate, find_label_candidates

    batch = require_published(engine, date)
    with status_line("Comparing messages …"):
        candidates = find_label_candidates(engine, batch, limit)
    if output_format == "json":
        print_lines(printing.format_json(dataclasses.asdict(candidate)) for candidate in candidates)
    elif output_format == "csv":
        names = [field.name for field in dataclasses.fields(LabelCandidate)]
        print_lines(printing.csv_lines(names, [dataclasses.astuple(candidate) for candidate in candidates]))
    elif output_format == "plain" or not printing.is_terminal():
        print_lines("\t".join(map(printing.format_plain, _plain_columns(candidate))) for candidate in candidates)
    else:
        print_rows(_CANDIDATE_COLUMNS, candidates)
    if not candidates:
        print_note(f"nothing to label: every message of {date} is labelled or a near-duplicate, or there is none")


def _plain_columns(candidate: LabelCandidate) -> tuple[str, ...]:
    return candidate.message_id, candidate.label, f"{candidate.spam_probability:.6f}", candidate.text


_EXPECTED = "expected an ID and its LABEL, or --file, or labels on standard input"
_CANDIDATE_COLUMNS = [
    Column("message_id", lambda candidate: candidate.message_id, style="bold"),
    Column("probability", lambda candidate: candidate.spam_probability, lambda value: f"{value:.4f}", align_right=True),
    Column("text", lambda candidate: candidate.text, wrap=True),
]


@click.command(
    short_help="Label messages as spam or ham.",
    epilog=examples(
        "spamscore label yesterday sms-17 spam",
        "spamscore label yesterday sms-17 none              removes the label and the stored text",
        "spamscore label 2026-01-31 --file labels.csv --who ann",
        "printf 'sms-17\\tspam\\nsms-18\\tham\\n' | spamscore label yesterday",
    ),
)
@click.argument("date", type=DateType())
@click.argument("message_id", metavar="[ID", required=False)
@click.argument("message_label", metavar="LABEL]", required=False, type=click.Choice(["spam", "ham", "none"]))
@click.option(
    "--file",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="File of labels; default: standard input, if no ID is given.",
)
@click.option("--who", metavar="NAME", help="Name of the person who labels; default: the system user.")
def label(
    date: datetime.date, message_id: str | None, message_label: str | None, file: str | None, who: str | None
) -> None:
    """Label the message ID of the published batch of DATE as LABEL: spam or ham, or none to remove the label.

    Without ID, labels are read from a file or standard input: CSV or TSV with a header that has message_id and label,
    JSON lines with both keys, or lines of message_id TAB label. Other columns are ignored. A message with an empty
    label is skipped. If any line is invalid, nothing is changed.

    A later label replaces an earlier one of the same person. The text of the message is stored with the label in the
    table labels, so that it can be used for training after the snapshot is deleted; `none` deletes it. IngestCorpus
    adds the labels to the corpus if [corpus] feedback = join.
    """
    if message_id is not None and (message_label is None or file is not None):
        raise click.UsageError(_EXPECTED)
    if message_id is None and file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError(_EXPECTED)
    engine = connect_database()
    from pipeline.answers.labelling import label_messages, read_labels, resolve_person
    from tasks.database.schema import open_database

    person = resolve_person(who)
    if message_id is not None:
        message_labels = [(message_id, str(message_label))]
    else:
        piped = file in (None, "-")
        content = sys.stdin.buffer.read() if piped else Path(str(file)).read_bytes()
        message_labels = read_labels(content, "standard input" if piped else str(file))
    batch = require_published(engine, date)
    counts = label_messages(open_database(load(DatabaseSettings)), batch, message_labels, person)
    print_lines([f"{counts}, by {person}"])
    if load(CorpusSettings).feedback == "none" and counts.spam + counts.ham:
        print_note("labels are not used for training unless [corpus] feedback = join")


@click.command(
    short_help="List the labels that people gave.",
    epilog=examples(
        "spamscore labels",
        "spamscore labels --date 2026-01-31 --csv > labels.csv",
        "spamscore labels --json | jq -r 'select(.disputed) | .message_id'",
    ),
)
@click.option("--date", type=DateType(), help="Only labels of messages of this date.")
@click.option("--who", metavar="NAME", help="Only labels of this person.")
@click.option("--limit", type=POSITIVE_INTEGER, metavar="N", help="Maximum number of labels; all if not given.")
@format_option("plain", "Print in a terminal as in a pipe.")
@format_option("csv", "Print CSV with a header; exact in a file or pipe.")
@format_option("json", "Print one JSON object per line.")
def labels(date: datetime.date | None, who: str | None, limit: int | None, output_format: str | None) -> None:
    """List the labels that people gave to messages, latest first.

    A message is disputed if people gave it different labels; the corpus uses the latest one.

    In a pipe, prints one line per label, separated by tabs: date, message_id, label, who, when (UTC), disputed (true or
    false), text.
    """
    engine = connect_database()
    from pipeline.answers.labelling import LABEL_COLUMNS, list_labels

    rows = list_labels(engine, date, who, limit)
    if output_format == "json":
        print_lines(printing.format_json(dict(zip(LABEL_COLUMNS, row, strict=True))) for row in rows)
    elif output_format == "csv":
        print_lines(printing.csv_lines(LABEL_COLUMNS, rows))
    elif output_format == "plain":
        print_lines("\t".join(map(printing.format_plain, row)) for row in rows)
    else:
        print_rows(_LABEL_COLUMNS, rows)
    if not rows:
        print_note("no labels. To find the messages most worth labelling: spamscore uncertain yesterday")


_LABEL_COLUMNS = [
    Column("date", lambda row: row[0]),
    Column("message_id", lambda row: row[1], style="bold"),
    Column("label", lambda row: row[2], style="bold"),
    Column("who", lambda row: row[3], drop_priority=2),
    Column("when (UTC)", lambda row: row[4], printing.format_minute, drop_priority=1),
    Column("disputed", lambda row: row[5], lambda disputed: "disputed" if disputed else "", drop_priority=3),
    Column("text", lambda row: row[6], wrap=True),
]
