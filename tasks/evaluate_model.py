"""EvaluateModel: the test part scored, measured, judged, and shown in a report."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luigi.util import requires

from models.errors import ArtifactError
from models.settings import DeviceSettings, NetworkSettings, SplitSettings, TextSettings, TrainingSettings
from tasks.clean_text import CleanText
from tasks.exports import verified_version, version_folder, version_in_service
from tasks.settings import ArtifactSettings, ScoringSettings, load
from tasks.stage import FolderStage, artifacts_folder, prepare_tensorflow
from tasks.targets import FolderTarget, write_json
from tasks.train_model import TrainModel, trained_model

if TYPE_CHECKING:
    import pandas as pd

    from models.metrics import Metrics

log = logging.getLogger("spamscore")
METRICS, REPORT, SCORES = "metrics.json", "report.html", "scores.parquet"


@requires(CleanText, TrainModel)
class EvaluateModel(FolderStage):
    """Scores the test part with the trained model and the version in service, and judges the new one."""

    folder = "evaluation"
    sections = (ScoringSettings,)

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the test part, scores and measures it, judges, writes the figures and the report."""
        prepare_tensorflow()
        import pandas as pd

        from models.metrics import evaluate, judge

        messages, training = self.input()
        test = pd.read_parquet(messages.file("test.parquet"))
        threshold = load(ScoringSettings).threshold
        test["probability"] = scored(training.path, test["text"].tolist())
        metrics = evaluate(test["spam"], test["probability"], threshold)
        in_service = metrics_in_service(test, training, threshold)
        verdict = judge(metrics, in_service)
        log.info("evaluated on %d messages: MCC %s, PR AUC %s", metrics.messages, metrics.mcc, metrics.pr_auc)
        if not verdict.approved:
            log.warning("the model is kept out of service: %s", "; ".join(verdict.reasons))
        test[["row_number", "spam", "probability"]].to_parquet(folder / SCORES, index=False)
        write_json(
            folder / METRICS,
            {**metrics.to_dict(), **verdict.to_dict(), "in_service": in_service.to_dict() if in_service else None},
        )
        (folder / REPORT).write_text(report(test, metrics, in_service, messages, training), encoding="utf-8")
        return verdict.to_dict()


def scored(training: Path, texts: list[str]) -> Any:
    """Spam probabilities of messages by the latest checkpoint of a training, float64 [messages]."""
    from models.devices import chosen_devices
    from models.encoder import TextEncoder
    from models.scoring import Scorer

    model = trained_model(training)
    devices, batch_size = chosen_devices(load(DeviceSettings)), load(ScoringSettings).batch_size
    return Scorer(TextEncoder(model.vocabulary), model.network, devices, batch_size).score(texts).probabilities


def metrics_in_service(test: pd.DataFrame, training: FolderTarget, threshold: float) -> Metrics | None:
    """The figures of the version in service on the same messages; None where none is, or it is this one."""
    from models.metrics import evaluate

    version = version_in_service()
    if version is None:
        return None
    trained_in = training_folder(version)
    if trained_in.name == training.path.name:
        return None
    return evaluate(test["spam"], scored(trained_in, test["text"].tolist()), threshold)


def training_folder(version: int) -> Path:
    """Where the checkpoints of an exported version are; they may be gone.

    Raises:
        ArtifactError: there is no such version, it is not as it was exported, or the training is another.
    """
    exported = verified_version(version)
    target = FolderTarget(artifacts_folder() / TrainModel.folder / str(exported["training"]))
    if target.exists():
        trained = target.manifest()
        for key in ("vocabulary_sha256", "weights_sha256"):
            expected, received = exported["trained"][key], trained.get(key)
            if expected != received:
                raise ArtifactError(
                    f"{target.path}: it does not belong to version {version} ({version_folder(version)}): expected "
                    f"{key} {expected}, received {received}. Bring it back from a backup; or put another version in "
                    "service: spamscore serve"
                )
    return target.path


def report(
    test: pd.DataFrame, metrics: Metrics, in_service: Metrics | None, messages: FolderTarget, training: FolderTarget
) -> str:
    """The report as HTML."""
    from models.evaluation_report import render_evaluation
    from models.metrics import judge
    from models.training import read_history

    manifest = messages.manifest()
    return render_evaluation(
        model=load(ArtifactSettings).model_name,
        fingerprint=training.path.name,
        verdict=judge(metrics, in_service),
        metrics=metrics,
        in_service=in_service,
        labels=test["spam"].to_numpy(),
        probabilities=test["probability"].to_numpy(),
        texts=test["text"].tolist(),
        history=[dataclasses.asdict(epoch) for epoch in read_history(training.file("history.csv"))],
        facts={"Data": {**part_sizes(manifest), "refused": manifest["refused"]}, **model_settings()},
    )


def part_sizes(manifest: dict[str, Any]) -> dict[str, object]:
    """How many messages each part has, in words, from the manifest of CleanText."""
    parts = {part: manifest[part] for part in ("training", "validation", "test")}
    return {part: f"{counts['messages']} messages, {counts['spam']} spam" for part, counts in parts.items()}


def model_settings() -> dict[str, dict[str, object]]:
    """The settings that make a model, by section."""
    sections = {"text": TextSettings, "split": SplitSettings, "network": NetworkSettings, "training": TrainingSettings}
    return {f"[{name}]": dataclasses.asdict(load(settings_class)) for name, settings_class in sections.items()}
