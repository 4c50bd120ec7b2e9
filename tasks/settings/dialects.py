"""Declares and checks the settings of the dialect of a CSV or TSV file, which [corpus] and [messages] share."""

from __future__ import annotations

from typing import Any

from models.errors import SettingsError
from models.settings import setting

# The words for delimiters in luigi.cfg, where spaces and tabs around a value are removed.
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|", r"\t": "\t"}


def delimiter_setting() -> Any:
    """Declares ``delimiter``."""
    return setting(
        "auto",
        r"separator of the columns of a CSV or TSV file: comma, semicolon, tab (or \t), pipe or any one character; "
        "auto is comma for CSV and tab for TSV if the header then has all columns of this section; if not, the one of "
        "comma, semicolon, tab and pipe with which it has them",
    )


def quote_setting() -> Any:
    """Declares ``quote``."""
    return setting(
        "auto",
        "character around fields of a CSV or TSV file, doubled inside them; none for files without quoting; auto is "
        "the double quote for CSV and none for TSV, where it also rejects rows with a field that seems to be quoted",
    )


def escape_setting() -> Any:
    """Declares ``escape``."""
    return setting(
        "none",
        "character before an escaped character of a CSV or TSV file, usually a backslash; in a file without quoting, "
        "b, f, n, r, t, v and 0 after it are control characters, as mysql --batch and COPY write them, and a line "
        "break after it belongs to the field; none for no escapes",
    )


def null_setting() -> Any:
    """Declares ``null``."""
    return setting(
        "",
        "values, separated by commas, that stand for a missing value in a CSV or TSV file, in quotes or not, such as "
        r"\N or NULL; compared before escapes are decoded; without a value here, rows with a field \N are rejected",
    )


def check_dialect(section: str, delimiter: str, quote: str, escape: str) -> None:
    """Checks that the settings of a dialect are words or single characters, and that the characters differ.

    Args:
        section: section of luigi.cfg.
        delimiter: auto, a word of `DELIMITERS` or a character.
        quote: auto, none or a character.
        escape: none or a character.

    Raises:
        SettingsError: they are not. Names the setting, its value and what is expected.
    """
    delimiter = DELIMITERS.get(delimiter, delimiter)
    _check_character(section, "delimiter", delimiter, "auto, comma, semicolon, tab, pipe")
    _check_character(section, "quote", quote, "auto, none")
    _check_character(section, "escape", escape, "none")
    quote = '"' if quote == "auto" else quote
    characters = {"delimiter": delimiter, "quote": quote, "escape": escape}
    for key, other in (("quote", "delimiter"), ("escape", "delimiter"), ("escape", "quote")):
        if characters[key] == characters[other] != "none":
            raise SettingsError(
                f"[{section}] {key} = {characters[key]}: expected another character than that of [{section}] {other}. "
                f"Correct one of them; a quote that is doubled inside quotes needs no escape."
            )


def _check_character(section: str, key: str, value: str, words: str) -> None:
    is_character = len(value) == 1 and not value.isalnum() and value not in "\r\n\0"
    if not is_character and value not in words.split(", "):
        raise SettingsError(
            f"[{section}] {key} = {value}: expected {words} or one character that is not a letter or digit. "
            f"Correct [{section}] {key}."
        )
