"""Counts the rows with replaced characters (U+FFFD), and finds the encoding in which their bytes are text.

Bytes that are invalid in the encoding of a source become U+FFFD, so that one of them does not end the run. The text is
damaged then: both stages that read a source warn of these rows, and fail if there are too many.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from models.errors import InputError, RejectedError
from tasks.scheduler.failures import record_note
from tasks.settings.inputs import CorpusSettings, MessagesSettings
from tasks.sources.content import identify
from tasks.sources.file_source import FileSource
from tasks.sources.formats.encodings import InvalidLines, find_invalid_lines, suggest_encoding
from tasks.sources.paths import find_files
from tasks.sources.rows import SourceRow
from tasks.storage.stored_objects import locate

log = logging.getLogger("spamscore")

_REPLACEMENT = "\ufffd"
_TEXT_FORMATS = ("csv", "tsv", "jsonl", "json", "sms", "sms_backup")
_EXCERPT = 20  # characters of a text that are shown before and after the replaced one


@dataclass
class ReplacedRows:
    """Counts the rows of a source that have a replaced character in any of their columns.

    Attributes:
        rows: all rows.
        replaced: rows with U+FFFD.
        first: the first of them: its row number, column, and the text around the character.
    """

    rows: int = 0
    replaced: int = 0
    first: str = ""

    def count(self, rows: Iterable[SourceRow]) -> Iterator[SourceRow]:
        """Yields the rows and counts them."""
        for row in rows:
            self.rows += 1
            for name, value in row.values.items():
                if value is not None and not value.isascii() and _REPLACEMENT in value:
                    self.replaced += 1
                    self.first = self.first or f"row {row.row_number}, column {name}: {_excerpt(value)}"
                    break
            yield row

    def check(self, section: str, settings: CorpusSettings | MessagesSettings) -> None:
        """Warns of the rows with replaced characters, in the log and on the last lines of the run.

        Args:
            section: corpus or messages.
            settings: the settings of the section, with path, format and encoding of the file that was read.

        Raises:
            InputError: their share is greater than ``max_replaced_share``; of messages, it is a RejectedError.
        """
        if not self.replaced:
            return
        source = f"[{section}] query" if settings.source == "sql" else f"[{section}] path = {settings.path}"
        found = f"{source}: {self.replaced:,} of {self.rows:,} rows ({self.replaced / self.rows:.1%}) have characters "
        found += "that could not be read and are U+FFFD"
        cause = describe_cause(section, settings)
        if self.replaced > settings.max_replaced_share * self.rows:
            raise (RejectedError if section == "messages" else InputError)(
                f"{found}, more than [{section}] max_replaced_share = {settings.max_replaced_share:g} allows; first in "
                f"{self.first}. {cause}, or raise the limit."
            )
        result = "are refused" if section == "corpus" else "are scored with U+FFFD in the text"
        warning = f"{found}; first in {self.first}. These rows {result}. {cause}"
        log.warning("%s", warning)
        record_note(warning)


def describe_cause(section: str, settings: CorpusSettings | MessagesSettings) -> str:
    """Says why characters were replaced and what to do, without a full stop at the end.

    Args:
        section: corpus or messages.
        settings: the settings of the section, with path, format and encoding of the file that was read.
    """
    if settings.source == "sql":
        return (
            "The database has U+FFFD itself, or bytes that are not UTF-8. Correct these values in the database, or "
            f"leave them out in [{section}] query"
        )
    files = [file for file in _list_files(section, settings) if file.format in _TEXT_FORMATS]
    if not files:
        return "The file has U+FFFD itself, or values that are not UTF-8. Correct the program that writes it"
    return _describe_lines(section, find_invalid_lines(files))


def _list_files(section: str, settings: CorpusSettings | MessagesSettings) -> list[FileSource]:
    """Returns the files that were read, each with its format and the encoding it was read in."""
    files = find_files(locate(settings.path, f"[{section}] path"))
    return [identify(FileSource(section, path, {}, settings.format, settings.encoding)) for path in files]


def _describe_lines(section: str, lines: InvalidLines) -> str:
    setting = f"[{section}] encoding"
    if not lines.count:
        return (
            f"The file is valid {lines.encoding}: it has U+FFFD itself, or halves of surrogate pairs. Correct the "
            "program that writes it"
        )
    encoding = suggest_encoding(b"".join(lines.sample), lines.head)
    found = f"Lines of the file that are not valid {lines.encoding}: {lines.count:,}, first {lines.first}"
    if encoding is None:
        return f"{found}; no other encoding fits. Ask for the encoding of the file and set {setting}"
    # A line feed is two bytes in UTF-16: lines that are split at one byte do not begin with a character.
    line = lines.head if encoding.startswith("utf-16") else lines.sample[0]
    found += f". They seem to be {encoding}, in which it reads {_decode_excerpt(line, lines.encoding, encoding)}"
    if lines.valid:
        return (
            f"{found}. Other lines with characters beyond ASCII, valid {lines.encoding}: {lines.valid:,}. If the file "
            f"mixes encodings, write it in one; otherwise set {setting} = {encoding}. Run again"
        )
    return f"{found}. Set {setting} = {encoding} and run again"


def _decode_excerpt(line: bytes, invalid_encoding: str, encoding: str) -> str:
    """Decodes the part of a line around its first byte that is invalid in one encoding, in another one."""
    try:
        line.decode(invalid_encoding)
        start = 0
    except UnicodeDecodeError as error:
        start = len(line[: error.start].decode(encoding, "replace"))
    return _excerpt(line.decode(encoding, "replace").rstrip(), start)


def _excerpt(text: str, start: int | None = None) -> str:
    """Returns the part of a text around a position, by default its first replaced character, quoted."""
    start = text.index(_REPLACEMENT) if start is None else start
    begin, end = max(0, start - _EXCERPT), start + _EXCERPT + 1
    return repr(f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}")
