"""The stage ExportModel: exports an approved model as the next version, in the layout of TensorFlow Serving."""

from __future__ import annotations

import datetime
import functools
import logging
from pathlib import Path
from typing import Any

import luigi

from models.errors import ArtifactError
from models.settings import GateSettings
from tasks.artifacts.exports import (
    MODEL_CARD,
    VersionTarget,
    find_version,
    publish_version,
    version_folder,
    version_in_service,
)
from tasks.artifacts.folders import FolderTarget, read_json, write_manifest
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import EVALUATION_REPORT, METRICS
from tasks.artifacts.trainings import load_trained_model
from tasks.clean_text import CleanText
from tasks.evaluate_model import EvaluateModel, describe_parts, model_settings
from tasks.scheduler.failures import record_note
from tasks.scheduler.progress import ProgressReport, report_progress
from tasks.scoring.scorer import load_scorer
from tasks.select_night_messages import SelectNightMessages
from tasks.self_training import EvaluateSelfTrained, TrainSelfTrained, is_self_training
from tasks.settings.loading import load
from tasks.settings.storage import ArtifactSettings
from tasks.stage import Stage, prepare_tensorflow
from tasks.train_model import TrainModel

log = logging.getLogger("spamscore")
WEIGHTS = "weights.npz"
_WARMUP_MESSAGES = 100
_MAX_SCORE_DIFFERENCE = 1e-5


