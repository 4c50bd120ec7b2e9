"""The protocols that models are compared under, the attacks on them, and the figures."""

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
# Almeida et al. 2011: file order, so many of 5,574 train, the others test, duplicates kept.
_ALMEIDA_TRAINING, _ALMEIDA_MESSAGES = 1674, 5574
_LOOKALIKE = str.maketrans("aeopcxyiAEOPCTHKMB", "аеорсхуіАЕОРСТНКМВ")
_LEET = str.maketrans("aeiost", "431057")


def _zero_width(text: str) -> str:
    return "".join(sign + ("\u200b" if sign.isalpha() and at % 2 else "") for at, sign in enumerate(text))


def _spaced(text: str) -> str:
    return " ".join(" ".join(word) if word.isalpha() and len(word) > 3 else word for word in text.split())


ATTACKS: dict[str, Callable[[str], str]] = {
    "leet": lambda text: text.translate(_LEET),
    "homoglyph": lambda text: text.translate(_LOOKALIKE),
    "zero width": _zero_width,
    "spaced": _spaced,
}


@dataclass(frozen=True)
class Corpus:
    """Labelled messages in the order of their file: texts, and labels int64 [messages], 1 for spam."""

    texts: list[str]
    labels: IntArray

    def at(self, rows: IntArray) -> Corpus:
        """Some of them."""
        return Corpus([self.texts[row] for row in rows], self.labels[rows])

    def distinct(self) -> Corpus:
        """The first of all that are the same but for white space."""
        first = {" ".join(text.split()): row for row, text in reversed(list(enumerate(self.texts)))}
        return self.at(np.array(sorted(first.values())))


def read_corpus(path: Path) -> Corpus:
    """Reads the SMS Spam Collection: a label, a tab, a message a line."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = [line.split("\t", 1) for line in lines]
    return Corpus([text for _, text in rows], np.array([label == "spam" for label, _ in rows], dtype=np.int64))


def almeida(corpus: Corpus) -> tuple[IntArray, IntArray]:
    """Rows to train and to test with; of a corpus of another size, the same share."""
    training = round(len(corpus.labels) * _ALMEIDA_TRAINING / _ALMEIDA_MESSAGES)
    return np.arange(training), np.arange(training, len(corpus.labels))


def folds(corpus: Corpus) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows to train and to test with, five times."""
    yield from StratifiedKFold(FOLDS, shuffle=True, random_state=FOLD_SEED).split(corpus.texts, corpus.labels)


# Kinds of spam, by words that their messages share: what a model says of a kind that it was never shown.
KINDS = {
    "prizes": r"\b(?:prize|prizes|won|winner|claim|award|awarded|guaranteed)\b",
    "tones and downloads": r"\b(?:ringtone|ringtones|tone|tones|polyphonic|poly|polys|logo|logos|download|wallpaper)\b",
    "dating and chat lines": r"\b(?:dating|date|chat|sexy|flirt|lonely|girl|girls|xxx|fantasies|horny)\b",
    "telephone contracts": r"\b(?:nokia|motorola|camera|upgrade|contract|mins|minutes|network|networks|handset)\b",
}


def without_kind(corpus: Corpus, kind: str) -> tuple[IntArray, IntArray]:
    """Rows to train with, no spam of the kind among them, and to test with: all spam of the kind, and ham. The ham is
    dealt as in the first of the folds.
    """
    of_kind = np.array([bool(re.search(KINDS[kind], text.lower())) for text in corpus.texts]) & (corpus.labels == 1)
    rest, test = next(folds(corpus))
    ham = corpus.labels == 0
    training = np.concatenate([rest[ham[rest]], np.flatnonzero(~ham & ~of_kind)])
    return np.sort(training), np.concatenate([test[ham[test]], np.flatnonzero(of_kind)])


@dataclass(frozen=True)
class Figures:
    """What is compared. Shares, in [0, 1]; `blocked` and `missed` are counts at the threshold of one half."""

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


def figures(labels: IntArray, probabilities: FloatArray) -> Figures:
    """Figures of pooled probabilities at the threshold of one half."""
    flagged = probabilities >= 0.5
    return Figures(
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
