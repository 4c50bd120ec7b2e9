"""The classical baseline models, built with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from protocol import Corpus, FloatArray
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

_WORD = r"(?u)\b\w+\b"
SVM = "character 2-5-gram TF-IDF, linear SVM"
BASELINES: dict[str, Any] = {
    "word 1-2-gram TF-IDF, logistic regression": make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=_WORD, sublinear_tf=True),
        LogisticRegression(C=100, max_iter=2000),
    ),
    "multinomial naive Bayes": make_pipeline(CountVectorizer(token_pattern=_WORD), MultinomialNB(alpha=0.1)),
    SVM: make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, lowercase=False),
        CalibratedClassifierCV(LinearSVC(C=1.0), method="sigmoid", cv=5, ensemble=False),
    ),
}


class Baseline:
    """A fitted baseline model."""

    def __init__(self, name: str, training: Corpus) -> None:
        self._model = clone(BASELINES[name]).fit(np.array(training.texts, dtype=object), training.labels)

    def probabilities(self, texts: list[str]) -> FloatArray:
        """Returns the spam probabilities, float64 [texts]."""
        return np.asarray(self._model.predict_proba(np.array(texts, dtype=object))[:, 1])
