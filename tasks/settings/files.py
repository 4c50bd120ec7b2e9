"""Finds what is wrong with a configuration file, without Luigi: Luigi reads the files while it is imported.

Luigi skips a file that it may not read, and prints a traceback for one that it cannot parse.
"""

from __future__ import annotations

import codecs
import configparser
import os
import re
from collections.abc import Mapping
from pathlib import Path

# As Luigi reads them; later files override earlier ones.
MACHINE_FILES = ("/etc/luigi/client.cfg", "/etc/luigi/luigi.cfg")
PROJECT_FILES = ("client.cfg", "luigi.cfg")
PATH_VARIABLE, PARSER_VARIABLE = "LUIGI_CONFIG_PATH", "LUIGI_CONFIG_PARSER"

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MAX_SHOWN_CHARACTERS = 60
_MERGE_MARKER = re.compile(r"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)


def find_fault(environment: Mapping[str, str] | None = None) -> str | None:
    """Returns what is wrong with the configuration files, in one line, or None.

    Args:
        environment: the environment variables; those of this process by default.
    """
    variables = os.environ if environment is None else environment
    path = variables.get(PATH_VARIABLE)
    if variables.get(PARSER_VARIABLE) == "toml":
        return (
            f"{PARSER_VARIABLE} = toml: expected cfg or no value, because this project has its settings in luigi.cfg. "
            "Unset the variable, and write the settings of luigi.toml to luigi.cfg."
        )
    if path and Path(path).suffix == ".toml":
        return (
            f"{PATH_VARIABLE} = {path}: expected a file in the format of luigi.cfg, received TOML. Write its settings "
            "to a file such as night.cfg, and name that one."
        )
    if path and not os.path.lexists(path):
        return f"{PATH_VARIABLE} = {path}: no such file. Correct the variable or unset it."
    paths = [Path(name) for name in (*MACHINE_FILES, *PROJECT_FILES, *([path] if path else []))]
    return next((fault for path in paths if os.path.lexists(path) and (fault := _find_file_fault(path))), None)


def _find_file_fault(path: Path) -> str | None:
    try:
        content = path.read_bytes()
    except OSError as error:
        return (
            f"{path}: {error.strerror}, and without it the settings would be others. Make it a file that this user may "
            "read, or remove it."
        )
    if content.startswith(codecs.BOM_UTF8):
        return (
            f"{path}, line 1: a UTF-8 byte order mark, which Luigi cannot read. Save the file as UTF-8 without it: "
            rf"sed -i '1s/^\xef\xbb\xbf//' {path}"
        )
    if content.startswith(_UTF16_MARKS):
        return f"{path}: expected UTF-8, received UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 {path} > new.cfg"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return (
            f"{path}, line {line}: expected UTF-8, received the byte 0x{content[error.start]:02x}. Convert the file: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path} > new.cfg"
        )
    return _find_syntax_fault(path, text)


def _find_syntax_fault(path: Path, text: str) -> str | None:
    if marker := _MERGE_MARKER.search(text):
        line = text.count("\n", 0, marker.start()) + 1
        return f"{path}, line {line}: the marker {marker[1]} of an unresolved merge conflict. Resolve the conflict."
    try:
        parser = configparser.RawConfigParser()
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text)
    except configparser.DuplicateSectionError as error:
        return (
            f"{path}, line {error.lineno}: the section [{error.section}] is there twice. Write all its settings below "
            f"the first one, in line {_find_section(text, error.section)}."
        )
    except configparser.DuplicateOptionError as error:
        return f"{path}, line {error.lineno}: [{error.section}] {error.option} is there twice. Delete one of the lines."
    except configparser.MissingSectionHeaderError as error:
        return _describe_line(path, error.lineno, error.line, "a section, such as [messages], before the first setting")
    except configparser.ParsingError as error:
        number = error.errors[0][0]
        return _describe_line(path, number, text.splitlines()[number - 1], "key = value")
    return None


def _find_section(text: str, section: str) -> int:
    lines = text.splitlines()
    return next(number for number, line in enumerate(lines, 1) if re.match(rf"\[{re.escape(section)}\]", line))


def _describe_line(path: Path, number: int, line: str, expected: str) -> str:
    """Describes a line that cannot be parsed. A line with a password is not shown."""
    shown = line.strip()[:_MAX_SHOWN_CHARACTERS]
    received = "a line with an address or password" if re.search(r"://|pass|secret|token", line) else ascii(shown)
    return f"{path}, line {number}: expected {expected}, received {received}"
