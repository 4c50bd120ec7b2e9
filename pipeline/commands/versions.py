"""`spamscore models` and `serve`: the exported versions of the model, and the one in service."""

from __future__ import annotations

import dataclasses

import click

from pipeline import printing
from pipeline.commands.context import read_settings
from pipeline.commands.options import NUMBER, ask, examples, form, remark, said_meanwhile, yes_option
from pipeline.printing import Column, print_json, print_lines, print_rows


@click.command(
    short_help="List the exported versions of the model.",
    epilog=examples(
        "spamscore models",
        "spamscore models --json | jq '.[] | select(.in_service)'",
        "spamscore models | cut -f 1,4                   version and PR AUC, with tabs between",
    ),
)
@form("json", "A JSON array of objects.")
def models(form: str | None) -> None:
    """List the exported versions of the model, and which one is in service.

    PR AUC and MCC are those of EvaluateModel on the test part; training is the fingerprint that names the folder of the
    checkpoints; threshold is the one at the time of the export, and each batch has its own. In a pipe: a line a version
    with tabs between version, in service (true or false), exported at, PR AUC, MCC, training, threshold.
    """
    read_settings()
    from pipeline.answers.versions import exported_versions

    found = exported_versions()
    if form == "json":
        print_json([dataclasses.asdict(one) for one in found])
        return
    print_rows(_MODEL_COLUMNS, found)
    if not found:
        remark("no version of the model yet. Export one: luigi --module pipeline ExportModel")


_MODEL_COLUMNS = [
    Column("version", lambda one: one.version, right=True, style="bold"),
    Column("", lambda one: one.in_service, lambda value: "in service" if value else "", style="bold green"),
    Column(
        "exported (UTC)",
        lambda one: one.exported_at,
        printing.minute,
        leaves=2,
    ),
    Column("PR AUC", lambda one: one.pr_auc, "{:.4f}".format, right=True),
    Column("MCC", lambda one: one.mcc, "{:.4f}".format, right=True),
    Column("training", lambda one: one.training, leaves=1),
    Column("threshold", lambda one: one.threshold, "{:g}".format, right=True, leaves=3),
]


@click.command(
    short_help="Put another version of the model in service.",
    epilog=examples(
        "spamscore models                                which versions there are",
        "spamscore serve 3",
        "spamscore serve 3 --yes                         without a question, for scripts",
        "spamscore serve --refused                       the model that the gate kept out",
    ),
)
@click.argument("version", type=NUMBER, required=False)
@click.option("--refused", is_flag=True, help="The model that EvaluateModel refused, exported as the next version.")
@yes_option
def serve(version: int | None, refused: bool, yes: bool) -> None:
    """Put VERSION of the model in service, an older or a newer one: the next batch is scored with it.

    With --refused it is the model of the settings in force that EvaluateModel refused: the gate is overruled, the model
    becomes the next version, and its manifest and model card say what was judged.

    It holds until a newer version is exported, which is in service from then on. Dates that are scored already stay as
    they are; to score one again: luigi --module pipeline ScoreBatch --date DATE --model-version VERSION
    """
    read_settings()
    if (version is None) != refused:
        raise click.UsageError("expected either VERSION or --refused. Versions: spamscore models")
    if version is None:
        _overrule(yes)
        return
    from pipeline.answers.rollback import servable
    from tasks.artifacts.exports import put_in_service

    before = servable(version)
    if version == before:
        print_lines([f"version {version} is in service already"])
        return
    ask(f"Version {before} is in service. Score the next batches with version {version} instead?", yes)
    put_in_service(version)
    print_lines([f"version {version} is in service until a newer one is exported; before, it was version {before}"])


def _overrule(yes: bool) -> None:
    from pipeline.answers.rollback import question_of_overruling, refused_model

    export, refusal = refused_model()
    ask(question_of_overruling(refusal), yes)
    with said_meanwhile("Exporting the model …"):
        version = export.publish()
    print_lines([f"version {version} is in service until a newer one is exported, against what EvaluateModel said"])
