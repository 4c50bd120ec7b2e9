"""Generates any number of distinct short messages similar to those of a corpus, for benchmarks only.

Each message is the first half of one real message and the second half of another. The digits are replaced, and three
words in a hundred are new. In the SMS Spam Collection, thirteen in a hundred of the words in the last tenth do not
occur in the nine tenths before, and by Heaps' law about four in a hundred would be new after a million messages.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

NEW_WORDS = 0.03
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGIT = re.compile(r"\d")


def real_messages(path: Path) -> list[str]:
    """Reads the distinct messages of the SMS Spam Collection, in the order of the file."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return list(dict.fromkeys(line.split("\t", 1)[1] for line in lines))


def distinct_messages(real: Sequence[str], count: int, seed: int = 0) -> Iterator[str]:
    """Yields `count` distinct messages; the same seed gives the same messages."""
    rng = random.Random(seed)  # noqa: S311 - not used for security
    words = [text.split(" ") for text in real]
    seen: set[int] = set()
    texts = (" ".join(_vary(word, rng) for word in _join_halves(words, rng)) for _ in itertools.count())
    for text in texts:
        if (key := hash(text)) not in seen:
            seen.add(key)
            yield text
        if len(seen) == count:
            return


def _join_halves(words: Sequence[list[str]], rng: random.Random) -> list[str]:
    first, second = rng.choice(words), rng.choice(words)
    return first[: (len(first) + 1) // 2] + second[len(second) // 2 :]


def _vary(word: str, rng: random.Random) -> str:
    if _DIGIT.search(word):
        return _DIGIT.sub(lambda _: rng.choice("0123456789"), word)
    return word + rng.choice(_LETTERS) + rng.choice(_LETTERS) if rng.random() < NEW_WORDS else word
