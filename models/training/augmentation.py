"""Messages rewritten for training: as someone would write who hides from a filter, types badly, or has another number.

What a rewriting gives depends on the message, the seed, the epoch and the message's place alone, so that a training run
that is killed goes on with the same messages. Labels never change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

_LEET_SIGNS = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7", "l": "1", "b": "8", "g": "9"}
_LEET_DIGITS = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
_PLACEHOLDER = re.compile(r"&lt;(?:#|DECIMAL|TIME)&gt;|<(?:#|DECIMAL|TIME)>")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\b(?:[a-zA-Z0-9-]+\.)+(?:com|net|org|info|biz|co|tv|uk)\b(?:/\S*)?")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_TOP_LEVELS = (
    "com",
    "net",
    "org",
    "info",
    "co",
    "me",
    "io",
    "xyz",
    "top",
    "site",
    "online",
    "co.uk",
    "in",
    "de",
    "sg",
    "link",
)
_NUMBER = re.compile(r"\d{2,}")
_YEAR = re.compile(r"(?:19|20)\d\d")
_PUNCTUATION = re.compile(r"[.,!?;:'\"*-]+(?=\s|$)")


def augmented(texts: Sequence[str], share: float, seed: int, epoch: int) -> list[str]:
    """Rewrites messages for an epoch.

    Args:
        texts: messages.
        share: how often each kind of rewriting is done, beside how often it would be; 0 gives the messages as they are.
        seed: [training] seed.
        epoch: from 0.
    """
    if not share:
        return list(texts)
    return [
        _rewritten(text, share, random.Random(f"{seed} {epoch} {place}"))  # noqa: S311 - nothing to be kept secret
        for place, text in enumerate(texts)
    ]


def _rewritten(text: str, share: float, chance: random.Random) -> str:
    for rewrite, how_often in _KINDS:
        if chance.random() < how_often * share:
            # Of "!!!" nothing would be left, and what is spam without a word?
            text = rewritten if (rewritten := rewrite(text, chance)).strip() else text
    return text


def with_other_numbers(text: str, chance: random.Random) -> str:
    """Other numbers that look alike; now and then a digit more or less. A short number keeps its noughts."""

    def another(found: re.Match[str]) -> str:
        number = found.group()
        if _YEAR.fullmatch(number):
            return f"20{chance.randrange(10, 40)}"
        if len(number) < 5:
            return "".join(digit if digit == "0" else str(chance.randrange(1, 10)) for digit in number)
        digits = len(number) + (chance.random() < 0.2) - (chance.random() < 0.2)
        return "".join(str(chance.randrange(10)) for _ in range(digits))

    return _NUMBER.sub(another, text)


def with_numbers_for_placeholders(text: str, chance: random.Random) -> str:
    """Numbers where those who collected the messages took them out."""
    return _PLACEHOLDER.sub(lambda _: str(chance.randrange(1, 10 ** chance.randint(1, 4))), text)


def with_other_addresses(text: str, chance: random.Random) -> str:
    """Addresses of sites that nobody has seen, for it is that there is one which matters, not which."""

    def another(_: re.Match[str]) -> str:
        names = ["".join(chance.choices(_LETTERS, k=chance.randrange(3, 9))) for _ in range(chance.randrange(1, 3))]
        path = "/" + "".join(chance.choices(_LETTERS, k=chance.randrange(2, 8))) if chance.random() < 0.5 else ""
        return (
            f"{chance.choice(('www.', 'http://', 'https://', ''))}{'-'.join(names)}.{chance.choice(_TOP_LEVELS)}{path}"
        )

    return _ADDRESS.sub(another, text)


def in_leet(text: str, chance: random.Random) -> str:
    """Digits and signs for letters, for some or all."""
    share = chance.choice((0.15, 0.3, 0.6, 1.0, 1.0))
    table = _LEET_DIGITS if share == 1.0 else _LEET_SIGNS
    chosen = {letter for letter in table if share == 1.0 or chance.random() < 0.6}
    return "".join(
        chance.choice(table[sign.lower()]) if sign.lower() in chosen and chance.random() < share else sign
        for sign in text
    )


def spaced_apart(text: str, chance: random.Random) -> str:
    """Letters of words of four and more apart, for some words or all."""
    share = chance.choice((0.2, 0.5, 1.0))
    between = " " if chance.random() < 0.8 else chance.choice(".-*_")
    return " ".join(
        between.join(word) if word.isalpha() and len(word) > 3 and chance.random() < share else word
        for word in text.split()
    )


def in_another_case(text: str, chance: random.Random) -> str:
    """All small, all capitals, a sentence, the other way round, or as a title."""
    ways: tuple[Callable[[str], str], ...] = (str.lower, str.upper, str.capitalize, str.swapcase, str.title)
    return chance.choices(ways, (0.4, 0.2, 0.2, 0.05, 0.15))[0](text)


def with_typos(text: str, chance: random.Random) -> str:
    """A letter swapped, missing or doubled, once in 25."""
    signs = list(text)
    for _ in range(max(1, len(signs) // 25)):
        if len(signs) < 4:
            break
        at = chance.randrange(len(signs) - 1)
        kind = chance.random()
        if kind < 0.35:
            signs[at], signs[at + 1] = signs[at + 1], signs[at]
        elif kind < 0.7:
            del signs[at]
        else:
            signs.insert(at, signs[at])
    return "".join(signs)


def with_words_missing(text: str, chance: random.Random) -> str:
    """Up to a third of the words gone, never all."""
    share = chance.choice((0.1, 0.2, 0.3))
    return " ".join(word for word in text.split(" ") if chance.random() >= share) or text


def with_less_punctuation(text: str, chance: random.Random) -> str:
    """Most signs behind words gone."""
    return _PUNCTUATION.sub(lambda found: found.group() if chance.random() < 0.3 else "", text)


# Each with how often it is done at a share of 1.
_KINDS: tuple[tuple[Callable[[str, random.Random], str], float], ...] = (
    (with_other_numbers, 0.36),
    (with_numbers_for_placeholders, 0.7),
    (with_other_addresses, 0.5),
    (in_leet, 0.10),
    (spaced_apart, 0.07),
    (in_another_case, 0.15),
    (with_typos, 0.10),
    (with_words_missing, 0.20),
    (with_less_punctuation, 0.10),
)