class ExportModel(Stage):
    """Exports the trained model as the next version, if EvaluateModel approved it.

    With [corpus] self_training = nights it exports the self-trained model if EvaluateSelfTrained approved it, and the
    one that is trained on labelled messages alone if not.
    """

    sections = (ArtifactSettings,)
    code_version = 2
    uses_tensorflow = True

    def requires(self) -> list[luigi.Task]:
        """Returns the labelled messages, the model and its evaluation; and the evaluation of the self-trained model."""
        stages: list[luigi.Task] = [CleanText(), TrainModel(), EvaluateModel()]
        return [*stages, EvaluateSelfTrained()] if is_self_training() else stages

    def fingerprint_parts(self) -> dict[str, Any]:
        """Uses the training as the only input: the same weights, evaluated at another threshold, are no new version."""
        return {**super().fingerprint_parts(), "inputs": [self._candidate()[0].path.name]}

    def output(self) -> VersionTarget:
        """Returns the version with this fingerprint as a target."""
        return VersionTarget(self.fingerprint())

    def complete(self) -> bool:
        """Returns whether the version exists or the model was refused."""
        return self.output().exists() or self.refusal() is not None

    def refusal(self) -> str | None:
        """Returns why the model was refused; None if it was approved or is not evaluated yet."""
        reasons, student = find_refusal(self._candidate()[1]), self.student_refusal()
        return f"{reasons}; and the self-trained model: {student}" if reasons and student else reasons

    def student_refusal(self) -> str | None:
        """Returns why the self-trained model was refused; None if there is none, or as for `refusal`."""
        if not is_self_training() or SelectNightMessages().finds_nothing():
            return None
        return find_refusal(EvaluateSelfTrained().output())

    def describe_refusal(self) -> str | None:
        """Describes a refused model and what is in service; None if the model was approved or exported nevertheless."""
        refusal, student = self.refusal(), self.student_refusal()
        if refusal is not None and not self.output().exists():
            version = version_in_service()
            return (
                "the model of the settings in force was refused, and "
                f"{f'version {version} stays' if version else 'no version is'} in service: {refusal}. "
                f"{self._candidate()[1].path / EVALUATION_REPORT} shows more; to overrule it: spamscore serve --refused"
            )
        if student is None:
            return None
        exported, version = find_version(self.fingerprint()), version_in_service()
        return (
            "the self-trained model was refused; the model trained on labelled messages alone is "
            f"{f'version {exported}' if exported else 'exported'}, and version {version or exported} is in service: "
            f"{student}. {EvaluateSelfTrained().output().path / EVALUATION_REPORT} shows more"
        )

    def run(self) -> None:
        """Publishes the model as the next version; if it was refused, only says so."""
        refused = self.refusal() is not None
        if not refused and not self.output().exists():
            self.publish()
        if message := self.describe_refusal():
            log.warning("%s", "not exported: EvaluateModel refused the model" if refused else message)
            if refused:
                with report_progress(self, "export") as progress:
                    progress.link(link_to(self._candidate()[1].path / EVALUATION_REPORT))
                    progress.conclude(message)
            record_note(message)

    def publish(self) -> int:
        """Exports the model as the next version, approved or not, and returns the version. It is then in service.

        The version's manifest and model card contain the verdict.
        """
        prepare_tensorflow()
        with report_progress(self, "export", interruptible=True) as progress:
            version = publish_version(self.fingerprint(), functools.partial(self.build_version, progress))
            progress.link(link_to(version_folder(version) / MODEL_CARD))
            message = f"exported version {version} of {load(ArtifactSettings).model_name}"
            progress.conclude(message)
        log.info("%s", message)
        return version

    def build_version(self, progress: ProgressReport, folder: Path, version: int) -> None:
        """Writes the SavedModel, files for other programs, and the model card, once its scores were compared."""
        import pandas as pd

        from models.network.export import write_saved_model, write_warmup
        from models.network.keras_files import write_keras_files
        from models.network.weights import write_weights

        messages, (training, evaluation) = CleanText().output(), self._candidate()
        model = load_trained_model(training.path)
        validation = pd.read_parquet(messages.file("validation.parquet"), columns=["text"])["text"].tolist()
        progress.update(0, 3, f"writing version {version}")
        write_saved_model(model.vocabulary, model.network, folder)
        write_warmup(folder, validation[:_WARMUP_MESSAGES], load(ArtifactSettings).model_name)
        write_weights(model.network, folder / "assets.extra" / WEIGHTS, model.vocabulary.tokens, calibrated=True)
        write_keras_files(model.network, folder / "assets.extra")
        progress.update(2, 3, f"loading version {version} as a server does and comparing {len(validation):,} scores")
        require_same_scores(folder, training.path, validation)
        (folder / MODEL_CARD).write_text(self._card(version, messages, evaluation), encoding="utf-8")
        write_manifest(folder, self._manifest(version, training, evaluation))

    def _candidate(self) -> tuple[FolderTarget, FolderTarget]:
        """Returns training and evaluation of the model to export: the self-trained one, unless it was refused."""
        if is_self_training() and self.student_refusal() is None:
            return TrainSelfTrained().output(), EvaluateSelfTrained().output()
        return TrainModel().output(), EvaluateModel().output()

    def _manifest(self, version: int, training: FolderTarget, evaluation: FolderTarget) -> dict[str, Any]:
        metrics = read_json(evaluation.file(METRICS))
        return {
            "version": version,
            "model": load(ArtifactSettings).model_name,
            "fingerprint": self.fingerprint(),
            "made_of": self.fingerprint_parts(),
            "training": training.path.name,
            "evaluation": evaluation.path.name,
            "trained": training.manifest(),
            "judged": {key: metrics[key] for key in ("approved", "reasons")},
            "threshold": metrics["threshold_found"],
            **({"self_trained_refused": student} if (student := self.student_refusal()) else {}),
            "exported_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }

    def _card(self, version: int, messages: FolderTarget, evaluation: FolderTarget) -> str:
        from models.evaluation.gate import Verdict
        from models.reports.model_card import render_model_card
        from models.statistics.calibration import Threshold
        from models.statistics.metrics import Metrics, metric_descriptions

        content = read_json(evaluation.file(METRICS))
        training = self._candidate()[0]
        in_service, trained = content["in_service"], training.manifest()
        manifest = messages.manifest()
        sizes = describe_parts(manifest)
        return render_model_card(
            model=load(ArtifactSettings).model_name,
            version=version,
            date=datetime.datetime.now(datetime.UTC).date(),
            metrics=Metrics.from_dict({name: content[name] for name in metric_descriptions() if name in content}),
            threshold=Threshold(**content["threshold_found"]),
            verdict=Verdict.from_dict(content),
            in_service=Metrics.from_dict(in_service) if in_service else None,
            compared=content["compared"],
            groups=content["groups"],
            groups_together=content["groups_together"],
            confidence=load(GateSettings).confidence,
            network={key: trained[key] for key in ("parameters", "vocabulary_size", "epochs", "best_epoch")},
            start=trained.get("start"),
            self_training=trained.get("self_training"),
            self_trained_refused=self.student_refusal(),
            fingerprints={
                "messages": messages.path.name,
                "training": training.path.name,
                "evaluation": evaluation.path.name,
            },
            settings=model_settings(),
            training_data={**manifest["corpus"], "training": sizes["training"], "validation": sizes["validation"]},
            evaluation_data={"test": sizes["test"]},
        )


def find_refusal(evaluation: FolderTarget) -> str | None:
    """Returns why an evaluation refused its model; None if it approved it or does not exist yet."""
    if not evaluation.exists() or (metrics := read_json(evaluation.file(METRICS)))["approved"]:
        return None
    return "; ".join(metrics["reasons"])


def require_same_scores(folder: Path, training: Path, texts: list[str]) -> None:
    """Loads the export as a server does and compares its scores with those of the checkpoint.

    Raises:
        ArtifactError: the export does not load, or a score differs by more than 1e-5.
    """
    import numpy as np

    from models.network.export import ServedModel

    with ServedModel(folder) as served:
        exported = served.predict_spam(texts).astype(np.float64)
    difference = float(np.max(np.abs(exported - score_with_checkpoint(training, texts)), initial=0.0))
    if difference > _MAX_SCORE_DIFFERENCE:
        raise ArtifactError(
            f"{folder}: expected the scores of checkpoint {training}, received others, by up to {difference:.2g}; "
            "the export is not published. Run ExportModel again; if the error persists, delete that folder first."
        )


def score_with_checkpoint(training: Path, texts: list[str]) -> Any:
    """Returns the spam probabilities of messages by the latest checkpoint of a training, float64 [messages]."""
    scorer, _ = load_scorer(training)
    return scorer.score(texts).probabilities
