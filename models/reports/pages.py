"""What the reports share: one look, for a phone and for the dark, and how a stranger's text gets into a page.

A page is a template of `templates/` that extends `base.html`. Its file needs nothing beside it, and its
Content-Security-Policy lets it fetch nothing. All that is put in is escaped; characters that cannot be seen or that
turn the line around are spelled out.
"""

from __future__ import annotations

import re

import jinja2

SHOWN_CHARACTERS = 500
# Nothing to see, and yet letters, marks or symbols to Unicode, so that `str.isprintable` lets them through. From
# Default_Ignorable_Code_Point in DerivedCoreProperties.txt, and the blank Braille cell; the two variation selectors
# that emoji carry are left alone.
UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]")
SPELLED_OUT = re.compile(r"(\[U\+[0-9A-F]{4,6}\])")


def page(name: str) -> jinja2.Template:
    """A template by its file's name. In it, `|visible` spells a value out."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("models.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = lambda value: spell_out(fact(value))
    return environment.get_template(name)


def fact(value: object) -> str:
    """A value of a settings or data table as text: a float in six digits, all else as Python has it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def spell_out(text: str) -> str:
    """The text with every character that is unseen, or that orders the line anew, as [U+…]; tabs and line ends stay.

    Whatever comes in, what goes out can be encoded as UTF-8 and reads in the order it is stored in.
    """
    return "".join(_spelled(character) for character in text)


def _spelled(character: str) -> str:
    if character in "\n\t" or (character.isprintable() and not UNSEEN.match(character)):
        return character
    return f"[U+{ord(character):04X}]"


def quoted(text: str) -> tuple[tuple[str, ...], int]:
    """The beginning of a message, in turn as it stands and as [U+…] marks, and how many characters are left out."""
    return tuple(SPELLED_OUT.split(spell_out(text[:SHOWN_CHARACTERS]))), max(len(text) - SHOWN_CHARACTERS, 0)
