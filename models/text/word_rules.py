"""Cleans single words with Python's `re`, with the same results as `models.text.cleaning`.

A call of a TensorFlow function takes about a millisecond, however short its text is. These functions take some
microseconds a word. They handle words that are ASCII, or ASCII with pound signs, after folding. Tests compare them with
the graph.
"""

from __future__ import annotations

import functools
import html.entities
import re

from models.text.cleaning import SIGNAL_RULES
from models.text.lookalikes import CODE_POINTS, fold_character

# Python's `re` backtracks, so a long word could take quadratic time.
_MAX_CHARACTERS = 100
_SUPPORTED = re.compile(rf"[ -~£]{{0,{_MAX_CHARACTERS}}}")
_SPACED = re.compile(r"\b(?:[A-Za-z][ ._*+-]){3,}[A-Za-z]\b", re.ASCII)
_ENTITY = re.compile(r"&(#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]{1,31});")
_ENTITIES = {name.removesuffix(";"): text for name, text in html.entities.html5.items() if name.endswith(";")}
_MAX_DIGITS = 7  # of a numeric entity
_REPLACEMENT = "\ufffd"
_fold_character = functools.lru_cache(2**14)(fold_character)


def fold_word(word: str) -> str:
    """Folds a word as `TextCleaner.fold` does."""
    if "&" in word:
        word = _ENTITY.sub(_decode_entity, word.replace("\x00", " ").replace("\x01", " "))
    return "".join(map(_fold_character, word))


def cut_word(folded: str, max_characters: int) -> list[bytes] | None:
    """Cuts a folded word into tokens as `TextEncoder.tokens` does.

    Args:
        folded: a word from `fold_word`.
        max_characters: [text] max_characters.

    Returns:
        The tokens, or None if the word must be cut by the encoder: it is long, not ASCII, or has spaced-out letters.
    """
    if not _SUPPORTED.fullmatch(folded) or _SPACED.search(folded):
        return None
    text = folded[:max_characters]
    for pattern, replacement in _ascii_rules():
        text = pattern.sub(replacement, text)
    return text.encode().split()


def _decode_entity(match: re.Match[str]) -> str:
    name = match[1]
    if not name.startswith("#"):
        return _ENTITIES.get(name, match[0])
    is_hexadecimal = name[1] in "xX"
    digits = name[2 if is_hexadecimal else 1 :].lstrip("0")
    code = int(digits, 16 if is_hexadecimal else 10) if 0 < len(digits) <= _MAX_DIGITS else 0
    if _is_dropped(code):
        return ""
    return chr(code) if 0 < code < CODE_POINTS and not 0xD800 <= code < 0xE000 else _REPLACEMENT


def _is_dropped(code: int) -> bool:
    """Returns whether a code is a control character or noncharacter that is dropped."""
    is_control = 0 < code < 0x20 and code not in (0x9, 0xA, 0xC, 0xD)
    is_noncharacter = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    return is_control or code == 0x7F or (is_noncharacter and code < CODE_POINTS)


@functools.cache
def _ascii_rules() -> list[tuple[re.Pattern[str], str]]:
    """Returns the rules for ASCII text, whose only characters in a Unicode class are letters and digits."""
    rules = []
    for pattern, replacement in SIGNAL_RULES:
        ascii_pattern = re.sub(r"\\p\{\w+\}\|", "", pattern).replace(r"\pL*", "[A-Za-z]*")
        for unicode_class, ascii_class in ((r"\pL", "A-Za-z"), (r"\pN", "0-9"), (r"\pM", "")):
            ascii_pattern = ascii_pattern.replace(unicode_class, ascii_class)
        rules.append((re.compile(ascii_pattern, re.ASCII), replacement.replace(r"\0", r"\g<0>")))
    return rules
