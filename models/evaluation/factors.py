"""Measures a model on groups of messages: the factors of a model card, one at a time and combined.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019. The group of a message is derived from its text as
it was sent, so it does not depend on the model. The sender is not known, so there are no groups of people.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.evaluation.gate import Interval
from models.statistics.arrays import BoolArray, validate_scores

SHORT, LONG = 40, 120  # characters; half of the messages of a typical corpus have a length between them
_LINK = re.compile(r"https?:|www\.|\b[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}(?:/|\b)", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"\d(?:[ ().-]?\d){3,}")
_MONEY = re.compile(r"[£$€₹¥]\s?\d|\d\s?[£$€₹¥]|\b(?:usd|eur|gbp|inr|rs)\b\.?\s?\d", re.IGNORECASE)


@dataclass(frozen=True)
class Group:
    """A group of labelled messages, and the model's figures on it.

    Attributes:
        factor: title of the factor that splits the messages.
        name: name of this group.
        spam: number of spam messages.
        ham: number of ham messages.
        spam_caught: number of spam messages that are flagged.
        ham_flagged: number of ham messages that are flagged.
        recall: share of the spam that is flagged, with its interval; None without spam.
        ham_wrongly_flagged: share of the ham that is flagged, with its interval; None without ham.
    """

    factor: str
    name: str
    spam: int
    ham: int
    spam_caught: int
    ham_flagged: int
    recall: Interval | None
    ham_wrongly_flagged: Interval | None


def _group_by_length(text: str) -> str:
    if len(text) <= SHORT:
        return f"1 to {SHORT} characters"
    return f"{SHORT + 1} to {LONG} characters" if len(text) <= LONG else f"over {LONG} characters"


def _group_by_pattern(pattern: re.Pattern[str], feature: str) -> Callable[[str], str]:
    return lambda text: f"with {feature}" if pattern.search(text) else f"without {feature}"


def _group_by_contact(text: str) -> str:
    reachable = _LINK.search(text) or _LONG_NUMBER.search(text)
    return "with a link or long number" if reachable else "with neither link nor long number"


def _group_by_characters(text: str) -> str:
    return "ASCII only" if text.isascii() else "with other characters (accents, emoji, other scripts)"


FACTORS: Mapping[str, Callable[[str], str]] = {
    "Length": _group_by_length,
    "Link": _group_by_pattern(_LINK, "a link"),
    "Long number": _group_by_pattern(_LONG_NUMBER, "a number of four digits or more"),
    "Money": _group_by_pattern(_MONEY, "a sum of money"),
    "Characters": _group_by_characters,
}
COMBINED_FACTORS: Mapping[str, Callable[[str], str]] = {
    "Length, and a way to answer": lambda text: f"{_group_by_length(text)}, {_group_by_contact(text)}",
    "Link and long number": lambda text: f"{FACTORS['Link'](text)}, {FACTORS['Long number'](text)}",
}


def measure_groups(
    texts: Sequence[str],
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    threshold: float,
    confidence: float,
    factors: Mapping[str, Callable[[str], str]],
) -> list[Group]:
    """Measures a model on each group of each factor.

    The intervals are Wilson's, Journal of the American Statistical Association 22 (1927), p. 209. They are valid for
    few messages and for shares of 0 and 1.

    Args:
        texts: [messages], as they were sent.
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        threshold: probability from which a message is flagged.
        confidence: confidence of the intervals, in (0, 1).
        factors: `FACTORS` or `COMBINED_FACTORS`: by title, a function from a text to the name of its group.

    Returns:
        The groups, factor by factor. The groups of a factor contain each message exactly once.

    Raises:
        ValueError: texts, labels and probabilities have different lengths, or a value is out of range.
    """
    spam, scores = validate_scores(labels, probabilities)
    if len(texts) != len(spam):
        raise ValueError(f"Expected as many texts as labels. Received: {len(texts)} texts, {len(spam)} labels")
    flagged = scores >= threshold
    groups = []
    for factor, group_name in factors.items():
        names = np.array([group_name(text) for text in texts], dtype=object)
        groups += [
            _measure_group(factor, name, spam, flagged, names == name, confidence) for name in sorted(set(names))
        ]
    return groups


def _measure_group(
    factor: str, name: str, spam: BoolArray, flagged: BoolArray, members: BoolArray, confidence: float
) -> Group:
    spam_count, ham_count = int((spam & members).sum()), int((~spam & members).sum())
    caught, wrong = int((spam & members & flagged).sum()), int((~spam & members & flagged).sum())
    recall = share_interval(caught, spam_count, confidence)
    false_positives = share_interval(wrong, ham_count, confidence)
    return Group(factor, name, spam_count, ham_count, caught, wrong, recall, false_positives)


def share_interval(count: int, total: int, confidence: float) -> Interval | None:
    """Returns the share `count / total` with Wilson's interval; None if the total is 0."""
    from scipy.stats import binomtest

    if not total:
        return None
    ends = binomtest(count, total).proportion_ci(confidence, method="wilson")
    return Interval(count / total, float(ends.low), float(ends.high))
