"""What the messages of a batch are like as texts: how long, in which scripts, how many words the vocabulary lacks.

Counted as messages go by, in any number of calls; what is kept does not grow with them.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.statistics.arrays import IntArray

if TYPE_CHECKING:
    from models.text.encoder import TextEncoder
    from models.text.vocabulary import Vocabulary

# Characters from which lengths are counted together; each twice the one before, 160 being one short message.
LENGTHS = (1, 11, 21, 41, 81, 161, 321, 641, 1281)
NO_LETTERS = "no letters"
# Common to many scripts, inherited from the character before, of no character: these say nothing of a language.
_OF_NO_SCRIPT = ("Zyyy", "Zinh", "Zzzz")


@dataclass(frozen=True)
class Wording:
    """What was counted.

    Attributes:
        messages: looked at.
        lengths: messages by length, from each of `LENGTHS` up to the next.
        mean_characters: characters of a message; None of no messages.
        most_characters: of the longest one.
        scripts: messages that hold a letter of a script, by its Unicode name, the most frequent first; those without
            any letter too. One that mixes scripts is counted for each.
        words: words that the network reads of them; None where no vocabulary was at hand.
        unknown: of them, those that are not in the vocabulary.
    """

    messages: int
    lengths: list[int]
    mean_characters: float | None
    most_characters: int
    scripts: dict[str, int]
    words: int | None
    unknown: int | None

    @property
    def unknown_share(self) -> float | None:
        """Share of the words that are not in the vocabulary; None where it is not known."""
        return self.unknown / self.words if self.words and self.unknown is not None else None


class WordingCount:
    """Counts messages as they go by. Needs TensorFlow where there is a vocabulary."""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self._encoder = _encoder(vocabulary) if vocabulary else None
        self._lengths = np.zeros(len(LENGTHS), np.int64)
        self._characters = self._most = self._words = self._unknown = 0
        self._scripts: Counter[str] = Counter()

    def add(self, texts: Sequence[str]) -> None:
        """Counts some messages, none of them empty."""
        if not texts:
            return
        lengths = np.array([len(text) for text in texts], np.int64)
        places = np.searchsorted(LENGTHS, lengths, side="right") - 1
        self._lengths += np.bincount(places, minlength=len(LENGTHS))
        self._characters += int(lengths.sum())
        self._most = max(self._most, int(lengths.max()))
        self._scripts.update(count_scripts(texts, lengths))
        if self._encoder is not None:
            words, unknown = _count_unknown(self._encoder, texts)
            self._words += words
            self._unknown += unknown

    def wording(self) -> Wording:
        """What was counted until now."""
        messages = int(self._lengths.sum())
        return Wording(
            messages=messages,
            lengths=self._lengths.tolist(),
            mean_characters=self._characters / messages if messages else None,
            most_characters=self._most,
            scripts=dict(self._scripts.most_common()),
            words=self._words if self._encoder is not None else None,
            unknown=self._unknown if self._encoder is not None else None,
        )


def _encoder(vocabulary: Vocabulary) -> TextEncoder:
    from models.text.encoder import TextEncoder

    return TextEncoder(vocabulary, buckets=0)  # no n-grams: only words are counted


def _count_unknown(encoder: TextEncoder, texts: Sequence[str]) -> tuple[int, int]:
    """Words that the network reads, and how many of them are not in the vocabulary."""
    from models.text.encoder import encode_messages
    from models.text.vocabulary import UNKNOWN_ID

    encoded = encode_messages(encoder, texts)
    return len(encoded.rows), int((encoded.table.words[encoded.rows] == UNKNOWN_ID).sum())


def count_scripts(texts: Sequence[str], lengths: IntArray) -> dict[str, int]:
    """How many messages hold a letter of each script, by its Unicode name (property Script, Unicode annex 24).

    Args:
        texts: messages.
        lengths: of each, in characters; int64 [messages].
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    distinct, places = np.unique(codes, return_inverse=True)
    names = [_script_of(int(code)) for code in distinct]
    scripts = sorted(set(names) - {None}, key=str)
    numbers = {name: number for number, name in enumerate(scripts)}
    of_code = np.array([numbers.get(name, -1) for name in names], np.int64)
    of_character, of_message = of_code[places], np.repeat(np.arange(len(texts)), lengths)
    lettered = of_character >= 0
    # One number for each message and script that it has, however many letters.
    pairs = np.unique(of_message[lettered] * max(len(scripts), 1) + of_character[lettered])
    counts = {str(name): int((pairs % len(scripts) == number).sum()) for name, number in numbers.items()}
    without = len(texts) - len(np.unique(pairs // max(len(scripts), 1)))
    return counts | ({NO_LETTERS: without} if without else {})


@functools.cache
def _script_of(code: int) -> str | None:
    """The name of a character's script, or None if it has none of its own."""
    from fontTools import unicodedata

    short = unicodedata.script(chr(code))
    return None if short in _OF_NO_SCRIPT else str(unicodedata.script_name(short))
