"""Which words moved the score of a message: it is scored again without each of them (occlusion, after Zeiler and
Fergus 2014, "Visualizing and Understanding Convolutional Networks"), so what is said is the model's own answer.

The changes do not add up to the score: of two words that say the same, each alone moves it little.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from models.calibration import probabilities_of
from models.encoder import encode_messages
from models.errors import ArtifactError
from models.scoring import Scorer

# Times a message is scored at most, beside once as it is.
MOST_PARTS = 200
# Scripts that are written without spaces: there each character is a word, as `models.text` has it.
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
    """A message, its spam probability, and its parts in their order; together they hold every word."""

    message: str
    probability: float
    parts: tuple[Part, ...]

    def strongest(self, most: int) -> list[Part]:
        """The parts that moved the score most, the strongest first; those that changed nothing are left out."""
        moved = [part for part in self.parts if part.change]
        return sorted(moved, key=lambda part: (-abs(part.change), part.start))[:most]


def explain(scorer: Scorer, messages: Sequence[str], most_parts: int = MOST_PARTS) -> list[Explanation]:
    """Scores each message without each of its words.

    Args:
        scorer: texts to logits.
        messages: what to explain, in any number; all variants are scored together.
        most_parts: parts that a message is divided into at most; at least 1.

    Raises:
        ArtifactError: a score is no number.
    """
    spans = [word_spans(message, most_parts) for message in messages]
    variants = [
        text
        for message, places in zip(messages, spans, strict=True)
        for text in (message, *(message[:start] + message[end:] for start, end in places))
    ]
    logits = scorer.logits(encode_messages(scorer.encoder, variants)).astype(np.float64)
    if not np.isfinite(logits).all():
        raise ArtifactError(
            "expected scores that are numbers, received others (NaN?): the model's weights are damaged, or it cannot "
            "score the message. Go back to the version before (spamscore serve) or train again."
        )
    answers = iter(zip(logits.tolist(), probabilities_of(logits).tolist(), strict=True))
    return [_explained(message, places, answers) for message, places in zip(messages, spans, strict=True)]


def _explained(message: str, spans: Sequence[tuple[int, int]], answers: Iterable[tuple[float, float]]) -> Explanation:
    """Takes the message's own answers from the front of all: of it as it is, then without each part."""
    each = iter(answers)
    logit, probability = next(each)
    parts = []
    for start, end in spans:
        without, probability_without = next(each)
        parts.append(Part(message[start:end], start, end, logit - without, probability_without))
    return Explanation(message, probability, tuple(parts))


def word_spans(message: str, most: int = MOST_PARTS) -> list[tuple[int, int]]:
    """Where the words of a message begin and end; of more than `most` words, runs of them, alike in length."""
    words = [found.span() for found in _WORD.finditer(message)]
    if len(words) <= most:
        return words
    bounds = np.linspace(0, len(words), most + 1).astype(int).tolist()
    return [(words[first][0], words[end - 1][1]) for first, end in itertools.pairwise(bounds)]
