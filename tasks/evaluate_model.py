"""The stage EvaluateModel: scores the test part, compares the model with the version in service, writes a report."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luigi.util import requires

from models.errors import FormatError
from models.settings import GateSettings, NetworkSettings, SplitSettings, TextSettings, TrainingSettings
from tasks.artifacts.exports import version_in_service
from tasks.artifacts.folders import FolderTarget, write_json
from tasks.artifacts.links import link_to
from tasks.artifacts.locations import EVALUATION_REPORT, EVALUATIONS, METRICS
from tasks.artifacts.trainings import verified_training_folder
from tasks.clean_text import CleanText
from tasks.scheduler.progress import report_progress
from tasks.scoring.flips import count_flips_on_latest_batch
from tasks.scoring.scorer import load_scorer, load_threshold
from tasks.settings.loading import load
from tasks.settings.scoring import ScoringSettings
from tasks.settings.storage import ArtifactSettings
from tasks.stage import FolderStage, prepare_tensorflow
from tasks.train_model import TrainModel

if TYPE_CHECKING:
    import pandas as pd

    from models.evaluation.factors import Group
    from models.evaluation.gate import Comparison, Flips, Verdict
    from models.inference.scorer import Scorer
    from models.statistics.arrays import FloatArray
    from models.statistics.calibration import Threshold
    from models.statistics.metrics import Metrics

log = logging.getLogger("spamscore")
SCORES = "scores.parquet"


@requires(CleanText, TrainModel)
class EvaluateModel(FolderStage):
    """Scores the test part with the trained model and the version in service, and approves or refuses the new model.

    The version in service and the latest batch are those at the time of the run. They are recorded in the result and
    are no part of the fingerprint.
    """

    folder = EVALUATIONS
    sections = (ScoringSettings, GateSettings)
    code_version = 3
    uses_tensorflow = True

    def build(self, folder: Path) -> dict[str, Any]:
        """Reads the test part, evaluates the model, and writes the metrics and the report."""
        prepare_tensorflow()
        test, training = self.read_test_part(), self.input()[1]
        with report_progress(self, "evaluation") as progress:
            progress.link(link_to(self.output().path / EVALUATION_REPORT))
            evaluation = evaluate_model(test, training.path, progress.update, self.teacher())
            self._log_result(evaluation, len(test))
            progress.update(3, 4, "writing the report")
            self._write(folder, test, evaluation)
            progress.conclude(describe_verdict(evaluation))
        return {"approved": evaluation.verdict.approved, "reasons": evaluation.verdict.reasons}

    def read_test_part(self) -> pd.DataFrame:
        """Reads the messages that the model is judged on: row_number int64, text, spam."""
        import pandas as pd

        return pd.read_parquet(self.input()[0].file("test.parquet"), columns=["row_number", "text", "spam"])

    def teacher(self) -> Path | None:
        """Returns the training of the teacher of a self-trained model; None here."""
        return None

    def _log_result(self, evaluation: Evaluation, messages: int) -> None:
        log.info("evaluated on %d messages: %s", messages, describe_metrics(evaluation.new.metrics))
        threshold = evaluation.new.threshold
        log.log(logging.INFO if threshold.enough else logging.WARNING, "%s", threshold.description)
        reasons = "; ".join(evaluation.verdict.reasons)
        if evaluation.verdict.approved:
            log.info("the model is approved: %s", reasons)
        else:
            log.warning("the model is refused and kept out of service: %s", reasons)

    def _write(self, folder: Path, test: pd.DataFrame, evaluation: Evaluation) -> None:
        messages, training = self.input()[:2]
        scores = test[["row_number", "spam"]].assign(probability=evaluation.new.probabilities)
        if evaluation.in_service:
            scores["probability_in_service"] = evaluation.in_service.probabilities
        scores.to_parquet(folder / SCORES, index=False)
        groups = measure_test_groups(test, evaluation.new)
        combined_groups = measure_test_groups(test, evaluation.new, together=True)
        content = {
            **evaluation.to_dict(),
            "groups": [dataclasses.asdict(group) for group in groups],
            "groups_together": [dataclasses.asdict(group) for group in combined_groups],
        }
        write_json(folder / METRICS, content)
        page = render_report(test, evaluation, messages, training, [*groups, *combined_groups])
        (folder / EVALUATION_REPORT).write_text(page, encoding="utf-8")


@dataclass(frozen=True)
class EvaluatedModel:
    """A model and its results on the test part.

    Attributes:
        version: the exported version; None for a model that is not exported.
        scorer: converts texts to probabilities.
        threshold: probability from which the model flags a message.
        probabilities: float64 [test messages].
        metrics: metrics at that threshold.
    """

    version: int | None
    scorer: Scorer
    threshold: Threshold
    probabilities: FloatArray
    metrics: Metrics


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a model before it may be exported.

    Attributes:
        new: the trained model.
        in_service: the version in service; None if there is none or it is this model.
        compared: the gate's metrics, with their intervals.
        test_flips: verdicts that change on the test part; None if no version is in service.
        flips: verdicts that change on the latest batch, or why they are unknown; None if no version is in service. If
            the version's checkpoints are gone, or an older spamscore wrote it, this is the reason and nothing is
            compared.
        verdict: the gate's verdict.
        compared_with_teacher: for a self-trained model, `compared` with its teacher; empty if that is in service.
    """

    new: EvaluatedModel
    in_service: EvaluatedModel | None
    compared: list[Comparison]
    test_flips: Flips | None
    flips: Flips | str | None
    verdict: Verdict
    compared_with_teacher: list[Comparison] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `metrics.json`: the metrics by name, and the verdict. It contains no message text."""
        flips = self.flips
        teacher = [dataclasses.asdict(comparison) for comparison in self.compared_with_teacher]
        return {
            **self.new.metrics.to_dict(),
            **self.verdict.to_dict(),
            "threshold_found": dataclasses.asdict(self.new.threshold),
            "compared": [dataclasses.asdict(comparison) for comparison in self.compared],
            **({"compared_with_teacher": teacher} if teacher else {}),
            "flips": flips if flips is None or isinstance(flips, str) else flips.to_dict(),
            "flips_on_test_part": self.test_flips.to_dict() if self.test_flips else None,
            "in_service": self.in_service.metrics.to_dict() if self.in_service else None,
            "in_service_version": self.in_service.version if self.in_service else None,
        }


def evaluate_model(
    test: pd.DataFrame, training: Path, on_progress: Callable[[float, float, str], None], teacher: Path | None = None
) -> Evaluation:
    """Evaluates a trained model and the version in service on the same messages, and judges the trained model.

    Args:
        test: the test part, with the columns row_number, text and spam.
        training: folder of the trained model.
        on_progress: called with the work done, the total, and a status line. The total includes writing the report.
        teacher: folder of the teacher of a self-trained model, with which it is compared too.
    """
    from models.evaluation.gate import FlipCounter, compare, judge

    gate, share = load(GateSettings), load(ScoringSettings).ham_blocked_share
    on_progress(0, 4, f"scoring {len(test):,} test messages with the new model")
    new = evaluate_on_test_part(test, training)
    version = find_version_to_compare(training)
    missing = None
    if version is not None and not verified_training_folder(version).is_dir():
        missing = describe_missing_checkpoints(version)
    old = None
    if version is not None and not missing:
        on_progress(1, 4, f"scoring {len(test):,} test messages with version {version}, which is in service")
        try:
            old = evaluate_on_test_part(test, verified_training_folder(version), version)
        except FormatError as error:
            missing = f"version {version}, which is in service, cannot be read by this spamscore ({error})"
    taught = compare_with_teacher(test, new, teacher, version if old else None)
    if old is None:
        compared = compare(test["spam"], new.probabilities, None, share, gate)
        verdict = judge(new.metrics, (), missing, gate, taught)
        return Evaluation(new, None, compared, None, missing, verdict, taught)
    on_progress(1.5, 4, f"comparing the two models, {gate.resamples:,} resamples")
    compared = compare(test["spam"], new.probabilities, old.probabilities, share, gate)
    before, now = (old.probabilities, old.threshold.value), (new.probabilities, new.threshold.value)
    count = FlipCounter(gate.flip_examples)
    count.add(test["row_number"].tolist(), test["text"].tolist(), before, now, test["spam"])
    flips = count_flips_on_latest_batch(
        (old.scorer, old.threshold.value),
        (new.scorer, new.threshold.value),
        gate.flip_examples,
        lambda done, rows, status: on_progress(2 + done / max(rows, 1), 4, status),
    )
    verdict = judge(new.metrics, compared, flips, gate, taught)
    return Evaluation(new, old, compared, count.flips("the test part"), flips, verdict, taught)


def compare_with_teacher(
    test: pd.DataFrame, student: EvaluatedModel, teacher: Path | None, compared_version: int | None
) -> list[Comparison]:
    """Compares a self-trained model with its teacher on the test part.

    Returns:
        The gate's metrics; none without a teacher, or if it is the version that the model is compared with anyway.
    """
    from models.evaluation.gate import compare

    is_in_service = compared_version is not None and verified_training_folder(compared_version) == teacher
    if teacher is None or is_in_service:
        return []
    probabilities = evaluate_on_test_part(test, teacher).probabilities
    share = load(ScoringSettings).ham_blocked_share
    return compare(test["spam"], student.probabilities, probabilities, share, load(GateSettings))


def describe_verdict(evaluation: Evaluation) -> str:
    """Formats the verdict and its reasons as one line."""
    return f"{'approved' if evaluation.verdict.approved else 'refused'}: {'; '.join(evaluation.verdict.reasons)}"


def describe_metrics(metrics: Metrics) -> str:
    """Formats MCC and PR AUC as one line."""
    from models.statistics.metrics import metric_descriptions

    titles = metric_descriptions()
    return ", ".join(
        f"{titles[name].title} {titles[name].format(getattr(metrics, name))}" for name in ("mcc", "pr_auc")
    )


def measure_test_groups(test: pd.DataFrame, model: EvaluatedModel, together: bool = False) -> list[Group]:
    """Measures a model on each group of test messages: by single factors, or by combined ones if `together`."""
    from models.evaluation.factors import COMBINED_FACTORS, FACTORS, measure_groups

    factors = COMBINED_FACTORS if together else FACTORS
    texts, confidence = test["text"].tolist(), load(GateSettings).confidence
    return measure_groups(texts, test["spam"], model.probabilities, model.threshold.value, confidence, factors)


def evaluate_on_test_part(test: pd.DataFrame, training: Path, version: int | None = None) -> EvaluatedModel:
    """Scores the test part with the model of a training, and measures it at the model's own threshold."""
    from models.statistics.metrics import evaluate

    scorer, _ = load_scorer(training)
    threshold = load_threshold(training)
    probabilities = scorer.score(test["text"].tolist()).probabilities
    metrics = evaluate(test["spam"], probabilities, threshold.value)
    return EvaluatedModel(version, scorer, threshold, probabilities, metrics)


