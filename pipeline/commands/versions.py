"""`spamscore models` and `serve`: the exported model versions, and which one is in service."""

from __future__ import annotations

import dataclasses

import click

from pipeline import printing
from pipeline.commands.context import read_settings
from pipeline.commands.options import (
    POSITIVE_INTEGER,
    confirm,
    examples,
    format_option,
    print_note,
    status_line,
    yes_option,
)
from pipeline.printing import Column, print_json, print_lines, print_rows


@click.command(
    short_help="List the exported model versions.",
    epilog=examples(
        "spamscore models",
        "spamscore models --json | jq '.[] | select(.in_service)'",
        "spamscore models | cut -f 1,4                   version and PR AUC, separated by tabs",
    ),
)
@format_option("json", "Print a JSON array of objects.")
def models(output_format: str | None) -> None:
    """List the exported model versions, newest first, and show which one is in service.

    PR AUC and MCC are measured by EvaluateModel on the test part. Training is the fingerprint that names the folder of
    the checkpoints. Threshold is the one at the time of the export; each batch stores its own.

    In a pipe, prints one line per version, separated by tabs: version, in service (true or false), exported at, PR AUC,
    MCC, training, threshold.
    """
    read_settings()
    from pipeline.answers.versions import exported_versions

    versions = exported_versions()
    if output_format == "json":
        print_json([dataclasses.asdict(version) for version in versions])
        return
    print_rows(_VERSION_COLUMNS, versions)
    if not versions:
        print_note("no model version yet. To export one: luigi --module pipeline ExportModel")


_VERSION_COLUMNS = [
    Column("version", lambda version: version.version, align_right=True, style="bold"),
    Column("", lambda version: version.in_service, lambda value: "in service" if value else "", style="bold green"),
    Column("exported (UTC)", lambda version: version.exported_at, printing.format_minute, drop_priority=2),
    Column("PR AUC", lambda version: version.pr_auc, "{:.4f}".format, align_right=True),
    Column("MCC", lambda version: version.mcc, "{:.4f}".format, align_right=True),
    Column("training", lambda version: version.training, drop_priority=1),
    Column("threshold", lambda version: version.threshold, "{:g}".format, align_right=True, drop_priority=3),
]


@click.command(
    short_help="Put another model version in service.",
    epilog=examples(
        "spamscore models                                lists the versions",
        "spamscore serve 3",
        "spamscore serve 3 --yes                         without a question, for scripts",
        "spamscore serve --refused                       the model that the gate refused",
    ),
)
@click.argument("version", type=POSITIVE_INTEGER, required=False)
@click.option("--refused", is_flag=True, help="Export the model that EvaluateModel refused, as the next version.")
@yes_option
def serve(version: int | None, refused: bool, yes: bool) -> None:
    """Put VERSION of the model in service: the next batches are scored with it. It can be older or newer.

    It stays in service until a newer version is exported. Dates that are already scored do not change. To score a date
    again: luigi --module pipeline ScoreBatch --date DATE --model-version VERSION

    --refused overrules the gate: the model of the current settings, which EvaluateModel refused, is exported as the
    next version. Its manifest and model card record the refusal.
    """
    read_settings()
    if (version is None) != refused:
        raise click.UsageError("expected either VERSION or --refused. To list the versions: spamscore models")
    if version is None:
        _overrule(yes)
        return
    from pipeline.answers.rollback import require_servable
    from tasks.artifacts.exports import put_in_service

    in_service = require_servable(version)
    if version == in_service:
        print_lines([f"version {version} is in service already"])
        return
    confirm(f"Version {in_service} is in service. Score the next batches with version {version} instead?", yes)
    put_in_service(version)
    print_lines([f"version {version} is in service until a newer one is exported; before, it was version {in_service}"])


def _overrule(yes: bool) -> None:
    from pipeline.answers.rollback import find_refused_model, format_overrule_question

    export, refusal = find_refused_model()
    confirm(format_overrule_question(refusal), yes)
    with status_line("Exporting the model …"):
        version = export.publish()
    print_lines([f"version {version} is in service until a newer one is exported; the gate is overruled"])
