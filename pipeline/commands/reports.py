"""`spamscore report` and `drift`: the page about a batch, and how unlike those before it is."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING

import click

from models.errors import InputError
from pipeline import printing
from pipeline.commands.context import open_scores, require_published
from pipeline.commands.options import NUMBER, Date, ask, examples, form, remark, yes_option
from pipeline.printing import Column, print_json, print_lines, print_rows
from tasks.settings.loading import load
from tasks.settings.storage import DatabaseSettings

if TYPE_CHECKING:
    from tasks.monitoring.drift import Drift

REPORT = "luigi --module pipeline ReportBatch"


@click.command(
    short_help="Tell where the report of a batch is.",
    epilog=examples(
        "spamscore report                                the newest published batch",
        "spamscore report yesterday --open               in a browser",
        "spamscore report 2026-01-31 --json | jq .drift",
    ),
)
@click.argument("date", type=Date(), required=False)
@click.option("--open", "opens", is_flag=True, help="Open it in a browser.")
@form("json", "A JSON object: counts, times, figures and limits, scores by probability, lengths, scripts; no text.")
def report(date: datetime.date | None, opens: bool, form: str | None) -> None:
    """Tell where the report of the published batch of DATE is; of the newest date if not given.

    It is one HTML file; index.html in the folder above lists all batches, with charts. ReportBatch makes both.
    """
    engine = open_scores()
    from tasks.artifacts.folders import read_json
    from tasks.monitoring.report_index import report_path

    batch = require_published(engine, date)
    path = report_path(batch.batch_date, batch.batch_id)
    if not path.is_file():
        raise InputError(
            f"{path}: batch {batch.batch_id} has no report here. Make it: {REPORT} --date {batch.batch_date}"
        )
    if form == "json":
        print_json(read_json(path.with_suffix(".json")))
    else:
        print_lines([str(path)])
    if opens:
        click.launch(path.resolve().as_uri())


@click.command(
    short_help="Show how unlike those before batches are, or accept it.",
    epilog=examples(
        "spamscore drift                                 the latest batches",
        "spamscore drift 2026-01-31                      what one of them crossed",
        "spamscore drift 2026-01-31 --accept             it is as it should be",
        "spamscore drift --json | jq '.[] | select(.crossed != [])'",
    ),
)
@click.argument("date", type=Date(), required=False)
@click.option("--accept", is_flag=True, help="Say of what the batch of DATE crossed that it is as it should be.")
@click.option("--who", metavar="NAME", help="Who says so; the user of the system if not given.")
@click.option("--limit", type=NUMBER, metavar="N", default=20, show_default=True, help="Most batches shown.")
@form("json", "A JSON array of objects: the figures, what was crossed, who accepted it and when.")
@yes_option
def drift(date: datetime.date | None, accept: bool, who: str | None, limit: int, form: str | None, yes: bool) -> None:
    """Show how unlike those before the published batches are: of DATE, or of the latest dates.

    The limits are those of [drift]. What was crossed stays on record. With [drift] on_drift = fail, the run of its date
    fails with exit code 50 until a person accepts it; the scores stay published all the while.

    In a pipe: a line a batch with tabs between date, batch, messages, flagged share, unknown words, index against the
    batch before, index against labelled messages, what was crossed, who accepted it.
    """
    engine = open_scores()
    from tasks.monitoring.drift import read_drift, read_drifts

    if date is None:
        if accept:
            raise click.UsageError("--accept needs the DATE of a batch")
        _show(read_drifts(engine, limit), form)
        return
    batch = require_published(engine, date)
    found = read_drift(engine, batch.batch_id)
    if found is None:
        raise InputError(f"batch {batch.batch_id} of {date} was not measured yet: {REPORT} --date {date}")
    if accept:
        _accept(found, who, yes)
    else:
        _show([found], form)


def _show(found: list[Drift], form: str | None) -> None:
    if form == "json":
        print_json([_as_dict(one) for one in found])
        return
    print_rows(_COLUMNS, found)
    if not found:
        remark(f"no batch was measured yet: {REPORT}")


def _as_dict(one: Drift) -> dict[str, object]:
    figures = dataclasses.asdict(one.figures) | {"flagged_share": one.figures.flagged_share}
    rest = {key: value for key, value in dataclasses.asdict(one).items() if key not in ("figures", "score_counts")}
    return {**figures, **rest}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _share(value: float) -> str:
    return f"{value * 100:.2f} %"


def _index(value: float) -> str:
    return f"{value:.3f}"


_COLUMNS = [
    Column("date", lambda one: one.figures.batch_date, style="bold"),
    Column("batch", lambda one: one.figures.batch_id, right=True, leaves=1),
    Column("messages", lambda one: one.figures.messages, printing.count, right=True),
    Column("flagged", lambda one: _rounded(one.figures.flagged_share), _share, right=True),
    Column("unknown", lambda one: _rounded(one.figures.unknown_share), _share, right=True, leaves=3),
    Column("psi", lambda one: _rounded(one.figures.psi_before), _index, right=True),
    Column("psi (labelled)", lambda one: _rounded(one.figures.psi_validation), _index, right=True, leaves=2),
    Column("crossed", lambda one: ", ".join(crossing.limit for crossing in one.crossed), style="bold", wraps=True),
    Column("accepted by", lambda one: one.accepted_by, leaves=4),
]


def _accept(found: Drift, who: str | None, yes: bool) -> None:
    from pipeline.answers.labelling import chosen_person
    from tasks.database.schema import open_database
    from tasks.monitoring.drift import accept_drift
    from tasks.monitoring.report_index import write_index

    one = found.figures
    if not found.crossed:
        remark(f"batch {one.batch_id} of {one.batch_date} crossed no limit: there is nothing to accept")
    elif found.accepted_at is not None:
        remark(f"batch {one.batch_id} of {one.batch_date} was accepted by {found.accepted_by}")
    else:
        ask(f"Batch {one.batch_id} of {one.batch_date}: {found.summary}. Is that as it should be?", yes)
        person, engine = chosen_person(who), open_database(load(DatabaseSettings))
        accept_drift(engine, one.batch_id, person)
        write_index(engine)
        print_lines([f"what batch {one.batch_id} of {one.batch_date} crossed is accepted, by {person}"])
