"""Checks what can be rolled back, for `spamscore verify`, `withdraw`, `restore`, `serve` and `prune`.

It checks whether the rows of a batch are as published, which batch can be restored and which model version can be put
in service, and formats questions and results. `tasks.database.ledger` changes the state of a batch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from models.errors import ArtifactError, InputError
from pipeline.printing import format_count
from tasks.artifacts.exports import exports_folder, version_folder, version_in_service
from tasks.artifacts.folders import MANIFEST
from tasks.artifacts.trainings import verified_training_folder

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow, Comparison
    from tasks.database.retention import PrunedRows
    from tasks.export_model import ExportModel

_MAX_NAMED_BATCHES = 5  # in one question
_RESTORABLE_STATES = ("superseded", "withdrawn")


@dataclass(frozen=True)
class Verification:
    """The comparison of a row of `score_batches` with the rows of its batch."""

    batch: BatchRow
    comparisons: list[Comparison]

    @property
    def agrees(self) -> bool:
        """Whether everything is as published."""
        return all(comparison.agrees for comparison in self.comparisons)

    def describe(self) -> str:
        """Returns one line with every difference and the way out."""
        batch = self.batch
        differences = "; ".join(str(comparison) for comparison in self.comparisons if not comparison.agrees)
        way_out = f"Withdraw it (spamscore withdraw {batch.batch_date}) or restore another (spamscore batches)"
        if batch.state != "published":
            way_out = "Its rows were pruned or changed: restore another batch (spamscore batches)"
        return f"batch {batch.batch_id} of {batch.batch_date} is not as published: {differences}. {way_out}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `spamscore verify --json`."""
        batch = self.batch
        header = {"batch_id": batch.batch_id, "batch_date": batch.batch_date, "state": batch.state}
        compared = [{**asdict(comparison), "agrees": comparison.agrees} for comparison in self.comparisons]
        return {**header, "agrees": self.agrees, "compared": compared}


def verify_batch(engine: Engine, batch: BatchRow) -> Verification:
    """Compares a batch with its rows.

    Raises:
        InputError: the batch was never published, so it has no counts and no checksum to compare with.
    """
    from tasks.database.batches import compare_rows

    if batch.published_at is None:
        raise InputError(
            f"batch {batch.batch_id} of {batch.batch_date} is {batch.state} and was never published: it has no counts "
            "and no checksum to compare with. Expected a batch that was published. To list the batches: spamscore "
            "batches"
        )
    return Verification(batch, compare_rows(engine, batch))


def find_batch(engine: Engine, date: datetime.date, batch_id: int) -> BatchRow:
    """Returns a batch of a date.

    Raises:
        InputError: the date has no batch with this number; names those it has.
    """
    from tasks.database.batches import list_batches_of_date

    batches = list_batches_of_date(engine, date)
    for batch in batches:
        if batch.batch_id == batch_id:
            return batch
    raise InputError(f"{date} has no batch {batch_id}; {_list_batches(engine, batches)}")


def require_restorable(engine: Engine, date: datetime.date, batch_id: int) -> BatchRow:
    """Returns a batch of a date that is published or can be restored.

    Raises:
        InputError: it cannot be restored; names the batches of the date and their states.
    """
    from tasks.database.batches import list_batches_of_date

    batch = find_batch(engine, date, batch_id)
    state = _describe_state(engine, batch)
    if state not in (*_RESTORABLE_STATES, "published"):
        raise InputError(
            f"batch {batch_id} of {date} is {state}, and cannot be restored: expected a batch that is superseded or "
            f"withdrawn and has all its rows; {_list_batches(engine, list_batches_of_date(engine, date))}"
        )
    return batch


def _describe_state(engine: Engine, batch: BatchRow) -> str:
    """Returns the state of a batch and, if it is superseded or withdrawn, what prevents its restoration."""
    from tasks.database.batches import compare_counts, count_rows
    from tasks.database.connection import read_transaction

    if batch.state not in _RESTORABLE_STATES:
        return batch.state
    if batch.published_at is None:
        return f"{batch.state} before it was published"
    with read_transaction(engine) as connection:
        comparisons = compare_counts(batch, count_rows(connection, batch.batch_id))
    complete = all(comparison.agrees for comparison in comparisons)
    return batch.state if complete else f"{batch.state} with rows missing, as after spamscore prune"


