"""`spamscore report` and `drift`: the report of a batch, and its drift from the batches before it."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING

import click

from models.errors import InputError
from pipeline import printing
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
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings

if TYPE_CHECKING:
    from tasks.monitoring.drift import Drift

REPORT_COMMAND = "luigi --module pipeline ReportBatch"


@click.command(
    short_help="Print the path of the report of a batch.",
    epilog=examples(
        "spamscore report                                the latest published batch",
        "spamscore report yesterday --open               in a browser",
        "spamscore report 2026-01-31 --json | jq .drift",
    ),
)
@click.argument("date", type=DateType(), required=False)
@click.option("--open", "open_browser", is_flag=True, help="Open the report in a browser.")
@format_option(
    "json",
    "Print the data of the report as a JSON object: counts, times, figures and limits, scores by probability, lengths, "
    "scripts; no message text.",
)
def report(date: datetime.date | None, open_browser: bool, output_format: str | None) -> None:
    """Print the path of the report of the published batch of DATE, or of the latest date if not given.

    The report is one HTML file. index.html in the folder above it lists all batches, with charts. The task ReportBatch
    writes both.
    """
    engine = connect_database()
    from tasks.artifacts.folders import read_json
    from tasks.monitoring.report_index import report_path

    batch = require_published(engine, date)
    path = report_path(batch.batch_date, batch.batch_id)
    if not path.is_file():
        raise InputError(
            f"{path}: batch {batch.batch_id} has no report here. To make it: {REPORT_COMMAND} --date {batch.batch_date}"
        )
    if output_format == "json":
        print_json(read_json(path.with_suffix(".json")))
    else:
        print_lines([str(path)])
    if open_browser:
        click.launch(path.resolve().as_uri())


@click.command(
    short_help="Show the drift from earlier batches, or accept it.",
    epilog=examples(
        "spamscore drift                                 the latest batches",
        "spamscore drift 2026-01-31                      the limits that one batch crossed",
        "spamscore drift 2026-01-31 --accept             the change is expected",
        "spamscore drift --json | jq '.[] | select(.crossed != [])'",
    ),
)
@click.argument("date", type=DateType(), required=False)
@click.option("--accept", is_flag=True, help="Accept the drift of the batch of DATE as expected.")
@click.option("--who", metavar="NAME", help="Name of the person who accepts; default: the system user.")
@click.option(
    "--limit",
    type=POSITIVE_INTEGER,
    metavar="N",
    default=20,
    show_default=True,
    help="Maximum number of batches to list.",
)
@format_option("json", "Print a JSON array of objects: the figures, the limits crossed, who accepted it and when.")
@yes_option
def drift(
    date: datetime.date | None, accept: bool, who: str | None, limit: int, output_format: str | None, yes: bool
) -> None:
    """Show how much the published batch of DATE, or those of the latest dates, differ from the batches before them.

    The limits are the settings of [drift]. A crossed limit stays on record. With [drift] on_drift = fail, the run of
    the date fails with exit code 50 until a person accepts the drift; the scores are published all the same.

    In a pipe, prints one line per batch, separated by tabs: date, batch, messages, flagged share, share of unknown
    words, population stability index (PSI) against the batch before, PSI against labelled messages, limits crossed,
    accepted by.
    """
    engine = connect_database()
    from tasks.monitoring.drift import read_drift, read_drifts

    if date is None:
        if accept:
            raise click.UsageError("--accept needs the DATE of a batch")
        _show(read_drifts(engine, limit), output_format)
        return
    batch = require_published(engine, date)
    batch_drift = read_drift(engine, batch.batch_id)
    if batch_drift is None:
        raise InputError(
            f"the drift of batch {batch.batch_id} of {date} is not measured yet. To measure it: "
            f"{REPORT_COMMAND} --date {date}"
        )
    if accept:
        _accept(batch_drift, who, yes)
    else:
        _show([batch_drift], output_format)


def _show(batch_drifts: list[Drift], output_format: str | None) -> None:
    if output_format == "json":
        print_json([_to_dict(batch_drift) for batch_drift in batch_drifts])
        return
    print_rows(_COLUMNS, batch_drifts)
    if not batch_drifts:
        print_note(f"the drift of no batch is measured yet. To measure it: {REPORT_COMMAND}")


def _to_dict(batch_drift: Drift) -> dict[str, object]:
    figures = dataclasses.asdict(batch_drift.figures) | {"flagged_share": batch_drift.figures.flagged_share}
    verdict = {
        key: value for key, value in dataclasses.asdict(batch_drift).items() if key not in ("figures", "score_counts")
    }
    return {**figures, **verdict}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _format_share(value: float) -> str:
    return f"{value * 100:.2f} %"


def _format_index(value: float) -> str:
    return f"{value:.3f}"


_COLUMNS = [
    Column("date", lambda row: row.figures.batch_date, style="bold"),
    Column("batch", lambda row: row.figures.batch_id, align_right=True, drop_priority=1),
    Column("messages", lambda row: row.figures.messages, printing.format_count, align_right=True),
    Column("flagged", lambda row: _rounded(row.figures.flagged_share), _format_share, align_right=True),
    Column(
        "unknown words",
        lambda row: _rounded(row.figures.unknown_share),
        _format_share,
        align_right=True,
        drop_priority=3,
    ),
    Column("PSI", lambda row: _rounded(row.figures.psi_before), _format_index, align_right=True),
    Column(
        "PSI (labelled)",
        lambda row: _rounded(row.figures.psi_validation),
        _format_index,
        align_right=True,
        drop_priority=2,
    ),
    Column(
        "limits crossed", lambda row: ", ".join(crossing.limit for crossing in row.crossed), style="bold", wrap=True
    ),
    Column("accepted by", lambda row: row.accepted_by, drop_priority=4),
]


def _accept(batch_drift: Drift, who: str | None, yes: bool) -> None:
    from pipeline.answers.labelling import resolve_person
    from tasks.database.schema import open_database
    from tasks.monitoring.drift import accept_drift
    from tasks.monitoring.report_index import write_index

    batch_id, batch_date = batch_drift.figures.batch_id, batch_drift.figures.batch_date
    if not batch_drift.crossed:
        print_note(f"batch {batch_id} of {batch_date} crossed no limit: there is nothing to accept")
    elif batch_drift.accepted_at is not None:
        print_note(f"the drift of batch {batch_id} of {batch_date} was accepted by {batch_drift.accepted_by}")
    else:
        confirm(f"Batch {batch_id} of {batch_date}: {batch_drift.summary}. Accept this as expected?", yes)
        person, engine = resolve_person(who), open_database(load(DatabaseSettings))
        accept_drift(engine, batch_id, person)
        write_index(engine)
        print_lines([f"the drift of batch {batch_id} of {batch_date} is accepted, by {person}"])
