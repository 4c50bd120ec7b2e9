"""Counts statistics of the texts of a batch: lengths, scripts, and words that are not in the vocabulary.

Messages are counted in any number of calls. Memory does not grow with the number of messages.
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

# Lower bounds of the length bins, in characters: each about twice the previous one. 160 characters are one SMS.
LENGTH_BOUNDS = (1, 11, 21, 41, 81, 161, 321, 641, 1281)
NO_LETTERS = "no letters"
# Common, inherited and unknown: characters with these values belong to no single script.
_GENERIC_SCRIPTS = ("Zyyy", "Zinh", "Zzzz")


@dataclass(frozen=True)
class TextStatistics:
    """Statistics of the texts of a batch. The report of a batch stores the field names as JSON keys.

    Attributes:
        messages: number of messages counted.
        lengths: messages by length; bin i is from `LENGTH_BOUNDS[i]` up to the next bound.
        mean_characters: mean length of a message in characters; None if there are no messages.
        most_characters: length of the longest message in characters.
        scripts: messages with at least one letter of a script, by its Unicode name, the most frequent first. A message
            that mixes scripts is counted for each. Messages without any letter are counted under `NO_LETTERS`.
        words: words that the network reads; None if there is no vocabulary.
        unknown: words that are not in the vocabulary; None if there is no vocabulary.
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
        """Share of the words that are not in the vocabulary; None if unknown."""
        return self.unknown / self.words if self.words and self.unknown is not None else None


class TextStatisticsCounter:
    """Counts text statistics message by message. Needs TensorFlow if a vocabulary is given."""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self._encoder = _build_encoder(vocabulary) if vocabulary else None
        self._lengths = np.zeros(len(LENGTH_BOUNDS), np.int64)
        self._characters = self._max_characters = self._words = self._unknown = 0
        self._scripts: Counter[str] = Counter()

    def add(self, texts: Sequence[str]) -> None:
        """Counts messages. None of the texts may be empty."""
        if not texts:
            return
        lengths = np.array([len(text) for text in texts], np.int64)
        bins = np.searchsorted(LENGTH_BOUNDS, lengths, side="right") - 1
        self._lengths += np.bincount(bins, minlength=len(LENGTH_BOUNDS))
        self._characters += int(lengths.sum())
        self._max_characters = max(self._max_characters, int(lengths.max()))
        self._scripts.update(count_scripts(texts, lengths))
        if self._encoder is not None:
            words, unknown = _count_unknown(self._encoder, texts)
            self._words += words
            self._unknown += unknown

    def statistics(self) -> TextStatistics:
        """Returns the statistics of all messages so far."""
        messages = int(self._lengths.sum())
        return TextStatistics(
            messages=messages,
            lengths=self._lengths.tolist(),
            mean_characters=self._characters / messages if messages else None,
            most_characters=self._max_characters,
            scripts=dict(self._scripts.most_common()),
            words=self._words if self._encoder is not None else None,
            unknown=self._unknown if self._encoder is not None else None,
        )


def _build_encoder(vocabulary: Vocabulary) -> TextEncoder:
    from models.text.encoder import TextEncoder

    return TextEncoder(vocabulary, buckets=0)  # no n-grams: only words are counted


def _count_unknown(encoder: TextEncoder, texts: Sequence[str]) -> tuple[int, int]:
    """Returns the number of words that the network reads, and the number of them that are not in the vocabulary."""
    from models.text.encoder import encode_messages
    from models.text.vocabulary import UNKNOWN_ID

    encoded = encode_messages(encoder, texts)
    return len(encoded.rows), int((encoded.table.words[encoded.rows] == UNKNOWN_ID).sum())


def count_scripts(texts: Sequence[str], lengths: IntArray) -> dict[str, int]:
    """Counts the messages with a letter of each script, by its Unicode name (property Script, Unicode annex 24).

    Args:
        texts: messages.
        lengths: length of each message in characters; int64 [messages].
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    distinct, code_index = np.unique(codes, return_inverse=True)
    names = [_find_script(int(code)) for code in distinct]
    scripts = sorted(set(names) - {None}, key=str)
    script_ids = {name: number for number, name in enumerate(scripts)}
    code_scripts = np.array([script_ids.get(name, -1) for name in names], np.int64)
    character_scripts, message_index = code_scripts[code_index], np.repeat(np.arange(len(texts)), lengths)
    is_letter = character_scripts >= 0
    # One number for each pair of message and script, so that each pair counts once.
    pairs = np.unique(message_index[is_letter] * max(len(scripts), 1) + character_scripts[is_letter])
    counts = {str(name): int((pairs % len(scripts) == number).sum()) for name, number in script_ids.items()}
    without = len(texts) - len(np.unique(pairs // max(len(scripts), 1)))
    return counts | ({NO_LETTERS: without} if without else {})


@functools.cache
def _find_script(code: int) -> str | None:
    """Returns the name of a character's script; None if the character belongs to no single script."""
    from fontTools import unicodedata

    short = unicodedata.script(chr(code))
    return None if short in _GENERIC_SCRIPTS else str(unicodedata.script_name(short))