def _list_batches(engine: Engine, batches: Sequence[BatchRow]) -> str:
    states = "; ".join(f"{batch.batch_id} {_describe_state(engine, batch)}" for batch in batches)
    return f"its batches: {states}" if states else "it has none. To list those of other dates: spamscore batches"


def format_withdraw_question(batch: BatchRow, missing: str) -> str:
    """Formats the question before a published batch is withdrawn; `missing` is a sentence about its source."""
    return (
        f"The {_describe_rows(batch)} of {batch.batch_date} will be removed from published_scores, which then has no "
        f"rows for the date. The next run of the date will read its messages from the source again. {missing}"
        "Withdraw them?"
    )


def format_restore_question(batch: BatchRow, published: BatchRow | None) -> str:
    """Formats the question before a batch is published again."""
    replaced = f"in place of the {_describe_rows(published)}" if published else "which has no published batch now"
    return f"Publish the {_describe_rows(batch)} for {batch.batch_date}, {replaced}?"


def _describe_rows(batch: BatchRow) -> str:
    provisional = ", provisional" if batch.provisional else ""
    return (
        f"{format_count(batch.scored or 0)} rows of batch {batch.batch_id} (model version {batch.model_version}"
        f"{provisional})"
    )


def require_servable(version: int) -> int | None:
    """Checks that a version can be put in service, and returns the version that is in service now.

    Raises:
        ArtifactError: there is no such version, or the checkpoints that a batch loads are missing.
    """
    version_folder(version)
    if not (verified_training_folder(version) / MANIFEST).is_file():
        raise ArtifactError(
            f"{verified_training_folder(version)}: the checkpoints of version {version} are missing, and no batch "
            f"could be scored with it. Restore them from a backup, or choose another version of {exports_folder()}: "
            "spamscore models"
        )
    return version_in_service()


def find_refused_model() -> tuple[ExportModel, str]:
    """Returns the export task of the model of the current settings, and why EvaluateModel refused the model.

    Raises:
        ArtifactError: the model is already exported, was not refused, or is not evaluated yet.
    """
    from tasks.export_model import ExportModel

    export = ExportModel()
    if export.output().exists():
        raise ArtifactError(
            "the model of the current settings is exported already. To list the versions: spamscore models"
        )
    refusal = export.refusal()
    if refusal is None:
        raise ArtifactError(
            "no model of the current settings was refused: there is nothing to overrule. To train and evaluate one: "
            "luigi --module pipeline ExportModel"
        )
    return export, refusal


def format_overrule_question(refusal: str) -> str:
    """Formats the question before a refused model is exported."""
    return f"EvaluateModel refused the model: {refusal}. Export it anyway, and score the next batches with it?"


def format_prune_question(batches: Sequence[PrunedRows], first_kept: datetime.date) -> str:
    """Formats the question before the rows of batches are deleted."""
    rows = sum(batch.rows for batch in batches)
    names = ", ".join(str(batch.batch_id) for batch in batches[:_MAX_NAMED_BATCHES])
    more = len(batches) - _MAX_NAMED_BATCHES
    which = f"batch {names}" if len(batches) == 1 else f"batches {names}"
    which += f" and {format_count(more)} more" if more > 0 else ""
    return f"{format_count(rows)} rows of {which}, of dates before {first_kept}, will be deleted permanently. Continue?"


def format_pruned(batch: PrunedRows) -> str:
    """Formats how many rows of a batch were deleted, or would be."""
    counts = (
        f"{format_count(batch.scores)} scores, {format_count(batch.rejected)} rejected messages, "
        f"{format_count(batch.chunks)} chunks"
    )
    return f"batch {batch.batch_id} of {batch.batch_date}, {batch.state}: {counts}"
