"""`spamscore models`, `serve`, `checkpoints` and `weights`: the model versions, their checkpoints and their weights."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click

from models.errors import InputError
from pipeline import printing
from pipeline.commands.context import read_settings
from pipeline.commands.options import (
    POSITIVE_INTEGER,
    checkpoint_option,
    confirm,
    examples,
    format_option,
    print_note,
    status_line,
    yes_option,
)
from pipeline.printing import Column, print_json, print_lines, print_rows
from tasks.settings.loading import load
from tasks.settings.serving import ServingSettings


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
    MCC, training, threshold, candidate (true or false).
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
    Column("", lambda version: version.candidate, lambda value: "candidate" if value else "", style="bold yellow"),
]


@click.command(
    short_help="Put another model version in service.",
    epilog=examples(
        "spamscore models                                lists the versions",
        "spamscore serve 3",
        "spamscore serve 3 --yes                         without a question, for scripts",
        "spamscore serve 4 --canary                      a candidate, which clients ask for by its label",
        "spamscore serve --no-canary                     removes the candidate's label",
        "spamscore serve --refused                       the model that the gate refused",
    ),
)
@click.argument("version", type=POSITIVE_INTEGER, required=False)
@click.option("--canary/--no-canary", default=None, help="Make VERSION the candidate; or remove the candidate's label.")
@click.option("--refused", is_flag=True, help="Export the model that EvaluateModel refused, as the next version.")
@yes_option
def serve(version: int | None, canary: bool | None, refused: bool, yes: bool) -> None:
    """Put VERSION of the model in service: the next batches are scored with it. It can be older or newer.

    It stays in service until a newer version is exported. Dates that are already scored do not change. To score a date
    again: luigi --module pipeline ScoreBatch --date DATE --model-version VERSION

    The batch, the commands and the front end use the version from the moment the command ends. TensorFlow Serving
    reads it from exports/<model_name>/models.config at its next poll, as the label stable. If the server does not keep
    VERSION loaded, the command first waits [serving] load_seconds.

    --canary gives VERSION the label canary instead. Clients of TensorFlow Serving and of the front end can ask for it
    by its label or number; nothing else changes. `spamscore serve VERSION` promotes it.

    --refused overrules the gate: the model of the current settings, which EvaluateModel refused, is exported as the
    next version. Its manifest and model card record the refusal.
    """
    read_settings()
    if [version is not None, refused, canary is False].count(True) != 1 or (canary and version is None):
        raise click.UsageError(
            "expected either VERSION, with or without --canary, or --no-canary, or --refused. To list the versions: "
            "spamscore models"
        )
    if refused:
        _overrule(yes)
    elif version is None:
        _remove_candidate()
    elif canary:
        _label_candidate(version)
    else:
        _put_in_service(version, yes)


def _put_in_service(version: int, yes: bool) -> None:
    from pipeline.answers.rollback import require_servable
    from tasks.artifacts.exports import put_in_service

    in_service = require_servable(version)
    if version == in_service:
        put_in_service(version)  # writes the files for TensorFlow Serving if they are missing
        print_lines([f"version {version} is in service already"])
        return
    confirm(f"Version {in_service} is in service. Score the next batches with version {version} instead?", yes)
    _wait_until_loaded(version)
    put_in_service(version)
    print_lines([f"version {version} is in service until a newer one is exported; before, it was version {in_service}"])


def _label_candidate(version: int) -> None:
    from pipeline.answers.rollback import require_servable
    from tasks.artifacts.exports import put_in_service
    from tasks.artifacts.model_config import CANARY

    if version == require_servable(version):
        raise InputError(
            f"version {version} is in service, so it cannot be the candidate too. Expected another version. To list "
            "them: spamscore models"
        )
    _wait_until_loaded(version)
    put_in_service(version, CANARY)
    print_lines([f"version {version} is the candidate; to put it in service: spamscore serve {version}"])


def _remove_candidate() -> None:
    from tasks.artifacts.exports import remove_candidate

    removed = remove_candidate()
    print_lines([f"version {removed} is no candidate any more" if removed else "there is no candidate"])


def _wait_until_loaded(version: int) -> None:
    """Waits until servers have loaded a version: TensorFlow Serving moves a label to no other version."""
    from tasks.artifacts.exports import announce_version

    seconds = load(ServingSettings).load_seconds
    if announce_version(version) and seconds:
        with status_line(f"Waiting {seconds} s ([serving] load_seconds) while servers load version {version} …"):
            time.sleep(seconds)


def _overrule(yes: bool) -> None:
    from pipeline.answers.rollback import find_refused_model, format_overrule_question

    export, refusal = find_refused_model()
    confirm(format_overrule_question(refusal), yes)
    with status_line("Exporting the model …"):
        version = export.publish()
    print_lines([f"version {version} is in service until a newer one is exported; the gate is overruled"])


@click.command(
    short_help="List the checkpoints of the trainings.",
    epilog=examples(
        "spamscore checkpoints",
        "spamscore checkpoints 1                         those of the training of version 1",
        "spamscore checkpoints --json | jq '.[] | select(.damaged) | .damage'",
    ),
)
@click.argument("version", type=POSITIVE_INTEGER, required=False)
@format_option("json", "Print a JSON array of objects.")
def checkpoints(version: int | None, output_format: str | None) -> None:
    """List the checkpoints of all trainings, or of the training of VERSION, newest training first.

    Unfinished trainings are listed too: those that run, and those that were killed. The checkpoints of held-out folds
    exist until the fold is trained.

    Every tensor of every checkpoint is read, and the files of a finished training are compared with its manifest. A
    checkpoint that differs is listed as damaged.

    Epoch is the number of finished epochs. The validation loss is that of the weights in the checkpoint: it is empty
    within an epoch. The last checkpoint of a training has the weights of the best epoch. It is the one that the model
    uses. Kept means that no later checkpoint displaces it ([training] keep_checkpoint_every_hours).

    In a pipe, prints one line per checkpoint, separated by tabs: training, state of the training, fold, checkpoint,
    step, epoch, validation loss, written at (UTC), kept, damaged, used by the model (each true or false).
    """
    read_settings()
    from pipeline.answers.checkpoints import list_training_checkpoints

    with status_line("Reading the checkpoints …"):
        rows = list_training_checkpoints(version)
    if output_format == "json":
        print_json([dataclasses.asdict(row) for row in rows])
        return
    print_rows(_CHECKPOINT_COLUMNS, rows)
    if not rows:
        print_note("no checkpoints yet. To train a model: luigi --module pipeline TrainModel")


_CHECKPOINT_COLUMNS = [
    Column("training", lambda row: row.training),
    Column("state", lambda row: row.state, drop_priority=2),
    Column("fold", lambda row: row.fold, align_right=True, drop_priority=4),
    Column("checkpoint", lambda row: row.checkpoint, style="bold"),
    Column("step", lambda row: row.step, printing.format_count, align_right=True, drop_priority=5),
    Column("epoch", lambda row: row.epoch, align_right=True, drop_priority=1),
    Column("loss", lambda row: row.validation_loss, "{:.4f}".format, align_right=True, drop_priority=1),
    Column("written (UTC)", lambda row: row.written_at, printing.format_minute, drop_priority=3),
    Column("", lambda row: row.permanent, lambda value: "kept" if value else "", drop_priority=6),
    Column("", lambda row: row.damaged, lambda value: "damaged" if value else "", style="bold red"),
    Column("", lambda row: row.used, lambda value: "used" if value else "", style="bold green"),
]


@click.command(
    short_help="List or export the weights of a model version.",
    epilog=examples(
        "spamscore weights",
        "spamscore weights 1 --checkpoint ckpt-72        the weights of step 72 of its training",
        "spamscore weights --npz weights.npz             raw weights, to start another training from",
        "spamscore weights --calibrated --npz c.npz      as a batch scores with them",
        "spamscore weights --json | jq '.weights[] | {path, shape}'",
    ),
)
@click.argument("version", type=POSITIVE_INTEGER, required=False)
@checkpoint_option
@click.option("--calibrated", is_flag=True, help="Apply the calibration of the version to the last layers.")
@click.option("--npz", type=click.Path(dir_okay=False), metavar="FILE", help="Write the weights to this .npz file.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@format_option("json", "Print a JSON object: version, training, checkpoint, calibrated, weights.")
def weights(
    version: int | None,
    checkpoint: str | None,
    calibrated: bool,
    npz: str | None,
    force: bool,
    output_format: str | None,
) -> None:
    """List the variables of the network of VERSION, by default of the version in service: path, shape, dtype, norm.

    The weights are raw, as the training wrote them, unless --calibrated is given. Raw weights are the tensors of the
    checkpoint, bit by bit. With --checkpoint they are those of the step at which it was written.

    --npz writes the variables under their paths, such as embedding/words. The entry spamscore:calibrated is true or
    false. The entry spamscore:vocabulary has the tokens in the order of the rows of embedding/words. A calibrated file
    is no start for another training.

    In a pipe, prints one line per variable, separated by tabs: path, shape, dtype, L2 norm, parameters. A note on
    standard error tells which weights they are.
    """
    read_settings()
    from pipeline.answers import checkpoints as answers
    from pipeline.answers.probabilities import resolve_version

    if npz is not None:
        answers.require_new_file(Path(npz), force)
    number = resolve_version(version)
    with status_line(f"Reading the weights of version {number} …"):
        found = answers.read_weights(number, checkpoint, calibrated)
    if npz is not None:
        answers.write_weights_file(found, Path(npz))
    if output_format == "json":
        print_json(found.to_dict())
    else:
        print_rows(_WEIGHT_COLUMNS, found.weights)
    print_note(found.describe() + (f"; written to {npz}" if npz is not None else ""))


_WEIGHT_COLUMNS = [
    Column("path", lambda weight: weight.path, style="bold"),
    Column("shape", lambda weight: "x".join(map(str, weight.shape)), align_right=True),
    Column("dtype", lambda weight: weight.dtype, drop_priority=2),
    Column("norm", lambda weight: weight.norm, "{:.4f}".format, align_right=True),
    Column("parameters", lambda weight: weight.parameters, printing.format_count, align_right=True, drop_priority=1),
]
