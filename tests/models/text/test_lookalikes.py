"""What a character is read as, held to Unicode's own names and properties, and the table packed from it."""

from __future__ import annotations

import itertools
import re
import sys
import unicodedata

import numpy as np
import pytest

from models.text.lookalikes import CODE_POINTS, PAGE, FoldingTable, fold_character, folding_table

CHARACTERS = [chr(code) for code in range(CODE_POINTS) if not 0xD800 <= code < 0xE000]
ASSIGNED = [one for one in CHARACTERS if unicodedata.category(one) not in ("Cn", "Co")]
# Half a million private-use and as many unassigned code points are packed alike; a few of each plane stand for them.
SAMPLE = ASSIGNED[:: 1 if len(ASSIGNED) < 200_000 else 2] + CHARACTERS[::4099] + [chr(sys.maxunicode)]
STYLED = re.compile(
    r"(?:FULLWIDTH LATIN|MATHEMATICAL [A-Z -]+|CIRCLED LATIN|(?:NEGATIVE )?(?:SQUARED|CIRCLED) LATIN(?= CAPITAL)) "
    r"(CAPITAL|SMALL)(?: LETTER)? ([A-Z])|REGIONAL INDICATOR SYMBOL LETTER ([A-Z])"
)


def packed(table: FoldingTable, character: str) -> str:
    """What the table says a character is read as."""
    code = ord(character)
    entry = code + int(table.blocks[table.page_block[code // PAGE], code % PAGE])
    if entry < 0:
        return ""
    if entry < CODE_POINTS:
        return chr(entry)
    start, length = (int(row[entry - CODE_POINTS]) for row in (table.expansion_starts, table.expansion_lengths))
    return "".join(map(chr, table.expansion_values[start : start + length]))


def test_the_table_reads_every_character_as_the_function_does() -> None:
    table = folding_table()
    assert [one for one in SAMPLE if packed(table, one) != fold_character(one)] == []


def test_the_table_is_small_enough_to_travel_with_a_model() -> None:
    table = folding_table()
    arrays = (table.page_block, table.blocks, table.expansion_lengths, table.expansion_starts, table.expansion_values)
    assert all(array.dtype == np.int32 for array in arrays)
    assert sum(array.nbytes for array in arrays) < 500_000


def test_printable_ascii_is_read_as_itself() -> None:
    for code in range(0x20, 0x7F):
        assert fold_character(chr(code)) == chr(code)


def test_nothing_read_holds_a_capital_but_ascii_or_a_space_but_the_plain_one() -> None:
    for character in SAMPLE:
        read = fold_character(character)
        assert read == " " or read == " ".join(read.split()), hex(ord(character))
        assert all(one.isascii() or one == one.lower() for one in read), hex(ord(character))
        assert not any(unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp", "Cs") for one in read), hex(ord(character))


def test_styled_letters_are_read_as_the_letter_in_their_unicode_name() -> None:
    found = [(one, STYLED.fullmatch(unicodedata.name(one, ""))) for one in ASSIGNED]
    letters = [(one, name[2] or name[3], name[1]) for one, name in found if name]
    assert len(letters) > 800
    for character, letter, case in letters:
        assert fold_character(character) == (letter.lower() if case == "SMALL" else letter), unicodedata.name(character)


def test_an_accented_letter_is_read_as_its_base() -> None:
    name = re.compile(r"LATIN (?:CAPITAL|SMALL) LETTER [A-Z] WITH (?!MIDDLE DOT|SMALL LETTER)")
    composed = [one for one in ASSIGNED if name.match(unicodedata.name(one, "")) and unicodedata.decomposition(one)]
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
def test_look_alikes_are_read_as_what_they_look_like(disguise: str, plain: str) -> None:
    assert "".join(map(fold_character, disguise)) == plain


INVISIBLE = (
    "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u2066\u061c\u180e\ufe0f\U000e0101\u034f\u115f\u3164\uffa0\U000e0041"
    "\ue000\U000f0000\U0010ffff\u0301\u20dd\U0001f3fb"
)
SPACES = "".join(map(chr, range(0x20))) + "\x7f\x81\x8d\xa0\u2003\u2028\u2029\u3000\u2800"


def code_point(character: str) -> str:
    return f"U+{ord(character):04X}"


@pytest.mark.parametrize("character", INVISIBLE, ids=code_point)
def test_what_is_drawn_as_nothing_is_read_as_nothing(character: str) -> None:
    assert fold_character(character) == ""


@pytest.mark.parametrize("character", SPACES, ids=code_point)
def test_controls_and_white_space_are_read_as_a_space(character: str) -> None:
    assert fold_character(character) == " "


def test_windows_1252_taken_for_latin_1_is_read_as_what_was_meant() -> None:
    for code in range(0x80, 0xA0):
        meant = bytes([code]).decode("cp1252", "ignore")
        assert fold_character(chr(code)) == (fold_character(meant) if meant else " ")


def test_vowel_signs_of_other_scripts_stay() -> None:
    hindi, thai = "हिन्दी", "ภาษาไทย"
    assert "".join(map(fold_character, hindi)) == hindi
    assert "".join(map(fold_character, thai)) == thai


def test_letters_of_scripts_that_are_no_look_alikes_stay() -> None:
    for character in itertools.chain("ждщюя", "δθλξπσψ", "אבגד", "日本語", "한국어", "ひらがな"):
        assert fold_character(character) == character
