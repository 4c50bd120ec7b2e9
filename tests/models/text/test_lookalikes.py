"""Folding of characters, checked against Unicode names and properties, and the table that is packed from it."""

from __future__ import annotations

import itertools
import re
import sys
import unicodedata

import numpy as np
import pytest

from models.text.lookalikes import CODE_POINTS, PAGE, FoldingTable, fold_character, folding_table

CHARACTERS = [chr(code) for code in range(CODE_POINTS) if not 0xD800 <= code < 0xE000]
ASSIGNED = [letter for letter in CHARACTERS if unicodedata.category(letter) not in ("Cn", "Co")]
# Half a million private-use and as many unassigned code points are packed in the same way; each plane is sampled.
SAMPLE = ASSIGNED[:: 1 if len(ASSIGNED) < 200_000 else 2] + CHARACTERS[::4099] + [chr(sys.maxunicode)]
STYLED = re.compile(
    r"(?:FULLWIDTH LATIN|MATHEMATICAL [A-Z -]+|CIRCLED LATIN|(?:NEGATIVE )?(?:SQUARED|CIRCLED) LATIN(?= CAPITAL)) "
    r"(CAPITAL|SMALL)(?: LETTER)? ([A-Z])|REGIONAL INDICATOR SYMBOL LETTER ([A-Z])"
)


def fold_with_table(table: FoldingTable, character: str) -> str:
    """Folds a character with the table."""
    code = ord(character)
    entry = code + int(table.blocks[table.page_block[code // PAGE], code % PAGE])
    if entry < 0:
        return ""
    if entry < CODE_POINTS:
        return chr(entry)
    start, length = (int(row[entry - CODE_POINTS]) for row in (table.expansion_starts, table.expansion_lengths))
    return "".join(map(chr, table.expansion_values[start : start + length]))


def test_the_table_folds_every_character_as_the_function_does() -> None:
    table = folding_table()
    assert [letter for letter in SAMPLE if fold_with_table(table, letter) != fold_character(letter)] == []


def test_the_table_is_small_enough_for_an_exported_model() -> None:
    table = folding_table()
    arrays = (table.page_block, table.blocks, table.expansion_lengths, table.expansion_starts, table.expansion_values)
    assert all(array.dtype == np.int32 for array in arrays)
    assert sum(array.nbytes for array in arrays) < 500_000


def test_printable_ascii_folds_to_itself() -> None:
    for code in range(0x20, 0x7F):
        assert fold_character(chr(code)) == chr(code)


def test_folded_text_has_no_capitals_except_ascii_and_no_white_space_except_spaces() -> None:
    for character in SAMPLE:
        folded = fold_character(character)
        assert folded == " " or folded == " ".join(folded.split()), hex(ord(character))
        assert all(letter.isascii() or letter == letter.lower() for letter in folded), hex(ord(character))
        categories = {unicodedata.category(letter) for letter in folded}
        assert not categories & {"Cc", "Cf", "Zl", "Zp", "Cs"}, hex(ord(character))


def test_styled_letters_fold_to_the_letter_in_their_unicode_name() -> None:
    found = [(letter, STYLED.fullmatch(unicodedata.name(letter, ""))) for letter in ASSIGNED]
    letters = [(letter, name[2] or name[3], name[1]) for letter, name in found if name]
    assert len(letters) > 800
    for character, letter, case in letters:
        assert fold_character(character) == (letter.lower() if case == "SMALL" else letter), unicodedata.name(character)


def test_an_accented_letter_folds_to_its_base() -> None:
    name = re.compile(r"LATIN (?:CAPITAL|SMALL) LETTER [A-Z] WITH (?!MIDDLE DOT|SMALL LETTER)")
    composed = [
        letter for letter in ASSIGNED if name.match(unicodedata.name(letter, "")) and unicodedata.decomposition(letter)
    ]
    assert len(composed) > 400
    for character in composed:
        assert fold_character(character) == fold_character(unicodedata.normalize("NFD", character)[0])


@pytest.mark.parametrize(
    ("disguise", "plain"),
    [
        ("раураӏ", "paypal"),
        ("ВАНК", "BAHK"),
        ("ΡΑΥΡΑ", "PAYPA"),
        ("ѕрасе", "space"),
        ("οκ", "ok"),
        ("ꓝꓣꓰꓰ", "FREE"),
        ("ᖴ", "ᖴ"),
        ("ᴡɪɴ", "win"),
        ("straße", "strasse"),
        ("Ærøskøbing", "AEroskobing"),
        ("ﬁne ﬂag", "fine flag"),
        ("Ⅷ", "VIII"),
        ("№", "No"),
        ("“x” ‘y’ – —", "\"x\" 'y' - -"),
        ("１２３", "123"),
        ("٣ ३ ໓", "3 3 3"),
        ("½", "1/2"),
        ("€", "€"),
        ("…", "..."),
        ("™", "TM"),
    ],
)
def test_look_alikes_fold_to_what_they_look_like(disguise: str, plain: str) -> None:
    assert "".join(map(fold_character, disguise)) == plain


INVISIBLE = (
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u2066\u061c\u180e\ufe0f\U000e0101\u034f\u115f\u3164\uffa0\U000e0041"
    "\ue000\U000f0000\U0010ffff\u0301\u20dd\U0001f3fb"
)
SPACES = "".join(map(chr, range(0x20))) + "\x7f\x81\x8d\xa0\u2003\u2028\u2029\u3000\u2800"


def code_point(character: str) -> str:
    return f"U+{ord(character):04X}"


@pytest.mark.parametrize("character", INVISIBLE, ids=code_point)
def test_invisible_characters_are_dropped(character: str) -> None:
    assert fold_character(character) == ""


@pytest.mark.parametrize("character", SPACES, ids=code_point)
def test_control_characters_and_white_space_fold_to_a_space(character: str) -> None:
    assert fold_character(character) == " "


def test_windows_1252_read_as_latin_1_folds_to_the_intended_character() -> None:
    for code in range(0x80, 0xA0):
        intended = bytes([code]).decode("cp1252", "ignore")
        assert fold_character(chr(code)) == (fold_character(intended) if intended else " ")


def test_vowel_signs_of_other_scripts_stay() -> None:
    hindi, thai = "हिन्दी", "ภาษาไทย"
    assert "".join(map(fold_character, hindi)) == hindi
    assert "".join(map(fold_character, thai)) == thai


def test_letters_of_other_scripts_that_are_not_look_alikes_stay() -> None:
    for character in itertools.chain("ждщюя", "δθλξπσψ", "אבגד", "日本語", "한국어", "ひらがな"):
        assert fold_character(character) == character
