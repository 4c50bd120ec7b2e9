"""EvaluateModel: the test part scored, measured, judged, and shown in a report."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luigi.util import requires

from models.errors import ArtifactError, FormatError
from models.settings import GateSettings, NetworkSettings, SplitSettings, TextSettings, TrainingSettings
from tasks.artifacts.exports import verified_version, version_folder, version_in_service
from tasks.artifacts.folders import FolderTarget, write_json
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import artifacts_folder
from tasks.clean_text import CleanText
from tasks.scheduler.progress import reporting
from tasks.scoring.flips import flips_on_latest_batch
from tasks.scoring.scorer import load_scorer, threshold_of
from tasks.settings.loading import load
from tasks.settings.scoring import ScoringSettings
from tasks.settings.storage import ArtifactSettings
from tasks.stage import FolderStage, prepare_tensorflow
from tasks.train_model import TrainModel

if TYPE_CHECKING:
    import pandas as pd

    from models.evaluation.factors import Group
    from models.evaluation.gate import Compared, Flips, Verdict
    from models.inference.scorer import Scorer
    from models.statistics.arrays import FloatArray
    from models.statistics.calibration import Threshold
    from models.statistics.metrics import Metrics

log = logging.getLogger("spamscore")
METRICS, REPORT, SCORES = "metrics.json", "report.html", "scores.parquet"


@requires(CleanText, TrainModel)
class EvaluateModel(FolderStage):
    """Scores the test part with the trained model and the version in service, and judges the new one.

    The version in service and the latest batch are what they are when it runs; they are written down, and no part of
    the fingerprint.
    """

    folder = "evaluation"
    sections = (ScoringSettings, GateSettings)
    code_version = 3

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the test part, scores and measures it, judges, writes the figures and the report."""
        prepare_tensorflow()
        import pandas as pd

        messages, training = self.input()
        test = pd.read_parquet(messages.file("test.parquet"))
        with reporting(self, "evaluation") as progress:
            progress.link(link_to(self.output().path / REPORT))
            found = evaluation(test, training.path, progress.update)
            self._say(found, len(test))
            progress.update(3, 4, "writing the report")
            self._write(folder, test, found)
            progress.conclude(verdict_said(found))
        return {"approved": found.verdict.approved, "reasons": found.verdict.reasons}

    def _say(self, found: Evaluation, messages: int) -> None:
        log.info("evaluated on %d messages: %s", messages, figures_said(found.new.metrics))
        threshold = found.new.threshold
        log.log(logging.INFO if threshold.enough else logging.WARNING, "%s", threshold.description)
        why = "; ".join(found.verdict.reasons)
        if found.verdict.approved:
            log.info("the model is approved: %s", why)
        else:
            log.warning("the model is kept out of service: %s", why)

    def _write(self, folder: Path, test: pd.DataFrame, found: Evaluation) -> None:
        messages, training = self.input()
        scores = test[["row_number", "spam"]].assign(probability=found.new.probabilities)
        if found.in_service:
            scores["probability_in_service"] = found.in_service.probabilities
        scores.to_parquet(folder / SCORES, index=False)
        groups = {"groups": groups_of(test, found.new), "groups_together": groups_of(test, found.new, together=True)}
        kinds = {name: [dataclasses.asdict(one) for one in of] for name, of in groups.items()}
        write_json(folder / METRICS, {**found.to_dict(), **kinds})
        page = report(test, found, messages, training, [*groups["groups"], *groups["groups_together"]])
        (folder / REPORT).write_text(page, encoding="utf-8")


@dataclass(frozen=True)
class Measured:
    """A model and what it makes of the test part.

    Attributes:
        version: its number; None for one that is not exported.
        scorer: texts to probabilities.
        threshold: from which on it flags.
        probabilities: float64 [test messages].
        metrics: at that threshold.
    """

    version: int | None
    scorer: Scorer
    threshold: Threshold
    probabilities: FloatArray
    metrics: Metrics


@dataclass(frozen=True)
class Evaluation:
    """All that is found out about a model before it may be exported.

    Attributes:
        new: the trained model.
        in_service: the version in service; None where there is none, or it is this one.
        compared: the gate's figures, with their intervals.
        test_flips: how verdicts on the test part change; None where nothing is in service.
        flips: how those on the latest batch do, or why that is not known; None where nothing is in service. Of a
            version whose checkpoints are gone, or that an older spamscore made, only that is said, and nothing is
            compared.
        verdict: what the gate says.
    """

    new: Measured
    in_service: Measured | None
    compared: list[Compared]
    test_flips: Flips | None
    flips: Flips | str | None
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """What `metrics.json` holds: the figures by name, and beside them how they were judged; no message's text."""
        flips = self.flips
        return {
            **self.new.metrics.to_dict(),
            **self.verdict.to_dict(),
            "threshold_found": dataclasses.asdict(self.new.threshold),
            "compared": [dataclasses.asdict(one) for one in self.compared],
            "flips": flips if flips is None or isinstance(flips, str) else flips.to_dict(),
            "flips_on_test_part": self.test_flips.to_dict() if self.test_flips else None,
            "in_service": self.in_service.metrics.to_dict() if self.in_service else None,
            "in_service_version": self.in_service.version if self.in_service else None,
        }


