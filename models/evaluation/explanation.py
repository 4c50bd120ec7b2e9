"""Which words moved the score of a message: it is scored again without each of them (occlusion, after Zeiler and
Fergus 2014, "Visualizing and Understanding Convolutional Networks"), so what is said is the model's own answer.

The changes do not add up to the score: of two words that say the same, each alone moves it little. So it is also asked
which few words together decide the verdict (Martens and Provost 2014, "Explaining Data-Driven Document
Classifications", MIS Quarterly 38, algorithm SEDC).
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

# Times a message is scored at most, beside once as it is.
MOST_PARTS = 200
# A change of the logit below this says nothing: one of 0.1 turns a probability of 0.50 into 0.52.
SLIGHT = 0.1
# Parts that may together decide a verdict; more are no reason that a person can follow.
MOST_DECISIVE = 5
# Scripts that are written without spaces: there each character is a word, as `models.text.cleaning` has it.
_NO_SPACES = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\s{_NO_SPACES}]+")


@dataclass(frozen=True)
class Part:
    """A word of a message or, of a message with more than `MOST_PARTS` words, some that follow one another.

    Attributes:
        text: as it stands in the message.
        start: its place in the message, in characters from 0.
        end: where it ends.
        change: the logit of the message minus that without the part: above 0 it speaks for spam, below for ham.
        probability_without: spam probability of the message without the part.
    """

    text: str
    start: int
    end: int
    change: float
    probability_without: float


@dataclass(frozen=True)
class Explanation:
    """A message, its spam probability, and its parts in their order; together they hold every word.

    `decisive`: parts without which the verdict would be another, each of them needed; none where it was not asked, or
    where it takes more than `MOST_DECISIVE`, or all there are.
    """

    message: str
    probability: float
    parts: tuple[Part, ...]
    decisive: tuple[Part, ...] = ()

    def strongest(self, most: int) -> list[Part]:
        """The parts that moved the score most, the strongest first; those below `SLIGHT` are left out."""
        moved = [part for part in self.parts if abs(part.change) >= SLIGHT]
        return sorted(moved, key=lambda part: (-abs(part.change), part.start))[:most]


def explain(
    scorer: Scorer, messages: Sequence[str], most_parts: int = MOST_PARTS, threshold: float | None = None
) -> list[Explanation]:
    """Scores each message without each of its words.

    Args:
        scorer: texts to logits.
        messages: what to explain, in any number; all variants are scored together.
        most_parts: parts that a message is divided into at most; at least 1.
        threshold: probability from which a message is flagged; given, it is asked which parts decide that.

    Raises:
        ArtifactError: a score is no number.
    """
    spans = [word_spans(message, most_parts) for message in messages]
    variants = [
        text
        for message, places in zip(messages, spans, strict=True)
        for text in (message, *(message[:start] + message[end:] for start, end in places))
    ]
    logits = _logits(scorer, variants)
    answers = iter(zip(logits.tolist(), to_probabilities(logits).tolist(), strict=True))
    found = [_explained(message, places, answers) for message, places in zip(messages, spans, strict=True)]
    if threshold is None:
        return found
    return [dataclasses.replace(one, decisive=_decisive(scorer, one, threshold)) for one in found]


def _logits(scorer: Scorer, texts: Sequence[str]) -> FloatArray:
    logits = scorer.logits(scorer.encode(texts)).astype(np.float64)
    if not np.isfinite(logits).all():
        raise ArtifactError(
            "expected scores that are numbers, received others (NaN?): the model's weights are damaged, or it cannot "
            "score the message. Go back to the version before (spamscore serve) or train again."
        )
    return logits


def _explained(message: str, spans: Sequence[tuple[int, int]], answers: Iterable[tuple[float, float]]) -> Explanation:
    """Takes the message's own answers from the front of all: of it as it is, then without each part."""
    each = iter(answers)
    logit, probability = next(each)
    parts = []
    for start, end in spans:
        without, probability_without = next(each)
        parts.append(Part(message[start:end], start, end, logit - without, probability_without))
    return Explanation(message, probability, tuple(parts))


def _decisive(scorer: Scorer, found: Explanation, threshold: float) -> tuple[Part, ...]:
    """Takes parts away, each time the one that moves the score furthest towards the other verdict, until that is there;
    then puts back those that were not needed.
    """
    flagged = found.probability >= threshold

    def turned(gone: Sequence[Sequence[Part]]) -> tuple[int, bool]:
        """Which of these, taken away, moves the score furthest towards the other verdict, and whether all the way."""
        probabilities = to_probabilities(_logits(scorer, [_without(found.message, parts) for parts in gone]))
        place = int(probabilities.argmin() if flagged else probabilities.argmax())
        return place, bool(probabilities[place] >= threshold) != flagged

    gone: list[Part] = []
    left = list(found.parts)
    done = False
    while not done and len(left) > 1 and len(gone) < MOST_DECISIVE:
        place, done = turned([[*gone, part] for part in left])
        gone.append(left.pop(place))
    if not done:
        return ()
    for part in list(gone[:-1]):
        fewer = [one for one in gone if one is not part]
        if turned([fewer])[1]:
            gone = fewer
    return tuple(sorted(gone, key=lambda part: part.start))


def _without(message: str, parts: Sequence[Part]) -> str:
    for part in sorted(parts, key=lambda part: -part.start):
        message = message[: part.start] + message[part.end :]
    return message


def word_spans(message: str, most: int = MOST_PARTS) -> list[tuple[int, int]]:
    """Where the words of a message begin and end; of more than `most` words, runs of them, alike in length."""
    words = [found.span() for found in _WORD.finditer(message)]
    if len(words) <= most:
        return words
    bounds = np.linspace(0, len(words), most + 1).astype(int).tolist()
    return [(words[first][0], words[end - 1][1]) for first, end in itertools.pairwise(bounds)]
