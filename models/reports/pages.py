"""Loads the page templates and makes untrusted text safe to show. All HTML reports share this module.

A page is a template in `templates/` that extends `base.html`, with a layout for phones and a dark mode. The HTML file
needs no other file, and its Content-Security-Policy forbids every request. All values are escaped. Invisible characters
and characters that change the text direction are written as [U+…].
"""

from __future__ import annotations

import re

import jinja2

SHOWN_CHARACTERS = 500
# Invisible characters that Unicode classifies as letters, marks or symbols, so that `str.isprintable` accepts them.
# From Default_Ignorable_Code_Point in DerivedCoreProperties.txt, and the blank Braille cell. The two variation
# selectors of emoji are allowed.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
SPELLED_OUT = re.compile(r"(\[U\+[0-9A-F]{4,6}\])")


def load_template(name: str) -> jinja2.Template:
    """Returns a template by its file name. In a template, the filter `visible` applies `spell_out` to a value."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("models.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = lambda value: spell_out(format_value(value))
    return environment.get_template(name)


def format_value(value: object) -> str:
    """Formats a value of a settings or data table: a float with six significant digits, all others as `str` does."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def spell_out(text: str) -> str:
    """Replaces invisible characters and those that change the text direction by [U+…]; keeps tabs and line ends.

    For any input, the result can be encoded as UTF-8 and reads in the order in which it is stored.
    """
    return "".join(_spell_out_character(character) for character in text)


def _spell_out_character(character: str) -> str:
    if character in "\n\t" or (character.isprintable() and not INVISIBLE.match(character)):
        return character
    return f"[U+{ord(character):04X}]"


def quote_message(text: str) -> tuple[tuple[str, ...], int]:
    """Returns the start of a message as alternating text and [U+…] marks, and the number of characters left out."""
    return tuple(SPELLED_OUT.split(spell_out(text[:SHOWN_CHARACTERS]))), max(len(text) - SHOWN_CHARACTERS, 0)
