"""Evaluation metrics of a model on labelled messages.

scikit-learn computes every metric that it has. Each metric is described once, at its field of `Metrics`; the report and
the model card take its title, its sentence and its format from there. The data of the plots is in `curves`. Plots and
pages are in `models.reports`, the verdict on publishing a model in `models.evaluation.gate`.

scikit-learn is imported inside the functions that use it. Its import takes two seconds, and code that only reads a
stored `Metrics` does not need it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import ArtifactError
from models.statistics.arrays import BoolArray, FloatArray, validate_scores
from models.statistics.curves import CALIBRATION_BINS, calibration_curve, roc_points

# Tolerance for shares of ham: without it, a quotient that should equal the limit can differ in the last bit.
ROUNDING = 1e-12


@dataclass(frozen=True)
class MetricDescription:
    """The description of a metric.

    Attributes:
        title: name of the metric.
        sentence: explanation for a reader who is not a statistician.
        form: format of its values: ``count``, ``share`` or ``score``.
    """

    title: str
    sentence: str
    form: str

    def format(self, value: float | None) -> str:
        """Formats a value as a count, a percentage with two decimals, or a number with four decimals."""
        if value is None:
            return "not defined"
        return {"count": f"{value:,.0f}", "share": f"{value * 100:.2f} %", "score": f"{value:.4f}"}[self.form]


def _count(title: str, sentence: str) -> dict[str, MetricDescription]:
    return {"description": MetricDescription(title, sentence, "count")}


def _share(title: str, sentence: str) -> dict[str, MetricDescription]:
    return {"description": MetricDescription(title, sentence, "share")}


def _score(title: str, sentence: str) -> dict[str, MetricDescription]:
    return {"description": MetricDescription(title, sentence, "score")}


@dataclass(frozen=True)
class Metrics:
    """The metrics of one model on one set of labelled messages. A metric that is not defined is None, never NaN."""

    messages: int = dataclasses.field(metadata=_count("Messages", "Labelled messages that were scored."))
    spam: int = dataclasses.field(metadata=_count("Spam", "How many of them are spam."))
    ham: int = dataclasses.field(metadata=_count("Ham", "How many of them are not."))
    threshold: float = dataclasses.field(
        metadata=_score("Threshold", "A message is flagged when its spam probability is at least this.")
    )
    true_positives: int = dataclasses.field(metadata=_count("Spam caught", "Spam that was flagged (true positives)."))
    false_positives: int = dataclasses.field(
        metadata=_count("Ham flagged wrongly", "Ham that was flagged (false positives).")
    )
    true_negatives: int = dataclasses.field(
        metadata=_count("Ham let through", "Ham that was not flagged (true negatives).")
    )
    false_negatives: int = dataclasses.field(
        metadata=_count("Spam missed", "Spam that was not flagged (false negatives).")
    )
    accuracy: float | None = dataclasses.field(
        default=None, metadata=_share("Accuracy", "Share of all messages put on the right side of the threshold.")
    )
    majority_class_accuracy: float | None = dataclasses.field(
        default=None,
        metadata=_share("Majority class accuracy", "Accuracy of giving every message the more frequent label."),
    )
    precision: float | None = dataclasses.field(
        default=None, metadata=_share("Precision", "Share of the flagged messages that are spam.")
    )
    recall: float | None = dataclasses.field(
        default=None, metadata=_share("Recall", "Share of the spam that was flagged.")
    )
    ham_wrongly_flagged: float | None = dataclasses.field(
        default=None, metadata=_share("False positive rate", "Share of the ham that was flagged wrongly.")
    )
    f1: float | None = dataclasses.field(
        default=None, metadata=_share("F1", "Harmonic mean of precision and recall: high only when both are.")
    )
    mcc: float | None = dataclasses.field(
        default=None,
        metadata=_score(
            "MCC", "Matthews correlation of label and decision: 1 is perfect, 0 no better than chance, -1 always wrong."
        ),
    )
    roc_auc: float | None = dataclasses.field(
        default=None,
        metadata=_score(
            "ROC AUC", "How often a random spam message gets a higher probability than a random ham message."
        ),
    )
    pr_auc: float | None = dataclasses.field(
        default=None,
        metadata=_score(
            "PR AUC", "Average precision over all thresholds; informative when spam is rare. 1 is perfect."
        ),
    )
    recall_at_0_1_percent: float | None = dataclasses.field(
        default=None,
        metadata=_share(
            "Recall at 0.1 % false positives",
            "Share of the spam caught at the lowest threshold that flags at most 0.1 % of the ham.",
        ),
    )
    recall_at_0_5_percent: float | None = dataclasses.field(
        default=None,
        metadata=_share("Recall at 0.5 % false positives", "The same, with at most 0.5 % of the ham flagged."),
    )
    expected_calibration_error: float | None = dataclasses.field(
        default=None,
        metadata=_share(
            "Expected calibration error",
            f"Mean gap between probability and observed share of spam, in {CALIBRATION_BINS} bins. 0 is perfect.",
        ),
    )
    brier_score: float | None = dataclasses.field(
        default=None, metadata=_score("Brier score", "Mean square of probability minus label. 0 is perfect.")
    )
    log_loss: float | None = dataclasses.field(
        default=None,
        metadata=_score("Log loss", "Mean negative log likelihood, in nats; confident errors cost most. 0 is perfect."),
    )

    def to_dict(self) -> dict[str, int | float | None]:
        """Returns the metrics by name, ready for JSON: only numbers and None."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> Metrics:
        """Creates the metrics from the result of `to_dict`.

        Raises:
            ArtifactError: metrics are missing or unknown; names them.
        """
        mismatched = sorted(set(figures) ^ set(metric_descriptions()))
        if mismatched:
            raise ArtifactError(
                f"Expected the metrics of this version of spamscore; missing or unknown: {', '.join(mismatched)}. "
                "Evaluate the model again."
            )
        return cls(**figures)


