"""`spamscore uncertain`, `label` and `labels`: what people say of the scores."""

from __future__ import annotations

import dataclasses
import datetime
import sys
from pathlib import Path

import click

from pipeline import printing
from pipeline.commands.context import open_scores, require_published
from pipeline.commands.options import NUMBER, Date, examples, form, remark, said_meanwhile
from pipeline.printing import Column, print_lines, print_rows
from tasks.settings.inputs import CorpusSettings
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings


@click.command(
    short_help="List the messages of a date most worth labelling.",
    epilog=examples(
        "spamscore uncertain yesterday",
        "spamscore uncertain yesterday --csv > doubtful.csv      fill in the column label, and then:",
        "spamscore label yesterday --file doubtful.csv",
        "spamscore uncertain yesterday --limit 100 --json | ./ask_people | spamscore label yesterday",
    ),
)
@click.argument("date", type=Date())
@click.option("--limit", type=NUMBER, metavar="N", default=20, show_default=True, help="Most messages listed.")
@form("plain", "As in a pipe, in a terminal too.")
@form("csv", "CSV with a head; message_id and text are exact in a file or pipe.")
@form("json", "A JSON object a line: message_id, label, spam_probability, flagged, text.")
def uncertain(date: datetime.date, limit: int, form: str | None) -> None:
    """List the messages of DATE (2026-01-31, yesterday, today) that a label would teach the model most about.

    These are the ones whose score is nearest to the threshold of the batch, in logits (uncertainty sampling, Lewis and
    Gale 1994), the nearest first. Left out are messages that somebody has labelled, and all but one of those alike:
    that share 60 % of their tokens after cleaning, as the copies of one campaign do.

    In a pipe: a line a message with tabs between message_id, label (empty), probability and text. Each of the forms,
    with the label filled in, is one that `spamscore label` reads.
    """
    engine = open_scores()
    from pipeline.answers.label_candidates import UncertainMessage, uncertain_messages

    batch = require_published(engine, date)
    with said_meanwhile("Comparing messages …"):
        found = uncertain_messages(engine, batch, limit)
    if form == "json":
        print_lines(printing.as_json(dataclasses.asdict(one)) for one in found)
    elif form == "csv":
        names = [field.name for field in dataclasses.fields(UncertainMessage)]
        print_lines(printing.csv_lines(names, [dataclasses.astuple(one) for one in found]))
    elif form == "plain" or not printing.in_terminal():
        print_lines(
            "\t".join(map(printing.plain, (one.message_id, one.label, f"{one.spam_probability:.6f}", one.text)))
            for one in found
        )
    else:
        print_rows(_UNCERTAIN_COLUMNS, found)
    if not found:
        remark(f"every message of {date} is labelled, or like one that is; or there is none")


_EXPECTED = "expected an ID and its LABEL, or --file, or labels on standard input"
_UNCERTAIN_COLUMNS = [
    Column("message_id", lambda one: one.message_id, style="bold"),
    Column("probability", lambda one: one.spam_probability, lambda value: f"{value:.4f}", right=True),
    Column("text", lambda one: one.text, wraps=True),
]


@click.command(
    short_help="Say of messages whether they are spam or ham.",
    epilog=examples(
        "spamscore label yesterday sms-17 spam",
        "spamscore label yesterday sms-17 none              takes the label back, and the text out of the table",
        "spamscore label 2026-01-31 --file labels.csv --who ann",
        "printf 'sms-17\\tspam\\nsms-18\\tham\\n' | spamscore label yesterday",
    ),
)
@click.argument("date", type=Date())
@click.argument("message_id", metavar="[ID", required=False)
@click.argument("said", metavar="LABEL]", required=False, type=click.Choice(["spam", "ham", "none"]))
@click.option(
    "--file",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    help="File of labels; standard input if no ID is given either.",
)
@click.option("--who", metavar="NAME", help="Who says so; the user of the system if not given.")
def label(date: datetime.date, message_id: str | None, said: str | None, file: str | None, who: str | None) -> None:
    """Say of the message ID of the published batch of DATE that it is LABEL: spam, ham, or none to take a label back.

    Without ID, labels are read from a file or standard input: CSV or TSV with message_id and label in its head, JSON
    lines with both, or lines of message_id TAB label. Other columns do not count, and an empty label leaves the message
    open. Unless every line can be used nothing is changed.

    A later label replaces an earlier one of the same person. The text of the message is kept with the label, in the
    table labels, so that it can be learned from when the snapshot is gone; `none` deletes it. IngestCorpus adds the
    labels to the corpus with [corpus] feedback = join.
    """
    if message_id is not None and (said is None or file is not None):
        raise click.UsageError(_EXPECTED)
    if message_id is None and file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise click.UsageError(_EXPECTED)
    engine = open_scores()
    from pipeline.answers.labelling import chosen_person, label_messages, read_labels
    from tasks.database.schema import open_database

    person = chosen_person(who)
    if message_id is not None:
        given = [(message_id, str(said))]
    else:
        piped = file in (None, "-")
        content = sys.stdin.buffer.read() if piped else Path(str(file)).read_bytes()
        given = read_labels(content, "standard input" if piped else str(file))
    batch = require_published(engine, date)
    done = label_messages(open_database(load(DatabaseSettings)), batch, given, person)
    print_lines([f"{done}, by {person}"])
    if load(CorpusSettings).feedback == "none" and done.spam + done.ham:
        remark("no training learns from them unless [corpus] feedback = join")


@click.command(
    short_help="List the labels that people gave.",
    epilog=examples(
        "spamscore labels",
        "spamscore labels --date 2026-01-31 --csv > labels.csv",
        "spamscore labels --json | jq -r 'select(.disputed) | .message_id'",
    ),
)
@click.option("--date", type=Date(), help="Only those of messages of a date.")
@click.option("--who", metavar="NAME", help="Only those of a person.")
@click.option("--limit", type=NUMBER, metavar="N", help="Most labels shown; all if not given.")
@form("plain", "As in a pipe, in a terminal too.")
@form("csv", "CSV with a head; exact in a file or pipe.")
@form("json", "A JSON object a line.")
def labels(date: datetime.date | None, who: str | None, limit: int | None, form: str | None) -> None:
    """List the labels that people gave to messages, the latest first.

    A message is disputed if people say different things of it; the corpus takes the latest of its labels.

    In a pipe: a line a label with tabs between date, message_id, label, who, when (UTC), disputed (true or false) and
    text.
    """
    engine = open_scores()
    from pipeline.answers.labelling import LISTED, listed_labels

    found = listed_labels(engine, date, who, limit)
    if form == "json":
        print_lines(printing.as_json(dict(zip(LISTED, row, strict=True))) for row in found)
    elif form == "csv":
        print_lines(printing.csv_lines(LISTED, found))
    elif form == "plain":
        print_lines("\t".join(map(printing.plain, row)) for row in found)
    else:
        print_rows(_LABEL_COLUMNS, found)
    if not found:
        remark("no labels. The messages most worth one: spamscore uncertain yesterday")


_LABEL_COLUMNS = [
    Column("date", lambda row: row[0]),
    Column("message_id", lambda row: row[1], style="bold"),
    Column("label", lambda row: row[2], style="bold"),
    Column("who", lambda row: row[3], leaves=2),
    Column("when (UTC)", lambda row: row[4], printing.minute, leaves=1),
    Column("disputed", lambda row: row[5], lambda disputed: "disputed" if disputed else "", leaves=3),
    Column("text", lambda row: row[6], wraps=True),
]