def find_version_to_compare(training: Path) -> int | None:
    """Returns the version in service; None if there is none or it is the model of this training."""
    version = version_in_service()
    return None if version is None or verified_training_folder(version).name == training.name else version


def describe_missing_checkpoints(version: int) -> str:
    """Describes why nothing is compared with a version without checkpoints.

    No batch could be scored with that version either, so any model that is better than none is better than it.
    """
    folder = verified_training_folder(version)
    return f"the checkpoints of version {version}, which is in service, are not in {folder} any more"


def render_report(
    test: pd.DataFrame, evaluation: Evaluation, messages: FolderTarget, training: FolderTarget, groups: list[Group]
) -> str:
    """Renders the report of an evaluation as HTML."""
    from models.evaluation.explanation import explain
    from models.reports.evaluation_report import render_evaluation
    from models.training.history import read_history

    manifest = messages.manifest()
    return render_evaluation(
        model=load(ArtifactSettings).model_name,
        fingerprint=training.path.name,
        verdict=evaluation.verdict,
        metrics=evaluation.new.metrics,
        threshold=evaluation.new.threshold,
        in_service=evaluation.in_service.metrics if evaluation.in_service else None,
        in_service_version=evaluation.in_service.version if evaluation.in_service else None,
        compared=evaluation.compared,
        compared_with_teacher=evaluation.compared_with_teacher,
        groups=groups,
        confidence=load(GateSettings).confidence,
        flips=[flips for flips in (evaluation.flips, evaluation.test_flips) if flips is not None],
        labels=test["spam"].to_numpy(),
        probabilities=evaluation.new.probabilities,
        texts=test["text"].tolist(),
        explain=functools.partial(explain, evaluation.new.scorer, threshold=evaluation.new.threshold.value),
        history=[dataclasses.asdict(epoch) for epoch in read_history(training.file("history.csv"))],
        facts={
            "Data": {
                **describe_parts(manifest),
                "judged on": f"{len(test)} messages, {test['spam'].sum()} spam",
                "refused": manifest["refused"],
            },
            **model_settings(),
            "[gate]": dataclasses.asdict(load(GateSettings)),
        },
    )


def describe_parts(manifest: dict[str, Any]) -> dict[str, object]:
    """Formats the number of messages of each part, from the manifest of CleanText."""
    parts = {part: manifest[part] for part in ("training", "validation", "test")}
    return {part: f"{counts['messages']} messages, {counts['spam']} spam" for part, counts in parts.items()}


def model_settings() -> dict[str, dict[str, object]]:
    """Returns the settings that shape a model, by section."""
    sections = {"text": TextSettings, "split": SplitSettings, "network": NetworkSettings, "training": TrainingSettings}
    return {f"[{name}]": dataclasses.asdict(load(settings_class)) for name, settings_class in sections.items()}
