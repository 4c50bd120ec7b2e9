"""The evaluation protocol of the comparison: splits, attacks and metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, f1_score, matthews_corrcoef, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from models.statistics.metrics import evaluate, recall_at

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
FOLDS, FOLD_SEED = 5, 42
# Almeida et al. 2011: in file order, the first 1,674 of 5,574 train, the others test; duplicates are kept.
_ALMEIDA_TRAINING, _ALMEIDA_MESSAGES = 1674, 5574
_LOOKALIKE = str.maketrans("aeopcxyiAEOPCTHKMB", "аеорсхуіАЕОРСТНКМВ")
_LEET = str.maketrans("aeiost", "431057")


def _insert_zero_width(text: str) -> str:
    return "".join(sign + ("\u200b" if sign.isalpha() and index % 2 else "") for index, sign in enumerate(text))


def _space_out(text: str) -> str:
    return " ".join(" ".join(word) if word.isalpha() and len(word) > 3 else word for word in text.split())


ATTACKS: dict[str, Callable[[str], str]] = {
    "leet": lambda text: text.translate(_LEET),
    "homoglyph": lambda text: text.translate(_LOOKALIKE),
    "zero width": _insert_zero_width,
    "spaced": _space_out,
}


@dataclass(frozen=True)
class Corpus:
    """Labelled messages in file order.

    Attributes:
        texts: the messages.
        labels: int64 [messages]; 1 is spam.
    """

    texts: list[str]
    labels: IntArray

    def select(self, rows: IntArray) -> Corpus:
        """Returns the messages at the given indices."""
        return Corpus([self.texts[row] for row in rows], self.labels[rows])

    def without_duplicates(self) -> Corpus:
        """Returns the first of the messages that differ only in white space."""
        first = {" ".join(text.split()): row for row, text in reversed(list(enumerate(self.texts)))}
        return self.select(np.array(sorted(first.values())))


def read_corpus(path: Path) -> Corpus:
    """Reads the SMS Spam Collection: each line is a label, a tab and a message."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = [line.split("\t", 1) for line in lines]
    return Corpus([text for _, text in rows], np.array([label == "spam" for label, _ in rows], dtype=np.int64))


def split_almeida(corpus: Corpus) -> tuple[IntArray, IntArray]:
    """Returns the training and test indices of Almeida's split; for a corpus of another size, the same shares."""
    training = round(len(corpus.labels) * _ALMEIDA_TRAINING / _ALMEIDA_MESSAGES)
    return np.arange(training), np.arange(training, len(corpus.labels))


def split_folds(corpus: Corpus) -> Iterator[tuple[IntArray, IntArray]]:
    """Yields the training and test indices of the five folds."""
    yield from StratifiedKFold(FOLDS, shuffle=True, random_state=FOLD_SEED).split(corpus.texts, corpus.labels)


# Kinds of spam, defined by words that their messages share. Each is left out of training to test generalization.
KINDS = {
    "prizes": r"\b(?:prize|prizes|won|winner|claim|award|awarded|guaranteed)\b",
    "tones and downloads": r"\b(?:ringtone|ringtones|tone|tones|polyphonic|poly|polys|logo|logos|download|wallpaper)\b",
    "dating and chat lines": r"\b(?:dating|date|chat|sexy|flirt|lonely|girl|girls|xxx|fantasies|horny)\b",
    "telephone contracts": r"\b(?:nokia|motorola|camera|upgrade|contract|mins|minutes|network|networks|handset)\b",
}


def split_without_kind(corpus: Corpus, kind: str) -> tuple[IntArray, IntArray]:
    """Returns training and test indices for a kind of spam that is left out of training.

    The training rows have no spam of the kind. The test rows have all spam of the kind. The ham is split as in the
    first fold.
    """
    is_kind = np.array([bool(re.search(KINDS[kind], text.lower())) for text in corpus.texts]) & (corpus.labels == 1)
    fold_training, fold_test = next(split_folds(corpus))
    ham = corpus.labels == 0
    training = np.concatenate([fold_training[ham[fold_training]], np.flatnonzero(~ham & ~is_kind)])
    return np.sort(training), np.concatenate([fold_test[ham[fold_test]], np.flatnonzero(is_kind)])


@dataclass(frozen=True)
class ComparisonMetrics:
    """The metrics that are compared, in [0, 1] or for MCC in [-1, 1].

    `blocked` (ham) and `missed` (spam) are counts at a threshold of one half.
    """

    accuracy: float
    f1: float
    mcc: float
    roc_auc: float
    pr_auc: float
    recall_at_01: float
    recall_at_05: float
    calibration_error: float
    blocked: float
    missed: float


def compute_metrics(labels: IntArray, probabilities: FloatArray) -> ComparisonMetrics:
    """Computes the metrics of pooled probabilities at a threshold of one half."""
    flagged = probabilities >= 0.5
    return ComparisonMetrics(
        accuracy=float((flagged == labels).mean()),
        f1=float(f1_score(labels, flagged)),
        mcc=float(matthews_corrcoef(labels, flagged)),
        roc_auc=float(roc_auc_score(labels, probabilities)),
        pr_auc=float(average_precision_score(labels, probabilities)),
        recall_at_01=float(recall_at(labels, probabilities, 0.001) or 0.0),
        recall_at_05=float(recall_at(labels, probabilities, 0.005) or 0.0),
        calibration_error=float(evaluate(labels, probabilities, 0.5).expected_calibration_error or 0.0),
        blocked=float((flagged & (labels == 0)).sum()),
        missed=float((~flagged & (labels == 1)).sum()),
    )
