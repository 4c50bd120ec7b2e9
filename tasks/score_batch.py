"""ScoreBatch: one date's messages scored with the version in service, and published in the database."""

from __future__ import annotations

import datetime
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import luigi

from models.errors import ArtifactError
from tasks.evaluate_model import training_folder
from tasks.export_model import ExportModel
from tasks.exports import MODEL_CARD, exports_folder, version_folder, version_in_service
from tasks.extract_messages import ExtractMessages
from tasks.failures import remark
from tasks.instructions import PAUSE, RESUME
from tasks.links import link_to
from tasks.parameters import VersionParameter, YesterdayParameter
from tasks.progress import ProgressReport, reporting
from tasks.scorer import load_scorer, threshold_of
from tasks.settings import AUTO, ArtifactSettings, DatabaseSettings, RunSettings, ScoringSettings, load
from tasks.stage import Stage, artifacts_folder, prepare_tensorflow
from tasks.targets import FolderTarget, write_json

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from models.scoring import Scorer
    from tasks.batches import BatchRow
    from tasks.ledger import BatchPlan

log = logging.getLogger("spamscore")


class ScoreBatch(Stage):
    """Scores the messages of one date and publishes their spam probabilities."""

    date = YesterdayParameter(description="date of the messages, as 2026-01-31; yesterday if not given")
    model_version = VersionParameter(
        default=None, description="version of the model to score with; the one in service if not given"
    )
    sections = (ScoringSettings,)
    code_version = 2
    accepts_messages = True

    def requires(self) -> dict[str, luigi.Task]:
        """The date's messages and, unless a version was asked for, an export by the settings in force."""
        messages = ExtractMessages(date=self.date)
        return {"messages": messages} if self.model_version else {"messages": messages, "model": ExportModel()}

    def made_of(self) -> dict[str, Any]:
        """Adds the version that was asked for; a share of ham says nothing beside a threshold that is a number."""
        made_of = super().made_of()
        if load(ScoringSettings).threshold != AUTO:
            del made_of["settings"]["scoring"]["ham_blocked_share"]
        return {**made_of, "model_version": self.model_version}

    def output(self) -> BatchTarget:
        """The published batch of the date."""
        return BatchTarget(self.date, self.fingerprint(), exactly=self.model_version is not None)

    def run(self) -> None:
        """Loads the version's latest checkpoint, scores the snapshot chunk by chunk, publishes the batch."""
        from tasks.batch_lock import scoring_alone
        from tasks.database import open_database

        engine = open_database(load(DatabaseSettings))
        wait = load(RunSettings).when_running == "wait"
        with reporting(self, "scoring") as report, scoring_alone(engine, self.date, wait, report.update):
            if not self.complete():  # another run may have done it while this one waited
                report.hears(PAUSE, RESUME)
                self._score(engine, report)

    def _score(self, engine: Engine, report: ProgressReport) -> None:
        began = time.monotonic()
        version = self.model_version or self._version_in_service()
        training = training_folder(version)
        prepare_tensorflow()
        from tasks.scoring import score_snapshot  # imports TensorFlow, which has been started as the settings say

        scorer, checkpoint = load_scorer(training)
        report.link(link_to(version_folder(version) / MODEL_CARD))
        snapshot = self.input()["messages"]
        plan = self._plan(version, f"{training.name}/{checkpoint}", threshold_of(training).value, snapshot, scorer)
        published = score_snapshot(engine, plan, snapshot.path, scorer, report.update, began, write_receipt)
        report.link(link_to(receipt_file(published)))
        log.info(
            "batch %d of %s: %d read, %d scored, %d rejected, %d flagged from %g on, by version %d",
            published.batch_id, self.date, published.messages_read, published.scored, published.rejected,
            published.flagged, plan.threshold, version,
        )  # fmt: skip
        if self.model_version is None and (said := ExportModel().kept_out()):
            log.warning("%s", said)
            report.conclude(said)
            remark(said)

    def _version_in_service(self) -> int:
        version = version_in_service()
        if version is None:
            refusal = ExportModel().refusal()
            raise ArtifactError(
                f"{exports_folder()}: no version is in service, for the model that was trained was refused: {refusal}. "
                "Give more labelled messages ([corpus]), change [network] and [training], or overrule it: "
                "spamscore serve --refused"
            )
        return version

    def _plan(
        self, version: int, checkpoint: str, threshold: float, snapshot: FolderTarget, scorer: Scorer
    ) -> BatchPlan:
        from tasks.ledger import BatchPlan

        return BatchPlan(
            batch_date=self.date,
            recipe=self.fingerprint(),
            model_name=load(ArtifactSettings).model_name,
            model_version=version,
            checkpoint=checkpoint,
            snapshot=snapshot.path.name,
            threshold=threshold,
            devices=",".join(device.removeprefix("/device:").lower() for device in scorer.devices),
            chunk_size=load(ScoringSettings).chunk_size,
        )


def write_receipt(batch: BatchRow) -> None:
    """Leaves what is published as JSON among the artifacts, for those who have no database at hand."""
    import dataclasses

    path = receipt_file(batch)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        key: str(value) if isinstance(value, datetime.date) else value
        for key, value in dataclasses.asdict(batch).items()
    }
    write_json(path, content)


def receipt_file(batch: BatchRow) -> Path:
    """Where the receipt of a batch is."""
    return artifacts_folder() / "receipts" / batch.batch_date.isoformat() / f"batch-{batch.batch_id}.json"


class BatchTarget(luigi.Target):
    """A batch that exists once a date's scores by this recipe are published.

    A batch that a person went back to counts too: the recipe's own is then superseded, its work was done. Not so if a
    model version was asked for by number: then `exactly` that batch must be the published one.
    """

    def __init__(self, date: datetime.date, recipe: str, exactly: bool) -> None:
        self.date = date
        self.recipe = recipe
        self.exactly = exactly

    def __str__(self) -> str:
        return f"published batch of {self.date}, recipe {self.recipe}"

    def exists(self) -> bool:
        """Asks the database, which is neither made nor migrated by that."""
        from tasks.batches import has_batch, published_batch
        from tasks.database import connect

        engine = connect(load(DatabaseSettings))
        published = published_batch(engine, self.date)
        if published is None or published.recipe == self.recipe:
            return published is not None
        return not self.exactly and has_batch(engine, self.date, self.recipe)
