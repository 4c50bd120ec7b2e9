"""Reads rows from files with one JSON array of objects, on one line or pretty-printed.

The array is decoded element by element with the decoder of JSON lines, so that both formats give the same values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from models.errors import InputError
from tasks.sources import text_files
from tasks.sources.file_source import FileSource
from tasks.sources.formats.objects import KeyTracker, as_object, convert_object
from tasks.sources.rows import NumberLiteral, SourceRow

BLOCK = 2**16  # characters that are read at a time
_SPACE = re.compile(r"[ \t\r\n]*")

# A cut literal, number or escape sequence is reported where it begins: at most this far before the end of the text.
_LONGEST_TOKEN = 16
_OPEN_STRING = "Unterminated string"
_CUT_OFF = "the file ends before the array does; it was cut off"


def read_json_array(source: FileSource) -> Iterator[SourceRow]:
    """Yields the row of each element. A key that is missing in an object is a missing value.

    Raises:
        InputError: the file is not one whole JSON array, or, after the last row, a column is in no object of it.
    """
    keys = KeyTracker(source)
    with text_files.open_text(source, newline="\n") as file:
        for row_number, (content, fault) in enumerate(_ArrayReader(source, file).elements(), 1):
            keys.add(content)
            yield convert_object(row_number, content, fault, keys.required, source.columns["text_column"])
    keys.check()


class _ArrayReader:
    """Decodes one element at a time, and keeps only the text that is not decoded yet."""

    def __init__(self, source: FileSource, file: TextIO) -> None:
        self._source, self._file = source, file
        self._text, self._position = "", 0
        self._line, self._row = 1, 0
        self._constants: list[str] = []  # NaN and infinities of the current element
        self._decoder = json.JSONDecoder(
            parse_int=NumberLiteral, parse_float=NumberLiteral, parse_constant=self._constants.append
        )

    def elements(self) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Yields each element: an object and None, or what could be read of it and its fault."""
        if self._take_character() != "[":
            raise self._error("expected a JSON array, which begins with [. An array without messages is written []")
        if self._peek_character() == "]":
            self._take_character()
        else:
            yield from self._elements_until_bracket()
        if self._peek_character():
            raise self._error("expected the end of the file, because the array ends here")

    def _elements_until_bracket(self) -> Iterator[tuple[dict[str, Any], str | None]]:
        mark = ","
        while mark == ",":
            self._row += 1
            yield self._take_element()
            mark = self._peek_character()
            if mark not in (",", "]"):
                raise self._error("expected , or ] after the element" if mark else _CUT_OFF)
            self._take_character()

    def _peek_character(self) -> str:
        """Returns the next character that is no white space; an empty string at the end of the file."""
        while True:
            self._position = _SPACE.match(self._text, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_block():
                return ""

    def _take_character(self) -> str:
        character = self._peek_character()
        self._position += len(character)
        return character

    def _take_element(self) -> tuple[dict[str, Any], str | None]:
        self._peek_character()
        while True:
            self._constants.clear()
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except RecursionError:
                raise self._error("the element is nested too deep") from None
            except json.JSONDecodeError as error:
                if not self._may_continue(error) or not self._read_block():
                    raise self._describe(error) from None
            else:
                # A number may go on in the next block: 1 in 1e+5.
                if end < len(self._text) - len("e+") or not self._read_block():
                    self._position = end
                    return as_object(value) if not self._constants else ({}, self._describe_constant())

    def _describe_constant(self) -> str:
        return f"invalid JSON: {self._constants[0]} is not JSON"

    def _may_continue(self, error: json.JSONDecodeError) -> bool:
        """Returns whether the decoder may have failed only because the block ends within the element."""
        return error.msg.startswith(_OPEN_STRING) or error.pos >= len(self._text) - _LONGEST_TOKEN

    def _describe(self, error: json.JSONDecodeError) -> InputError:
        if error.msg.startswith(_OPEN_STRING) or error.pos >= len(self._text.rstrip()):
            return self._error(_CUT_OFF)
        return self._error(f"invalid JSON: {error.msg}", error.pos)

    def _read_block(self) -> bool:
        """Drops what was decoded and reads on; returns False at the end of the file.

        Reads as much as is kept, so that a long element is not decoded again for each block.
        """
        kept = self._text[self._position :]
        if len(kept) > text_files.MAX_LINE_LENGTH:
            raise self._error(f"the element has more than {text_files.MAX_LINE_LENGTH} characters")
        block = self._file.read(max(BLOCK, len(kept)))
        if block:
            self._line += self._text.count("\n", 0, self._position)
            self._text, self._position = kept + block, 0
        return bool(block)

    def _error(self, fault: str, position: int | None = None) -> InputError:
        line = self._line + self._text.count("\n", 0, self._position if position is None else position)
        row = f"row {self._row}, " if self._row else ""
        return InputError(f"{self._source}: {row}line {line}: {fault}. Provide the file again, as one JSON array.")
