"""Tells a JSON array from JSON lines by the beginning of a file, and recognises objects over several lines."""

from __future__ import annotations

import json
import re

from models.errors import InputError
from tasks.sources.file_source import FileSource, detect_format
from tasks.sources.formats.objects import describe_wrapped_array
from tasks.storage.stored_objects import SourcePath

# Numbers stay text: Python refuses to convert an integer of more than 4,300 digits.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
_STRING = r'"(?:[^"\\]|\\.)*"'
# An object whose first value that is no string, number or literal is an array of objects.
_WRAPPED_ARRAY = re.compile(
    rf'\{{\s*(?:{_STRING}\s*:\s*(?:{_STRING}|[\w.+-]+)\s*,\s*)*"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*\{{'
)


def choose_json_format(source: FileSource, text: str) -> str:
    """Returns json or jsonl for a file whose setting or suffix is one of them.

    With format = auto the content decides, because both layouts are found under .json and .jsonl.

    Args:
        source: the file, with the format as it is set.
        text: the beginning of the file.

    Raises:
        InputError: the content does not fit the format that is set, or has objects over several lines.
    """
    text = text.lstrip("\ufeff").lstrip()
    if not text:
        return detect_format(source)
    if text.startswith("{") and _spans_lines(text):
        raise InputError(f"{source}: {_describe_spanning_object(source.path, text)}")
    found = "json" if _is_array(text) else "jsonl"
    if source.format not in ("auto", found):
        raise InputError(
            f"{source}: [{source.section}] format = {source.format}: {_describe_misfit(source, text, found)}"
        )
    return found


def _describe_misfit(source: FileSource, text: str, found: str) -> str:
    layouts = {"json": "one JSON array", "jsonl": "one JSON object a line"}
    received = layouts[found]
    if not text.startswith(("{", "[")):
        received, found = f"text that begins with {text[:20]!r}", "auto"
    description = f"expected {layouts[source.format]}, received {received}. Set [{source.section}] format = {found}."
    wrapped = _WRAPPED_ARRAY.match(text)
    return description + (describe_wrapped_array(source.path, wrapped[1]) if wrapped else "")


def _is_array(text: str) -> bool:
    """Returns whether text that may go on is an array of rows, not a first line that holds an array."""
    if not text.startswith("["):
        return False
    if text[1:].lstrip().startswith("{"):
        return True
    try:
        _, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        end = error.pos
    except RecursionError:
        return True
    return "\n" in text[:end] or "\n" not in text[end:].rstrip()


def _spans_lines(text: str) -> bool:
    """Returns whether the second line continues the object of the first.

    If a first line is damaged instead, the decoder gets no further than the first character of the second.
    """
    _, newline, following = text.partition("\n")
    second_line = len(text) - len(following.lstrip())
    try:
        _, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        end = error.pos
    except RecursionError:
        return False
    return bool(newline) and end > second_line


def _describe_spanning_object(path: SourcePath, text: str) -> str:
    expected = "expected one JSON object a line or one JSON array, received an object over several lines."
    if wrapped := _WRAPPED_ARRAY.match(text):
        return expected + describe_wrapped_array(path, wrapped[1])
    return (
        f"{expected} Write each object on one line, as with jq -c . {path.name} > messages.jsonl, and read that file."
    )