def evaluation(test: pd.DataFrame, training: Path, watch: Callable[[float, float, str], None]) -> Evaluation:
    """Measures a trained model and the version in service on the same messages, and judges the former.

    Args:
        test: the test part: row_number, text, spam.
        training: folder of the trained model.
        watch: told what is being done, the report yet to be written foreseen.
    """
    from models.evaluation.gate import FlipCount, compare, judge

    gate, share = load(GateSettings), load(ScoringSettings).ham_blocked_share
    watch(0, 4, f"scoring {len(test):,} test messages with the new model")
    new = measured(test, training)
    version = version_to_compare_with(training)
    gone = None if version is None or training_folder(version).is_dir() else checkpoints_gone(version)
    old = None
    if version is not None and not gone:
        watch(1, 4, f"scoring {len(test):,} test messages with version {version}, which is in service")
        try:
            old = measured(test, training_folder(version), version)
        except FormatError as error:
            gone = f"version {version}, which is in service, cannot be read by this spamscore ({error})"
    if old is None:
        compared = compare(test["spam"], new.probabilities, None, share, gate)
        return Evaluation(new, None, compared, None, gone, judge(new.metrics, (), gone, gate))
    watch(1.5, 4, f"comparing the two, {gate.resamples:,} resamples")
    compared = compare(test["spam"], new.probabilities, old.probabilities, share, gate)
    before, now = (old.probabilities, old.threshold.value), (new.probabilities, new.threshold.value)
    count = FlipCount(gate.flip_examples)
    count.add(test["row_number"].tolist(), test["text"].tolist(), before, now, test["spam"])
    flips = flips_on_latest_batch(
        (old.scorer, old.threshold.value),
        (new.scorer, new.threshold.value),
        gate.flip_examples,
        lambda done, rows, status: watch(2 + done / max(rows, 1), 4, status),
    )
    verdict = judge(new.metrics, compared, flips, gate)
    return Evaluation(new, old, compared, count.flips("the test part"), flips, verdict)


def verdict_said(found: Evaluation) -> str:
    """The verdict and why, in a line."""
    return f"{'approved' if found.verdict.approved else 'refused'}: {'; '.join(found.verdict.reasons)}"


def figures_said(metrics: Metrics) -> str:
    """The two figures that say most, in a line."""
    from models.statistics.metrics import metric_descriptions

    titles = metric_descriptions()
    return ", ".join(
        f"{titles[name].title} {titles[name].format(getattr(metrics, name))}" for name in ("mcc", "pr_auc")
    )


def groups_of(test: pd.DataFrame, model: Measured, together: bool = False) -> list[Group]:
    """How a model does on each kind of test message, by one factor or by several together."""
    from models.evaluation.factors import FACTORS, TOGETHER, measure_groups

    factors = TOGETHER if together else FACTORS
    texts, confidence = test["text"].tolist(), load(GateSettings).confidence
    return measure_groups(texts, test["spam"], model.probabilities, model.threshold.value, confidence, factors)


def measured(test: pd.DataFrame, training: Path, version: int | None = None) -> Measured:
    """A trained model, measured on the test part at its own threshold."""
    from models.statistics.metrics import evaluate

    scorer, _ = load_scorer(training)
    threshold = threshold_of(training)
    probabilities = scorer.score(test["text"].tolist()).probabilities
    return Measured(version, scorer, threshold, probabilities, evaluate(test["spam"], probabilities, threshold.value))


def scored(training: Path, texts: list[str]) -> Any:
    """Spam probabilities of messages by the latest checkpoint of a training, float64 [messages]."""
    scorer, _ = load_scorer(training)
    return scorer.score(texts).probabilities


def version_to_compare_with(training: Path) -> int | None:
    """The version in service; None where there is none, or it is the model of this training."""
    version = version_in_service()
    return None if version is None or training_folder(version).name == training.name else version


def checkpoints_gone(version: int) -> str:
    """Why nothing is compared with a version that has no checkpoints left. No batch could be scored with it either, so
    any model that is better than none is better than that.
    """
    return f"the checkpoints of version {version}, which is in service, are not in {training_folder(version)} any more"


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
    test: pd.DataFrame, found: Evaluation, messages: FolderTarget, training: FolderTarget, groups: list[Group]
) -> str:
    """The report as HTML."""
    from models.evaluation.explanation import explain
    from models.reports.evaluation_report import render_evaluation
    from models.training.history import read_history

    manifest = messages.manifest()
    return render_evaluation(
        model=load(ArtifactSettings).model_name,
        fingerprint=training.path.name,
        verdict=found.verdict,
        metrics=found.new.metrics,
        threshold=found.new.threshold,
        in_service=found.in_service.metrics if found.in_service else None,
        in_service_version=found.in_service.version if found.in_service else None,
        compared=found.compared,
        groups=groups,
        confidence=load(GateSettings).confidence,
        flips=[one for one in (found.flips, found.test_flips) if one is not None],
        labels=test["spam"].to_numpy(),
        probabilities=found.new.probabilities,
        texts=test["text"].tolist(),
        explain=functools.partial(explain, found.new.scorer, threshold=found.new.threshold.value),
        history=[dataclasses.asdict(epoch) for epoch in read_history(training.file("history.csv"))],
        facts={
            "Data": {**part_sizes(manifest), "refused": manifest["refused"]},
            **model_settings(),
            "[gate]": dataclasses.asdict(load(GateSettings)),
        },
    )


def part_sizes(manifest: dict[str, Any]) -> dict[str, object]:
    """How many messages each part has, in words, from the manifest of CleanText."""
    parts = {part: manifest[part] for part in ("training", "validation", "test")}
    return {part: f"{counts['messages']} messages, {counts['spam']} spam" for part, counts in parts.items()}


def model_settings() -> dict[str, dict[str, object]]:
    """The settings that make a model, by section."""
    sections = {"text": TextSettings, "split": SplitSettings, "network": NetworkSettings, "training": TrainingSettings}
    return {f"[{name}]": dataclasses.asdict(load(settings_class)) for name, settings_class in sections.items()}
