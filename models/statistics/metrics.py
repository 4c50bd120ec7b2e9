"""How good a model is on labelled messages: the figures, and the data behind the plots.

Every figure that scikit-learn has is scikit-learn's; each is described once, at its field of `Metrics`, and the report
and the model card take its title, its sentence and its form from there. Drawing is in `plots`, pages are in
`evaluation_report` and `model_card`, the verdict on publishing a model is `gate`'s. scikit-learn is imported where it
computes: it takes two seconds, and whoever reads a stored `Metrics` or judges one needs none of it.
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

# Shares of ham are quotients: without it a share that should equal the limit can miss it by the last bit.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Meaning:
    """What one figure says: its title, a sentence for a reader who is no statistician, and how it is written."""

    title: str
    sentence: str
    form: str

    def shown(self, value: float | None) -> str:
        """The value as text: a count, a percentage with two decimals, or four decimals."""
        if value is None:
            return "not defined"
        return {"count": f"{value:,.0f}", "share": f"{value * 100:.2f} %", "score": f"{value:.4f}"}[self.form]


def _count(title: str, sentence: str) -> dict[str, Meaning]:
    return {"meaning": Meaning(title, sentence, "count")}


def _share(title: str, sentence: str) -> dict[str, Meaning]:
    return {"meaning": Meaning(title, sentence, "share")}


def _score(title: str, sentence: str) -> dict[str, Meaning]:
    return {"meaning": Meaning(title, sentence, "score")}


@dataclass(frozen=True)
class Metrics:
    """The figures of one model on one set of labelled messages. None where a figure is not defined, never NaN."""

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
        metadata=_share("Accuracy of no model", "What giving every message the more frequent label would reach."),
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
        metadata=_score("ROC AUC", "How often a random spam message gets a higher probability than a random ham one."),
    )
    pr_auc: float | None = dataclasses.field(
        default=None,
        metadata=_score("PR AUC", "Average precision over all thresholds; telling where spam is rare. 1 is perfect."),
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
        metadata=_share("Recall at 0.5 % false positives", "The same, when at most 0.5 % of the ham may be flagged."),
    )
    expected_calibration_error: float | None = dataclasses.field(
        default=None,
        metadata=_share(
            "Expected calibration error",
            f"How far the probabilities are from what came true, on average, in {CALIBRATION_BINS} bins. 0 is perfect.",
        ),
    )
    brier_score: float | None = dataclasses.field(
        default=None, metadata=_score("Brier score", "Mean square of probability minus label. 0 is perfect.")
    )
    log_loss: float | None = dataclasses.field(
        default=None,
        metadata=_score(
            "Log loss", "Mean surprise, in nats, at the true label; sure and wrong costs most. 0 is perfect."
        ),
    )

    def to_dict(self) -> dict[str, int | float | None]:
        """The figures by name, fit for JSON: numbers and None alone."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> Metrics:
        """The figures that `to_dict` gave.

        Raises:
            ArtifactError: naming the figures that are missing or unknown.
        """
        wrong = sorted(set(figures) ^ set(meanings()))
        if wrong:
            raise ArtifactError(
                f"Expected the metrics of this version of spamscore; missing or unknown: {', '.join(wrong)}. "
                "Evaluate the model again."
            )
        return cls(**figures)


def meanings() -> dict[str, Meaning]:
    """What each figure of `Metrics` says, by field name, in the order to show them in."""
    return {field.name: field.metadata["meaning"] for field in dataclasses.fields(Metrics)}


def evaluate(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float) -> Metrics:
    """Measures a model's probabilities against the labels.

    Precision, recall, F1, ROC AUC, average precision and log loss as scikit-learn defines them. MCC after Matthews,
    Biochimica et Biophysica Acta 405 (1975), p. 442; 0 when every decision is the same. Brier score after Brier,
    Monthly Weather Review 78 (1950), p. 1. Expected calibration error: see `calibration_curve`.

    A figure that has no value is None: all but the counts without messages; precision when nothing is flagged; recall
    without spam; MCC, ROC AUC, PR AUC and the two recalls at a false positive rate when all messages are of one kind.

    Args:
        labels: bool or int [messages]; 1 is spam, 0 is ham.
        probabilities: float [messages], each in [0, 1]; the probability of spam. Computed with as float64.
        threshold: in [0, 1]; a message is flagged when its probability is at least this.

    Raises:
        ValueError: another shape, a label but 0 and 1, a probability or threshold that is NaN or outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"Expected a threshold in [0, 1]. Received: {threshold!r}")
    spam, scores = validate_scores(labels, probabilities)
    flagged = scores >= threshold
    counted = Metrics(
        messages=len(spam),
        spam=int(spam.sum()),
        ham=int((~spam).sum()),
        threshold=float(threshold),
        true_positives=int((flagged & spam).sum()),
        false_positives=int((flagged & ~spam).sum()),
        true_negatives=int((~flagged & ~spam).sum()),
        false_negatives=int((~flagged & spam).sum()),
    )
    if not counted.messages:
        return counted
    figures: dict[str, Any] = {**_of_decisions(spam, flagged), **_of_ranking(spam, scores), **_of_trust(spam, scores)}
    return dataclasses.replace(counted, **figures)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def majority_class_accuracy(labels: npt.ArrayLike) -> float | None:
    """The accuracy of giving each message the more frequent label; None without messages.

    Args:
        labels: bool or int [messages]; 1 is spam, 0 is ham.
    """
    spam, _ = validate_scores(labels, np.zeros(np.shape(labels)))
    return max(float(spam.mean()), float((~spam).mean())) if len(spam) else None


def _of_decisions(spam: BoolArray, flagged: BoolArray) -> dict[str, float | None]:
    from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(spam, flagged, average="binary", zero_division=np.nan)
    ham = ~spam
    return {
        "accuracy": float(accuracy_score(spam, flagged)),
        "majority_class_accuracy": majority_class_accuracy(spam),
        "precision": _defined(precision),
        "recall": _defined(recall),
        "f1": _defined(f1),
        "mcc": float(matthews_corrcoef(spam, flagged)) if spam.any() and ham.any() else None,
        "ham_wrongly_flagged": float(flagged[ham].mean()) if ham.any() else None,
    }


def _of_ranking(spam: BoolArray, scores: FloatArray) -> dict[str, float | None]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    if spam.all() or not spam.any():
        return {}
    return {
        "roc_auc": float(roc_auc_score(spam, scores)),
        "pr_auc": float(average_precision_score(spam, scores)),
        "recall_at_0_1_percent": recall_at(spam, scores, 0.001),
        "recall_at_0_5_percent": recall_at(spam, scores, 0.005),
    }


def _of_trust(spam: BoolArray, scores: FloatArray) -> dict[str, float | None]:
    from sklearn.metrics import brier_score_loss, log_loss

    return {
        "expected_calibration_error": calibration_curve(spam, scores).expected_error,
        "brier_score": float(brier_score_loss(spam, scores, pos_label=True)),
        "log_loss": float(log_loss(spam, scores, labels=[False, True])),
    }


def recall_at(labels: npt.ArrayLike, probabilities: npt.ArrayLike, false_positive_rate: float) -> float | None:
    """Share of the spam caught at the lowest threshold that flags at most this share of the ham.

    Args:
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        false_positive_rate: largest share of ham that may be flagged, for example 0.001.

    Returns:
        A share in [0, 1]; None when all messages are of one kind.
    """
    points = roc_points(labels, probabilities)
    if points is None:
        return None
    return float(points.recall[points.false_positive_rate <= false_positive_rate + ROUNDING].max())
