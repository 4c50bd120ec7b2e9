"""Any number of distinct short messages like those of a corpus, for measuring alone.

Each is the first half of one real message and the second half of another. The digits of its numbers are others, and
three words in a hundred are new: in the SMS Spam Collection itself thirteen in a hundred of the words of the last tenth
do not occur in the nine before, and by Heaps' law some four in a hundred would be new after a million messages.
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
    """The distinct messages of the SMS Spam Collection, in the order of the file."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return list(dict.fromkeys(line.split("\t", 1)[1] for line in lines))


def distinct_messages(real: Sequence[str], count: int, seed: int = 0) -> Iterator[str]:
    """Yields so many messages, no two equal."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    words = [text.split(" ") for text in real]
    seen: set[int] = set()
    made = (" ".join(_varied(word, rng) for word in _halves(words, rng)) for _ in itertools.count())
    for text in made:
        if (key := hash(text)) not in seen:
            seen.add(key)
            yield text
        if len(seen) == count:
            return


def _halves(words: Sequence[list[str]], rng: random.Random) -> list[str]:
    one, other = rng.choice(words), rng.choice(words)
    return one[: (len(one) + 1) // 2] + other[len(other) // 2 :]


def _varied(word: str, rng: random.Random) -> str:
    if _DIGIT.search(word):
        return _DIGIT.sub(lambda _: rng.choice("0123456789"), word)
    return word + rng.choice(_LETTERS) + rng.choice(_LETTERS) if rng.random() < NEW_WORDS else word
