"""What a person is told before and after something is taken back: whether a batch's rows are those that were published,
which batch can be restored, which version can serve, what pruning deletes. The flips themselves are
`tasks.database.ledger`'s.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from models.errors import ArtifactError, InputError
from pipeline.printing import count
from tasks.artifacts.exports import exports_folder, version_folder, version_in_service
from tasks.artifacts.folders import MANIFEST
from tasks.artifacts.trainings import verified_training_folder

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine

    from tasks.database.batches import BatchRow, Comparison
    from tasks.database.retention import Pruned
    from tasks.export_model import ExportModel

_NAMED = 5  # batches that a question names
_FLIPPED = ("superseded", "withdrawn")


@dataclass(frozen=True)
class Verification:
    """A batch as `score_batches` has it, held against its rows."""

    batch: BatchRow
    compared: list[Comparison]

    @property
    def agrees(self) -> bool:
        """Whether all is as it was published."""
        return all(one.agrees for one in self.compared)

    def said(self) -> str:
        """One line that names each difference, and the way out."""
        batch, differences = self.batch, "; ".join(str(one) for one in self.compared if not one.agrees)
        way = f"Withdraw it (spamscore withdraw {batch.batch_date}) or restore another (spamscore batches)"
        if batch.state != "published":
            way = "Its rows were pruned or changed: restore another (spamscore batches)"
        return f"batch {batch.batch_id} of {batch.batch_date} is not as it was published: {differences}. {way}"

    def to_dict(self) -> dict[str, Any]:
        """Fit for JSON."""
        batch = self.batch
        about = {"batch_id": batch.batch_id, "batch_date": batch.batch_date, "state": batch.state}
        compared = [{**asdict(one), "agrees": one.agrees} for one in self.compared]
        return {**about, "agrees": self.agrees, "compared": compared}


def verified(engine: Engine, batch: BatchRow) -> Verification:
    """Holds a batch against its rows.

    Raises:
        InputError: it was never published, so there is nothing to compare with.
    """
    from tasks.database.batches import compare_rows

    if batch.published_at is None:
        raise InputError(
            f"batch {batch.batch_id} of {batch.batch_date} is {batch.state} and was never published: there are no "
            "counts and no checksum to compare with. Expected one that was: spamscore batches"
        )
    return Verification(batch, compare_rows(engine, batch))


def batch_of_date(engine: Engine, date: datetime.date, number: int) -> BatchRow:
    """The batch of a number, which must be of the date.

    Raises:
        InputError: it is not; names those that are.
    """
    from tasks.database.batches import batches_of

    there = batches_of(engine, date)
    for batch in there:
        if batch.batch_id == number:
            return batch
    raise InputError(f"batch {number} is not one of {date}; {_listed(engine, there)}")


def restorable(engine: Engine, date: datetime.date, number: int) -> BatchRow:
    """The batch of a date that has this number, if it is published or can be.

    Raises:
        InputError: it is neither; names the batches of the date and their states.
    """
    from tasks.database.batches import batches_of

    batch = batch_of_date(engine, date, number)
    standing = _standing(engine, batch)
    if standing not in (*_FLIPPED, "published"):
        raise InputError(
            f"batch {number} of {date} is {standing}, and cannot be restored: expected one that is superseded or "
            f"withdrawn and has all its rows; {_listed(engine, batches_of(engine, date))}"
        )
    return batch


def _standing(engine: Engine, batch: BatchRow) -> str:
    """The state of a batch, and what keeps it from being restored."""
    from tasks.database.batches import compare_counts, count_rows
    from tasks.database.connection import reading

    if batch.state not in _FLIPPED:
        return batch.state
    if batch.published_at is None:
        return f"{batch.state} before it was published"
    with reading(engine) as connection:
        whole = all(one.agrees for one in compare_counts(batch, count_rows(connection, batch.batch_id)))
    return batch.state if whole else f"{batch.state} with rows missing, as after spamscore prune"


def _listed(engine: Engine, batches: Sequence[BatchRow]) -> str:
    named = "; ".join(f"{one.batch_id} {_standing(engine, one)}" for one in batches)
    return f"those there are: {named}" if named else "there are none. `spamscore batches` lists those of other dates"


def question_of_withdrawing(batch: BatchRow) -> str:
    """What a person is asked before a published batch is withdrawn."""
    return (
        f"Of {batch.batch_date}, the {_told(batch)} disappear from published_scores, which then shows nothing of the "
        "date. Withdraw them?"
    )


def question_of_restoring(batch: BatchRow, before: BatchRow | None) -> str:
    """What a person is asked before a batch is published again."""
    instead = f"in place of the {_told(before)}" if before else "where nothing is published now"
    return f"Of {batch.batch_date}, publish the {_told(batch)} {instead}?"


def _told(batch: BatchRow) -> str:
    return f"{count(batch.scored or 0)} rows of batch {batch.batch_id} (version {batch.model_version})"


def servable(version: int) -> int | None:
    """Sees that a version can be put in service, and gives the one that is.

    Raises:
        ArtifactError: there is no such version, or the checkpoints that a batch loads are gone.
    """
    version_folder(version)
    if not (verified_training_folder(version) / MANIFEST).is_file():
        raise ArtifactError(
            f"{verified_training_folder(version)}: the checkpoints of version {version} are not here, and no batch "
            f"could be scored with it. Bring them back, or choose another of {exports_folder()}: spamscore models"
        )
    return version_in_service()


def refused_model() -> tuple[ExportModel, str]:
    """The export of the model that the settings in force make, and why EvaluateModel refused that.

    Raises:
        ArtifactError: it is exported already, was not refused, or was not evaluated yet.
    """
    from tasks.export_model import ExportModel

    export = ExportModel()
    if export.output().exists():
        raise ArtifactError("the model of the settings in force is exported already: spamscore models")
    refusal = export.refusal()
    if refusal is None:
        raise ArtifactError(
            "no model of the settings in force was refused: there is nothing to overrule. To train and judge it: "
            "luigi --module pipeline ExportModel"
        )
    return export, refusal


def question_of_overruling(refusal: str) -> str:
    """What a person is asked before a refused model is exported."""
    return f"EvaluateModel refused the model: {refusal}. Export it all the same, and score the next batches with it?"


def question_of_pruning(found: Sequence[Pruned], before: datetime.date) -> str:
    """What a person is asked before the rows of batches are deleted."""
    rows, named = sum(one.rows for one in found), ", ".join(str(one.batch_id) for one in found[:_NAMED])
    more = f" and {count(len(found) - _NAMED)} more" if len(found) > _NAMED else ""
    which = f"batch {named}" if len(found) == 1 else f"batches {named}{more}"
    return f"{count(rows)} rows of {which}, of dates before {before}, go for good. Delete them?"


def pruned_line(one: Pruned) -> str:
    """What went of a batch, or would go."""
    parts = f"{count(one.scores)} scores, {count(one.rejected)} rejected messages, {count(one.chunks)} chunks"
    return f"batch {one.batch_id} of {one.batch_date}, {one.state}: {parts}"
