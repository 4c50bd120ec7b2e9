"""Folds Unicode characters to what a reader sees: compatibility forms, look-alikes, accents, invisible characters.

`fold_character` folds one character. `folding_table` packs its results for all 1,114,112 code points into small arrays,
from which `models.text.cleaning` gathers inside the graph. It is pure Python with the standard library's `unicodedata`.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CODE_POINTS = 0x110000
PAGE = 256

# Letters of other scripts, and letter-like signs without a compatibility form, that look like a Latin letter. Digits
# that look like letters (0 and O, 1 and l) are not included: that is spelling, not encoding, and both occur in words.
_LOOKALIKES = {
    "а": "a", "в": "b", "с": "c", "е": "e", "н": "h", "і": "i", "ј": "j", "к": "k", "м": "m", "о": "o", "р": "p",
    "ѕ": "s", "т": "t", "у": "y", "х": "x", "ԁ": "d", "ԛ": "q", "ԝ": "w", "ү": "y", "һ": "h", "ӏ": "l", "ё": "e",
    "А": "A", "В": "B", "С": "C", "Е": "E", "Н": "H", "І": "I", "Ј": "J", "К": "K", "М": "M", "О": "O", "Р": "P",
    "Ѕ": "S", "Т": "T", "У": "Y", "Х": "X", "Ԛ": "Q", "Ԝ": "W", "Ү": "Y", "Һ": "H", "Ӏ": "I", "Ԁ": "D", "З": "3",
    "α": "a", "β": "b", "ε": "e", "ι": "i", "κ": "k", "ν": "v", "ο": "o", "ρ": "p", "τ": "t", "υ": "u", "χ": "x",
    "ω": "w", "γ": "y", "η": "n", "ϲ": "c", "ϳ": "j",
    "Α": "A", "Β": "B", "Ε": "E", "Ζ": "Z", "Η": "H", "Ι": "I", "Κ": "K", "Μ": "M", "Ν": "N", "Ο": "O", "Ρ": "P",
    "Τ": "T", "Υ": "Y", "Χ": "X",
    "օ": "o", "ո": "n", "ս": "u", "հ": "h", "զ": "q", "ց": "g", "յ": "j", "Օ": "O", "Ս": "U", "Տ": "S", "Լ": "L",
    "ı": "i", "ȷ": "j", "ɑ": "a", "ɡ": "g", "ɩ": "i", "ʏ": "y", "ꓐ": "B", "ꓑ": "P", "ꓓ": "D", "ꓔ": "T", "ꓖ": "G",
    "ꓗ": "K", "ꓙ": "J", "ꓚ": "C", "ꓜ": "Z", "ꓝ": "F", "ꓟ": "M", "ꓠ": "N", "ꓡ": "L", "ꓢ": "S", "ꓣ": "R", "ꓦ": "V",
    "ꓧ": "H", "ꓪ": "W", "ꓫ": "X", "ꓬ": "Y", "ꓮ": "A", "ꓰ": "E", "ꓲ": "I", "ꓳ": "O", "ꓴ": "U",
    "Ꭺ": "A", "Ᏼ": "B", "Ꮯ": "C", "Ꭰ": "D", "Ꭼ": "E", "Ꮐ": "G", "Ꮋ": "H", "Ꭻ": "J", "Ꮶ": "K", "Ꮮ": "L", "Ꮇ": "M",
    "Ꮲ": "P", "Ꮪ": "S", "Ꭲ": "T", "Ꮩ": "V", "Ꮃ": "W", "Ꮓ": "Z",
    "ᴀ": "a", "ʙ": "b", "ᴄ": "c", "ᴅ": "d", "ᴇ": "e", "ꜰ": "f", "ɢ": "g", "ʜ": "h", "ɪ": "i", "ᴊ": "j", "ᴋ": "k",
    "ʟ": "l", "ᴍ": "m", "ɴ": "n", "ᴏ": "o", "ᴘ": "p", "ʀ": "r",
    "ꜱ": "s", "ᴛ": "t", "ᴜ": "u", "ᴠ": "v", "ᴡ": "w", "ᴢ": "z",
    "ß": "ss", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ł": "l", "Ł": "L", "ħ": "h", "Ħ": "H", "æ": "ae", "Æ": "AE",
    "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "TH", "ð": "d", "Ð": "D", "ƒ": "f", "ɓ": "b", "ɗ": "d", "ƙ": "k", "ŋ": "n",
    "‘": "'", "’": "'", "‚": "'", "‛": "'", "′": "'",
    "´": "'", "ʹ": "'", "ʻ": "'", "ʼ": "'", "ˈ": "'", "՚": "'",
    "“": '"', "”": '"', "„": '"', "‟": '"', "″": '"', "«": '"', "»": '"',
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "⁃": "-", "﹘": "-",
    "•": "*", "∙": "*", "·": "*", "●": "*", "★": "*", "☆": "*", "⁄": "/", "∕": "/", "∶": ":", "։": ":", "ꓽ": ":",
    "‹": "<", "›": ">", "❬": "<", "❭": ">", "¡": "!", "¿": "?",
    "ǃ": "!", "。": ".", "、": ",", "।": ".", "۔": ".", "،": ",",
    "؟": "?", "※": "*", "❗": "!", "❕": "!", "❓": "?", "❔": "?", "‼": "!!",
}  # fmt: skip

# Marks that only decorate Latin, Greek and Cyrillic letters. Vowel signs of other scripts are letters to their readers.
_DECORATION = frozenset(itertools.chain(
    range(0x0300, 0x0370), range(0x0483, 0x048A), range(0x1AB0, 0x1B00), range(0x1DC0, 0x1E00), range(0x20D0, 0x2100),
    range(0xFE20, 0xFE30),
))  # fmt: skip
# Invisible, although Unicode classifies them as letters, marks or symbols.
_INVISIBLE = frozenset(itertools.chain(
    (0x115F, 0x1160, 0x3164, 0xFFA0), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0), range(0x180B, 0x1810),
    range(0x1F3FB, 0x1F400),
))  # fmt: skip
_PRIVATE_PLANES = 0xF0000
# Letters in squares and circles, which have no compatibility form. These are the code points of A in each row.
_BOXED = (0x1F130, 0x1F150, 0x1F170, 0x1F1E6)


def fold_character(character: str) -> str:
    """Folds a character to itself, other characters, a space, or the empty string.

    Control characters from Windows-1252 text that was read as Latin-1 (as in the SMS Spam Collection) become the
    intended characters. Other control characters and all white space become a space. Format characters, variation
    selectors and private-use characters become the empty string.
    """
    code = ord(character)
    if 0x80 <= code < 0xA0:
        character = bytes([code]).decode("cp1252", "ignore") or " "
    category = unicodedata.category(character)
    if category in ("Cf", "Co", "Cs") or code >= _PRIVATE_PLANES or code in _INVISIBLE:
        return ""
    if category in ("Cc", "Zs", "Zl", "Zp") or code == 0x2800:
        return " "
    if category == "Nd":  # of any script, because numbers are masked by counting digits
        return str(unicodedata.decimal(character))
    if code >= _BOXED[0] and (boxed := _find_boxed_letter(code)):
        return boxed
    if category[0] != "M" and not unicodedata.decomposition(character) and character not in _LOOKALIKES:
        return character if character.isascii() else character.lower()
    return _lower_unless_ascii("".join(map(_replace_lookalike, _strip_marks(character))))


def _find_boxed_letter(code: int) -> str:
    return next((chr(ord("A") + code - first) for first in _BOXED if first <= code < first + 26), "")


def _strip_marks(character: str) -> str:
    """Returns the compatibility form without marks of Latin, Greek and Cyrillic letters; others stay composed."""
    decomposed = unicodedata.normalize("NFKD", _LOOKALIKES.get(character, character))
    bare = "".join(letter for letter in decomposed if ord(letter) not in _DECORATION)
    return " ".join(part for part in unicodedata.normalize("NFKC", bare).split(" ") if part) if bare.strip() else ""


def _replace_lookalike(character: str) -> str:
    return _LOOKALIKES.get(character, character)


def _lower_unless_ascii(text: str) -> str:
    """Converts to lower case, except ASCII capitals: a word in capitals is a signal that is used later."""
    return "".join(letter if letter.isascii() else letter.lower() for letter in text)


@dataclass(frozen=True)
class FoldingTable:
    """`fold_character` for every code point, as arrays.

    Attributes:
        page_block: block of each page of 256 code points, int32 [4352].
        blocks: number to add to a code point to get its entry, int32 [blocks, 256]. An entry is a code point, or
            `CODE_POINTS` plus the number of an expansion, or negative for a dropped character. Equal pages share a
            block.
        expansion_lengths: number of code points of each expansion, int32 [expansions].
        expansion_starts: index of each expansion in `expansion_values`, int32 [expansions].
        expansion_values: code points of all expansions, int32 [sum of lengths].
    """

    page_block: npt.NDArray[np.int32]
    blocks: npt.NDArray[np.int32]
    expansion_lengths: npt.NDArray[np.int32]
    expansion_starts: npt.NDArray[np.int32]
    expansion_values: npt.NDArray[np.int32]


_DROPPED = -2 * CODE_POINTS
# Code points outside these ranges are ideographs, which fold to themselves, or unassigned.
_FOLDED_RANGES = (range(0x80, 0xD800), range(0xE000, 0x20000), range(0x2F800, 0x2FA20), range(0xE0000, 0xE0200))


@functools.cache
def folding_table() -> FoldingTable:
    """Packs `fold_character` for all code points. Takes a fraction of a second, once per process."""
    deltas = np.zeros(CODE_POINTS, dtype=np.int32)
    deltas[_PRIVATE_PLANES:] = _DROPPED
    expansions: dict[str, int] = {}
    for code in itertools.chain(range(0x20), (0x7F,), *_FOLDED_RANGES):
        folded = fold_character(chr(code))
        if not folded:
            deltas[code] = _DROPPED
        elif len(folded) == 1:
            deltas[code] = ord(folded) - code
        else:
            deltas[code] = CODE_POINTS + expansions.setdefault(folded, len(expansions)) - code
    block_numbers: dict[bytes, int] = {}
    page_block = [block_numbers.setdefault(page.tobytes(), len(block_numbers)) for page in deltas.reshape(-1, PAGE)]
    blocks = np.frombuffer(b"".join(block_numbers), np.int32).reshape(-1, PAGE)
    lengths = np.array([len(text) for text in expansions], dtype=np.int32)
    values = np.array([ord(character) for text in expansions for character in text], dtype=np.int32)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    return FoldingTable(np.array(page_block, np.int32), blocks, lengths, starts, values)
