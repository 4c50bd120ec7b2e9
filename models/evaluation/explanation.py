"""Explains a score by the words of the message.

Each message is scored again without each of its words (occlusion, after Zeiler and Fergus 2014, "Visualizing and
Understanding Convolutional Networks"), so the explanation is the model's own answer.

The changes do not add up to the score: if two words carry the same information, removing either one alone changes the
score little. Therefore the module also finds the few words that decide the verdict together (Martens and Provost 2014,
"Explaining Data-Driven Document Classifications", MIS Quarterly 38, algorithm SEDC).
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from models.errors import ArtifactError
from models.inference.scorer import Scorer
from models.statistics.arrays import FloatArray
from models.statistics.calibration import to_probabilities

# Maximum parts of a message. A message is scored once per part, and once as it is.
MAX_PARTS = 200
# Smaller changes of the logit are not reported: a change of 0.1 turns a probability of 0.50 into 0.52.
MIN_CHANGE = 0.1
# Maximum parts that may decide a verdict together. A person cannot follow a longer explanation.
MAX_DECISIVE = 5
# Scripts that are written without spaces. There each character is a word, as in `models.text.cleaning`.
_NO_SPACES = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\s{_NO_SPACES}]+")


@dataclass(frozen=True)
class Part:
    """One word of a message, or a run of words if the message has more than `MAX_PARTS` words.

    Attributes:
        text: the characters of the part, as in the message.
        start: index of its first character in the message, from 0.
        end: index after its last character.
        change: logit of the message minus the logit without the part. Above 0 the part speaks for spam, below 0 for
            ham.
        probability_without: spam probability of the message without the part.
    """

    text: str
    start: int
    end: int
    change: float
    probability_without: float


@dataclass(frozen=True)
class Explanation:
    """A message, its spam probability and its parts.

    Attributes:
        message: the text.
        probability: spam probability of the text.
        parts: the parts in the order of the message; together they contain every word.
        decisive: parts without which the verdict would be the opposite; each of them is needed. Empty if no threshold
            was given, if more than `MAX_DECISIVE` parts are needed, or if all parts are.
    """

    message: str
    probability: float
    parts: tuple[Part, ...]
    decisive: tuple[Part, ...] = ()

    def strongest(self, limit: int) -> list[Part]:
        """Returns up to `limit` parts with the largest changes, largest first; leaves out those below `MIN_CHANGE`."""
        moved = [part for part in self.parts if abs(part.change) >= MIN_CHANGE]
        return sorted(moved, key=lambda part: (-abs(part.change), part.start))[:limit]


def explain(
    scorer: Scorer, messages: Sequence[str], max_parts: int = MAX_PARTS, threshold: float | None = None
) -> list[Explanation]:
    """Scores each message without each of its words.

    Args:
        scorer: texts to logits.
        messages: texts to explain, any number. All variants are scored together.
        max_parts: maximum number of parts of a message; at least 1.
        threshold: probability from which a message is flagged. If given, the decisive parts are found too.

    Raises:
        ArtifactError: a score is not a finite number.
    """
    spans = [find_word_spans(message, max_parts) for message in messages]
    variants = [
        text
        for message, message_spans in zip(messages, spans, strict=True)
        for text in (message, *(message[:start] + message[end:] for start, end in message_spans))
    ]
    logits = _compute_logits(scorer, variants)
    scores = iter(zip(logits.tolist(), to_probabilities(logits).tolist(), strict=True))
    explanations = [
        _build_explanation(message, message_spans, scores)
        for message, message_spans in zip(messages, spans, strict=True)
    ]
    if threshold is None:
        return explanations
    return [
        dataclasses.replace(explanation, decisive=_find_decisive_parts(scorer, explanation, threshold))
        for explanation in explanations
    ]


def _compute_logits(scorer: Scorer, texts: Sequence[str]) -> FloatArray:
    logits = scorer.logits(scorer.encode(texts)).astype(np.float64)
    if not np.isfinite(logits).all():
        raise ArtifactError(
            "expected finite scores, received NaN or infinity: the model's weights are damaged, or it cannot score the "
            "message. Go back to the previous version (spamscore serve) or train again."
        )
    return logits


def _build_explanation(
    message: str, spans: Sequence[tuple[int, int]], scores: Iterable[tuple[float, float]]
) -> Explanation:
    """Takes the scores of one message from the front: first of the whole text, then without each part."""
    message_scores = iter(scores)
    logit, probability = next(message_scores)
    parts = []
    for start, end in spans:
        logit_without, probability_without = next(message_scores)
        parts.append(Part(message[start:end], start, end, logit - logit_without, probability_without))
    return Explanation(message, probability, tuple(parts))


def _find_decisive_parts(scorer: Scorer, explanation: Explanation, threshold: float) -> tuple[Part, ...]:
    """Removes parts until the verdict flips, then restores those that were not needed.

    Each step removes the part that moves the score furthest towards the opposite verdict.
    """
    flagged = explanation.probability >= threshold

    def try_removals(removals: Sequence[Sequence[Part]]) -> tuple[int, bool]:
        """Returns the index of the removal that moves the score furthest, and whether it flips the verdict."""
        texts = [_remove_parts(explanation.message, parts) for parts in removals]
        probabilities = to_probabilities(_compute_logits(scorer, texts))
        index = int(probabilities.argmin() if flagged else probabilities.argmax())
        return index, bool(probabilities[index] >= threshold) != flagged

    removed: list[Part] = []
    remaining = list(explanation.parts)
    flipped = False
    while not flipped and len(remaining) > 1 and len(removed) < MAX_DECISIVE:
        index, flipped = try_removals([[*removed, part] for part in remaining])
        removed.append(remaining.pop(index))
    if not flipped:
        return ()
    for part in list(removed[:-1]):
        fewer = [other for other in removed if other is not part]
        if try_removals([fewer])[1]:
            removed = fewer
    return tuple(sorted(removed, key=lambda part: part.start))


def _remove_parts(message: str, parts: Sequence[Part]) -> str:
    for part in sorted(parts, key=lambda part: -part.start):
        message = message[: part.start] + message[part.end :]
    return message


def find_word_spans(message: str, max_spans: int = MAX_PARTS) -> list[tuple[int, int]]:
    """Returns the start and end index of each word; with more than `max_spans` words, of runs of similar length."""
    words = [match.span() for match in _WORD.finditer(message)]
    if len(words) <= max_spans:
        return words
    bounds = np.linspace(0, len(words), max_spans + 1).astype(int).tolist()
    return [(words[first][0], words[end - 1][1]) for first, end in itertools.pairwise(bounds)]