def metric_descriptions() -> dict[str, MetricDescription]:
    """Returns the description of each field of `Metrics`, by field name, in display order."""
    return {field.name: field.metadata["description"] for field in dataclasses.fields(Metrics)}


def evaluate(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float) -> Metrics:
    """Computes the metrics of a model's probabilities against the labels.

    Precision, recall, F1, ROC AUC, average precision and log loss are as scikit-learn defines them. MCC: Matthews,
    Biochimica et Biophysica Acta 405 (1975), p. 442; it is 0 if every decision is the same. Brier score: Brier, Monthly
    Weather Review 78 (1950), p. 1. Expected calibration error: see `calibration_curve`.

    A metric that is not defined is None. Without messages, that is all except the counts. Precision is None if nothing
    is flagged, recall without spam. MCC, ROC AUC, PR AUC and the two recalls at a false positive rate are None if all
    messages are spam or all are ham.

    Args:
        labels: bool or int [messages]; 1 is spam, 0 is ham.
        probabilities: float [messages], each in [0, 1]; the probability of spam. Converted to float64.
        threshold: in [0, 1]; a message is flagged if its probability is at least this.

    Raises:
        ValueError: the shapes differ, a label is not 0 or 1, or a probability or the threshold is NaN or outside
            [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"Expected a threshold in [0, 1]. Received: {threshold!r}")
    spam, scores = validate_scores(labels, probabilities)
    flagged = scores >= threshold
    metrics = Metrics(
        messages=len(spam),
        spam=int(spam.sum()),
        ham=int((~spam).sum()),
        threshold=float(threshold),
        true_positives=int((flagged & spam).sum()),
        false_positives=int((flagged & ~spam).sum()),
        true_negatives=int((~flagged & ~spam).sum()),
        false_negatives=int((~flagged & spam).sum()),
    )
    if not metrics.messages:
        return metrics
    figures: dict[str, Any] = {
        **_decision_metrics(spam, flagged),
        **_ranking_metrics(spam, scores),
        **_probability_metrics(spam, scores),
    }
    return dataclasses.replace(metrics, **figures)


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def majority_class_accuracy(labels: npt.ArrayLike) -> float | None:
    """Returns the accuracy of giving each message the more frequent label; None without messages.

    Args:
        labels: bool or int [messages]; 1 is spam, 0 is ham.
    """
    spam, _ = validate_scores(labels, np.zeros(np.shape(labels)))
    return max(float(spam.mean()), float((~spam).mean())) if len(spam) else None


def _decision_metrics(spam: BoolArray, flagged: BoolArray) -> dict[str, float | None]:
    from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(spam, flagged, average="binary", zero_division=np.nan)
    ham = ~spam
    return {
        "accuracy": float(accuracy_score(spam, flagged)),
        "majority_class_accuracy": majority_class_accuracy(spam),
        "precision": _none_if_nan(precision),
        "recall": _none_if_nan(recall),
        "f1": _none_if_nan(f1),
        "mcc": float(matthews_corrcoef(spam, flagged)) if spam.any() and ham.any() else None,
        "ham_wrongly_flagged": float(flagged[ham].mean()) if ham.any() else None,
    }


def _ranking_metrics(spam: BoolArray, scores: FloatArray) -> dict[str, float | None]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    if spam.all() or not spam.any():
        return {}
    return {
        "roc_auc": float(roc_auc_score(spam, scores)),
        "pr_auc": float(average_precision_score(spam, scores)),
        "recall_at_0_1_percent": recall_at(spam, scores, 0.001),
        "recall_at_0_5_percent": recall_at(spam, scores, 0.005),
    }


def _probability_metrics(spam: BoolArray, scores: FloatArray) -> dict[str, float | None]:
    from sklearn.metrics import brier_score_loss, log_loss

    return {
        "expected_calibration_error": calibration_curve(spam, scores).expected_error,
        "brier_score": float(brier_score_loss(spam, scores, pos_label=True)),
        "log_loss": float(log_loss(spam, scores, labels=[False, True])),
    }


def recall_at(labels: npt.ArrayLike, probabilities: npt.ArrayLike, false_positive_rate: float) -> float | None:
    """Returns the share of the spam caught at the lowest threshold that flags at most this share of the ham.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        false_positive_rate: largest share of ham that may be flagged, for example 0.001.

    Returns:
        A share in [0, 1]; None if all messages are spam or all are ham.
    """
    points = roc_points(labels, probabilities)
    if points is None:
        return None
    return float(points.recall[points.false_positive_rate <= false_positive_rate + ROUNDING].max())
