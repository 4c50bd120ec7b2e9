"""ExportModel: an approved model as the next version, in the layout that TensorFlow Serving watches."""

from __future__ import annotations

import datetime
import functools
import logging
from pathlib import Path
from typing import Any

from luigi.util import requires

from models.errors import ArtifactError
from models.settings import GateSettings
from tasks.artifacts.exports import MODEL_CARD, VersionTarget, publish_version, version_folder, version_in_service
from tasks.artifacts.folders import FolderTarget, read_json, write_manifest
from tasks.artifacts.links import link_to
from tasks.artifacts.trainings import trained_model
from tasks.clean_text import CleanText
from tasks.evaluate_model import METRICS, REPORT, EvaluateModel, model_settings, part_sizes
from tasks.scheduler.failures import remark
from tasks.scheduler.progress import ProgressReport, reporting
from tasks.settings.loading import load
from tasks.settings.storage import ArtifactSettings
from tasks.stage import Stage, prepare_tensorflow
from tasks.train_model import TrainModel

log = logging.getLogger("spamscore")
WEIGHTS = "weights.npz"
_WARMUP_MESSAGES = 100
_SAME_SCORE = 1e-5


@requires(CleanText, TrainModel, EvaluateModel)
class ExportModel(Stage):
    """Exports the trained model as the next version, if EvaluateModel approved it."""

    sections = (ArtifactSettings,)
    code_version = 2

    def made_of(self) -> dict[str, Any]:
        """The training alone: the same weights judged at another threshold are no new version."""
        return {**super().made_of(), "inputs": [self._training().path.name]}

    def output(self) -> VersionTarget:
        """The version that carries this fingerprint."""
        return VersionTarget(self.fingerprint())

    def complete(self) -> bool:
        """Whether the version is there, or the model was judged and refused."""
        return self.output().exists() or self.refusal() is not None

    def refusal(self) -> str | None:
        """Why EvaluateModel refused the model; None if it did not, or has not looked yet."""
        evaluation = EvaluateModel().output()
        if not evaluation.exists() or (found := read_json(evaluation.file(METRICS)))["approved"]:
            return None
        return "; ".join(found["reasons"])

    def kept_out(self) -> str | None:
        """What is to be said of a model that was refused, and was not exported by a person all the same."""
        refusal = self.refusal()
        if refusal is None or self.output().exists():
            return None
        version = version_in_service()
        return (
            "the model of the settings in force was refused, and "
            f"{f'version {version} stays' if version else 'no version is'} in service: {refusal}. "
            f"{EvaluateModel().output().path / REPORT} shows more; to overrule it: spamscore serve --refused"
        )

    def run(self) -> None:
        """Writes the SavedModel with its card and weights, loads it as a server does, publishes it; unless refused."""
        if said := self.kept_out():
            log.warning("not exported, for EvaluateModel refused the model")
            with reporting(self, "export") as report:
                report.link(link_to(EvaluateModel().output().path / REPORT))
                report.conclude(said)
            remark(said)
            return
        self.publish()

    def publish(self) -> int:
        """Exports the model as the next version, whatever was judged, and returns that; it is in service from then on.

        The version's manifest and model card say what was judged.
        """
        prepare_tensorflow()
        with reporting(self, "export", ends_anywhere=True) as report:
            version = publish_version(self.fingerprint(), functools.partial(self.build_version, report))
            report.link(link_to(version_folder(version) / MODEL_CARD))
            said = f"exported version {version} of {load(ArtifactSettings).model_name}"
            report.conclude(said)
        log.info("%s", said)
        return version

    def build_version(self, report: ProgressReport, folder: Path, version: int) -> None:
        """Fills the folder of a version, and says how far it is."""
        import pandas as pd

        from models.network.export import write_saved_model, write_warmup
        from models.network.weights import write_weights

        messages, training, evaluation = self.input()
        model = trained_model(training.path)
        validation = pd.read_parquet(messages.file("validation.parquet"), columns=["text"])["text"].tolist()
        report.update(0, 3, f"writing version {version}")
        write_saved_model(model.vocabulary, model.network, folder)
        write_warmup(folder, validation[:_WARMUP_MESSAGES], load(ArtifactSettings).model_name)
        write_weights(model.network, folder / "assets.extra" / WEIGHTS)
        report.update(2, 3, f"loading version {version} as a server does, to compare {len(validation):,} scores")
        require_same_scores(folder, training.path, validation)
        (folder / MODEL_CARD).write_text(self._card(version, messages, evaluation), encoding="utf-8")
        write_manifest(folder, self._manifest(version, training, evaluation))

    def _training(self) -> FolderTarget:
        return TrainModel().output()

    def _manifest(self, version: int, training: FolderTarget, evaluation: FolderTarget) -> dict[str, Any]:
        found = read_json(evaluation.file(METRICS))
        return {
            "version": version,
            "model": load(ArtifactSettings).model_name,
            "fingerprint": self.fingerprint(),
            "made_of": self.made_of(),
            "training": training.path.name,
            "evaluation": evaluation.path.name,
            "trained": training.manifest(),
            "judged": {key: found[key] for key in ("approved", "reasons")},
            "threshold": found["threshold_found"],
            "exported_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }

    def _card(self, version: int, messages: FolderTarget, evaluation: FolderTarget) -> str:
        from models.evaluation.gate import Verdict
        from models.reports.model_card import render_model_card
        from models.statistics.calibration import Threshold
        from models.statistics.metrics import Metrics, metric_descriptions

        found = read_json(evaluation.file(METRICS))
        in_service, trained = found["in_service"], self._training().manifest()
        manifest = messages.manifest()
        sizes = part_sizes(manifest)
        return render_model_card(
            model=load(ArtifactSettings).model_name,
            version=version,
            date=datetime.datetime.now(datetime.UTC).date(),
            metrics=Metrics.from_dict({name: found[name] for name in metric_descriptions() if name in found}),
            threshold=Threshold(**found["threshold_found"]),
            verdict=Verdict.from_dict(found),
            in_service=Metrics.from_dict(in_service) if in_service else None,
            compared=found["compared"],
            groups=found["groups"],
            groups_together=found["groups_together"],
            confidence=load(GateSettings).confidence,
            network={key: trained[key] for key in ("parameters", "vocabulary_size", "epochs", "best_epoch")},
            fingerprints={
                "messages": messages.path.name,
                "training": self._training().path.name,
                "evaluation": evaluation.path.name,
            },
            settings=model_settings(),
            training_data={**manifest["corpus"], "training": sizes["training"], "validation": sizes["validation"]},
            evaluation_data={"test": sizes["test"]},
        )


def require_same_scores(folder: Path, training: Path, texts: list[str]) -> None:
    """Loads the export as a server does and holds its scores to those of the checkpoint.

    Raises:
        ArtifactError: it does not load, or a score differs by more than 1e-5.
    """
    import numpy as np

    from models.network.export import ServedModel
    from tasks.evaluate_model import scored

    with ServedModel(folder) as served:
        exported = served.predict_spam(texts).astype(np.float64)
    difference = float(np.max(np.abs(exported - scored(training, texts)), initial=0.0))
    if difference > _SAME_SCORE:
        raise ArtifactError(
            f"{folder}: expected the scores of checkpoint {training}, received others, by up to {difference:.2g}; "
            "the export is not published. Run ExportModel again; if it says the same, delete that folder first."
        )
