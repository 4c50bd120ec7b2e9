"""Augments training messages: evasion tricks, typing errors, other numbers and addresses.

The result depends only on the message, the seed, the epoch and the index of the message. So a training run that is
killed and resumed sees the same messages. Labels never change.
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


def augment_texts(texts: Sequence[str], share: float, seed: int, epoch: int) -> list[str]:
    """Rewrites messages for an epoch.

    Args:
        texts: messages.
        share: factor for the probability of each kind of rewriting; 0 returns the messages unchanged.
        seed: [training] seed.
        epoch: number of the epoch, from 0.

    Returns:
        As many messages, in the same order.
    """
    if not share:
        return list(texts)
    return [
        _augment_text(text, share, random.Random(f"{seed} {epoch} {index}"))  # noqa: S311 - not used for security
        for index, text in enumerate(texts)
    ]


def _augment_text(text: str, share: float, rng: random.Random) -> str:
    for rewrite, probability in _KINDS:
        if rng.random() < probability * share:
            # A rewriting that leaves nothing, such as dropping the punctuation of "!!!", is ignored.
            text = rewritten if (rewritten := rewrite(text, rng)).strip() else text
    return text


def replace_numbers(text: str, rng: random.Random) -> str:
    """Replaces numbers with similar ones, sometimes with a digit more or less. A short number keeps its zeros."""

    def replacement(match: re.Match[str]) -> str:
        number = match.group()
        if _YEAR.fullmatch(number):
            return f"20{rng.randrange(10, 40)}"
        if len(number) < 5:
            return "".join(digit if digit == "0" else str(rng.randrange(1, 10)) for digit in number)
        digits = len(number) + (rng.random() < 0.2) - (rng.random() < 0.2)
        return "".join(str(rng.randrange(10)) for _ in range(digits))

    return _NUMBER.sub(replacement, text)


def fill_placeholders(text: str, rng: random.Random) -> str:
    """Replaces the placeholders of an anonymized corpus with numbers."""
    return _PLACEHOLDER.sub(lambda _: str(rng.randrange(1, 10 ** rng.randint(1, 4))), text)


def replace_addresses(text: str, rng: random.Random) -> str:
    """Replaces addresses with random ones: that a message has an address matters, not which one."""

    def replacement(_: re.Match[str]) -> str:
        names = ["".join(rng.choices(_LETTERS, k=rng.randrange(3, 9))) for _ in range(rng.randrange(1, 3))]
        path = "/" + "".join(rng.choices(_LETTERS, k=rng.randrange(2, 8))) if rng.random() < 0.5 else ""
        return f"{rng.choice(('www.', 'http://', 'https://', ''))}{'-'.join(names)}.{rng.choice(_TOP_LEVELS)}{path}"

    return _ADDRESS.sub(replacement, text)


def apply_leet(text: str, rng: random.Random) -> str:
    """Replaces some or all letters with similar digits and signs."""
    share = rng.choice((0.15, 0.3, 0.6, 1.0, 1.0))
    table = _LEET_DIGITS if share == 1.0 else _LEET_SIGNS
    chosen = {letter for letter in table if share == 1.0 or rng.random() < 0.6}
    return "".join(
        rng.choice(table[sign.lower()]) if sign.lower() in chosen and rng.random() < share else sign for sign in text
    )


def space_out_words(text: str, rng: random.Random) -> str:
    """Puts a space or a sign between the letters of some or all words of four or more letters."""
    share = rng.choice((0.2, 0.5, 1.0))
    separator = " " if rng.random() < 0.8 else rng.choice(".-*_")
    return " ".join(
        separator.join(word) if word.isalpha() and len(word) > 3 and rng.random() < share else word
        for word in text.split()
    )


def change_case(text: str, rng: random.Random) -> str:
    """Changes the case: lower, upper, capitalized, swapped or title case."""
    methods: tuple[Callable[[str], str], ...] = (str.lower, str.upper, str.capitalize, str.swapcase, str.title)
    return rng.choices(methods, (0.4, 0.2, 0.2, 0.05, 0.15))[0](text)


def add_typos(text: str, rng: random.Random) -> str:
    """Swaps, deletes or doubles one character in 25."""
    characters = list(text)
    for _ in range(max(1, len(characters) // 25)):
        if len(characters) < 4:
            break
        index = rng.randrange(len(characters) - 1)
        draw = rng.random()
        if draw < 0.35:
            characters[index], characters[index + 1] = characters[index + 1], characters[index]
        elif draw < 0.7:
            del characters[index]
        else:
            characters.insert(index, characters[index])
    return "".join(characters)


def drop_words(text: str, rng: random.Random) -> str:
    """Drops up to about a third of the words, never all."""
    share = rng.choice((0.1, 0.2, 0.3))
    return " ".join(word for word in text.split(" ") if rng.random() >= share) or text


def drop_punctuation(text: str, rng: random.Random) -> str:
    """Drops most punctuation at the end of words."""
    return _PUNCTUATION.sub(lambda match: match.group() if rng.random() < 0.3 else "", text)


# Each rewriting with its probability at a share of 1.
_KINDS: tuple[tuple[Callable[[str, random.Random], str], float], ...] = (
    (replace_numbers, 0.36),
    (fill_placeholders, 0.7),
    (replace_addresses, 0.5),
    (apply_leet, 0.50),
    (space_out_words, 0.07),
    (change_case, 0.15),
    (add_typos, 0.10),
    (drop_words, 0.20),
    (drop_punctuation, 0.10),
)
