"""How good a model is at different kinds of message: the factors of a model card, one at a time and together, after
Mitchell et al., "Model Cards for Model Reporting", FAT* 2019.

What kind a message is of is read off its own text, as it was sent, so that it does not depend on the model. Who sent it
is not known, so there are no groups of people.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.evaluation.gate import Interval
from models.statistics.arrays import BoolArray, validate_scores

SHORT, LONG = 40, 120  # characters; half of a corpus of text messages lies between
_LINK = re.compile(r"https?:|www\.|\b[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}(?:/|\b)", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"\d(?:[ ().-]?\d){3,}")
_MONEY = re.compile(r"[£$€₹¥]\s?\d|\d\s?[£$€₹¥]|\b(?:usd|eur|gbp|inr|rs)\b\.?\s?\d", re.IGNORECASE)


@dataclass(frozen=True)
class Group:
    """The labelled messages of one kind, and how a model does on them.

    Attributes:
        factor: by what the messages are told apart, for a person.
        name: which of them these are.
        spam: how many are spam.
        ham: how many are ham.
        spam_caught: how many of the spam are flagged.
        ham_flagged: how many of the ham are flagged.
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


def _length(text: str) -> str:
    if len(text) <= SHORT:
        return f"1 to {SHORT} characters"
    return f"{SHORT + 1} to {LONG} characters" if len(text) <= LONG else f"over {LONG} characters"


def _with(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    return lambda text: f"with {what}" if pattern.search(text) else f"without {what}"


def _reply(text: str) -> str:
    reachable = _LINK.search(text) or _LONG_NUMBER.search(text)
    return "with a link or long number" if reachable else "with neither link nor long number"


def _writing(text: str) -> str:
    return "ASCII alone" if text.isascii() else "with other characters, as accents, emoji, other scripts"


FACTORS: Mapping[str, Callable[[str], str]] = {
    "Length": _length,
    "Link": _with(_LINK, "a link"),
    "Long number": _with(_LONG_NUMBER, "a number of four digits or more"),
    "Money": _with(_MONEY, "a sum of money"),
    "Characters": _writing,
}
TOGETHER: Mapping[str, Callable[[str], str]] = {
    "Length, and a way to answer": lambda text: f"{_length(text)}, {_reply(text)}",
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
    """Measures a model on each kind of message that there is, by each factor.

    The intervals are Wilson's, Journal of the American Statistical Association 22 (1927), p. 209: they hold for few
    messages and for shares of 0 and 1 too.

    Args:
        texts: [messages], as they were sent.
        labels: bool or int [messages]; 1 is spam.
        probabilities: float [messages] in [0, 1].
        threshold: from which on a message is flagged.
        confidence: of the intervals.
        factors: `FACTORS` or `TOGETHER`: a title, and what tells the kind of a message.

    Returns:
        The groups, factor by factor; those of a factor hold each message once.

    Raises:
        ValueError: texts, labels and probabilities of different length, or out of range.
    """
    spam, scores = validate_scores(labels, probabilities)
    if len(texts) != len(spam):
        raise ValueError(f"Expected as many texts as labels. Received: {len(texts)} texts, {len(spam)} labels")
    flagged = scores >= threshold
    groups = []
    for factor, kind_of in factors.items():
        kinds = np.array([kind_of(text) for text in texts], dtype=object)
        groups += [_group(factor, name, spam, flagged, kinds == name, confidence) for name in sorted(set(kinds))]
    return groups


def _group(factor: str, name: str, spam: BoolArray, flagged: BoolArray, members: BoolArray, confidence: float) -> Group:
    of_spam, of_ham = int((spam & members).sum()), int((~spam & members).sum())
    caught, wrong = int((spam & members & flagged).sum()), int((~spam & members & flagged).sum())
    recall, false_positives = share_interval(caught, of_spam, confidence), share_interval(wrong, of_ham, confidence)
    return Group(factor, name, of_spam, of_ham, caught, wrong, recall, false_positives)


def share_interval(count: int, of: int, confidence: float) -> Interval | None:
    """The share that a count is of all, with Wilson's interval; None of nothing."""
    from scipy.stats import binomtest

    if not of:
        return None
    ends = binomtest(count, of).proportion_ci(confidence, method="wilson")
    return Interval(count / of, float(ends.low), float(ends.high))
