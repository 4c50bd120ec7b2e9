"""What each Unicode character is read as: compatibility forms, look-alikes, accents, invisible characters.

One function, `reading`, says it for a character; `folding_table` packs it for all 1,114,112 code points into small
arrays that `models.text.cleaning` gathers from inside the graph. Pure Python on the standard library's `unicodedata`.
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

# Letters of other scripts, and letter-like signs without a compatibility form, drawn like a Latin letter. Digits drawn
# like letters (0 and O, 1 and l) are not here: that is spelling, not an encoding, and real words of both exist.
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

# Marks that only dress Latin, Greek and Cyrillic letters. Vowel signs of other scripts are letters to their readers.
_DRESSING = frozenset(itertools.chain(
    range(0x0300, 0x0370), range(0x0483, 0x048A), range(0x1AB0, 0x1B00), range(0x1DC0, 0x1E00), range(0x20D0, 0x2100),
    range(0xFE20, 0xFE30),
))  # fmt: skip
# Drawn as nothing, though Unicode counts them as letters, marks or symbols.
_INVISIBLE = frozenset(itertools.chain(
    (0x115F, 0x1160, 0x3164, 0xFFA0), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0), range(0x180B, 0x1810),
    range(0x1F3FB, 0x1F400),
))  # fmt: skip
_PRIVATE_PLANES = 0xF0000
# Letters in squares and circles, which have no compatibility form: A stands at the first code point of each row.
_BOXED = (0x1F130, 0x1F150, 0x1F170, 0x1F1E6)


def reading(character: str) -> str:
    """What a character is read as: itself, other characters, a space, or nothing.

    Control characters of Windows-1252 taken for Latin-1 (as the SMS Spam Collection has them) become what was meant;
    other controls and all white space a space; format characters, variation selectors, private use nothing.
    """
    code = ord(character)
    if 0x80 <= code < 0xA0:
        character = bytes([code]).decode("cp1252", "ignore") or " "
    category = unicodedata.category(character)
    if category in ("Cf", "Co", "Cs") or code >= _PRIVATE_PLANES or code in _INVISIBLE:
        return ""
    if category in ("Cc", "Zs", "Zl", "Zp") or code == 0x2800:
        return " "
    if category == "Nd":  # of whatever script: numbers are counted and masked by their digits
        return str(unicodedata.decimal(character))
    if code >= _BOXED[0] and (boxed := _boxed_letter(code)):
        return boxed
    if category[0] != "M" and not unicodedata.decomposition(character) and character not in _LOOKALIKES:
        return character if character.isascii() else character.lower()
    return _lower_unless_ascii("".join(map(_lookalike, _undress(character))))


def _boxed_letter(code: int) -> str:
    return next((chr(ord("A") + code - first) for first in _BOXED if first <= code < first + 26), "")


def _undress(character: str) -> str:
    """Compatibility form without the marks of Latin, Greek and Cyrillic letters; other scripts composed again."""
    apart = unicodedata.normalize("NFKD", _LOOKALIKES.get(character, character))
    bare = "".join(one for one in apart if ord(one) not in _DRESSING)
    return " ".join(part for part in unicodedata.normalize("NFKC", bare).split(" ") if part) if bare.strip() else ""


def _lookalike(character: str) -> str:
    return _LOOKALIKES.get(character, character)


def _lower_unless_ascii(text: str) -> str:
    """Small letters, but ASCII capitals stay: a word all in capitals is a signal that is read later."""
    return "".join(one if one.isascii() else one.lower() for one in text)


@dataclass(frozen=True)
class FoldingTable:
    """`reading` for every code point, as arrays.

    Attributes:
        page_block: int32 [4352], the block of each page of 256 code points.
        blocks: int32 [blocks, 256], what to add to a code point to get its entry. An entry is a code point, or
            `CODE_POINTS` plus the number of an expansion, or negative: read as nothing. Pages alike share a block.
        expansion_lengths: int32 [expansions], code points of each expansion.
        expansion_starts: int32 [expansions], where each begins in `expansion_values`.
        expansion_values: int32 [sum of lengths], their code points.
    """

    page_block: npt.NDArray[np.int32]
    blocks: npt.NDArray[np.int32]
    expansion_lengths: npt.NDArray[np.int32]
    expansion_starts: npt.NDArray[np.int32]
    expansion_values: npt.NDArray[np.int32]


_NOTHING = -2 * CODE_POINTS
# Beyond these are ideographs, which are read as themselves, and unassigned code points.
_LOOKED_AT = (range(0x80, 0xD800), range(0xE000, 0x20000), range(0x2F800, 0x2FA20), range(0xE0000, 0xE0200))


@functools.cache
def folding_table() -> FoldingTable:
    """Packs `reading` for all code points: a fraction of a second, once a process."""
    deltas = np.zeros(CODE_POINTS, dtype=np.int32)
    deltas[_PRIVATE_PLANES:] = _NOTHING
    expansions: dict[str, int] = {}
    for code in itertools.chain(range(0x20), (0x7F,), *_LOOKED_AT):
        read = reading(chr(code))
        if not read:
            deltas[code] = _NOTHING
        elif len(read) == 1:
            deltas[code] = ord(read) - code
        else:
            deltas[code] = CODE_POINTS + expansions.setdefault(read, len(expansions)) - code
    numbers: dict[bytes, int] = {}
    page_block = [numbers.setdefault(page.tobytes(), len(numbers)) for page in deltas.reshape(-1, PAGE)]
    blocks = np.frombuffer(b"".join(numbers), np.int32).reshape(-1, PAGE)
    lengths = np.array([len(text) for text in expansions], dtype=np.int32)
    values = np.array([ord(one) for text in expansions for one in text], dtype=np.int32)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    return FoldingTable(np.array(page_block, np.int32), blocks, lengths, starts, values)
