"""Counts the rows with replaced characters (U+FFFD), and finds the encoding in which their bytes are text.

Bytes that are invalid in the encoding of a source become U+FFFD, so that one of them does not end the run. The text is
damaged then: both stages that read a source warn of these rows, and fail if there are too many.
"""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from models.errors import InputError, RejectedError
from tasks.scheduler.failures import record_note
from tasks.settings.inputs import CorpusSettings, MessagesSettings
from tasks.sources.file_source import FileSource, detect_format
from tasks.sources.paths import find_files
from tasks.sources.rows import SourceRow

log = logging.getLogger("spamscore")

_REPLACEMENT = "\ufffd"
_TEXT_FORMATS = ("csv", "tsv", "jsonl", "json", "sms")
_EXCERPT = 20  # characters of a text that are shown before and after the replaced one
_HEAD_BYTES = 2**12  # bytes of a file from which UTF-16 is recognized
_SAMPLE_BYTES = 2**16  # bytes of invalid lines from which the encoding is guessed
_MAX_LINE_BYTES = 2**16  # a longer line is read in parts
# Tried in this order where the lines are not Western European text; charset-normalizer decides between them.
_OTHER_ENCODINGS = ("cp1250", "cp1251", "cp1253", "mac_roman", "cp850", "gb18030", "cp932", "cp949", "big5")
# Capitals and symbols within words: text in another encoding that is read as cp1252 has them.
_MISREAD = re.compile("(?<=[a-zß-ÿœšž])(?:[À-ÖØ-ÞŒŠŽŸ]|[¡-³µ¶¸-¿×÷€‚ƒ„†‡ˆ‰‹“”•˜™›](?=[a-zß-ÿœšž]))")  # noqa: RUF001
_MAX_MISREAD_SHARE = 0.1  # of the characters beyond ASCII, in Western European text


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
    files = [file for file in _list_files(section, settings) if detect_format(file) in _TEXT_FORMATS]
    if not files:
        return "The file has U+FFFD itself, or values that are not UTF-8. Correct the program that writes it"
    return _describe_lines(section, find_invalid_lines(files))


def _list_files(section: str, settings: CorpusSettings | MessagesSettings) -> list[FileSource]:
    """Returns the files that were read, each with its format and the encoding it was read in."""
    return [FileSource(section, path, {}, settings.format, settings.encoding) for path in find_files(settings.path)]


def _open_bytes(source: FileSource) -> IO[bytes]:
    return source.path.open("rb")


@dataclass
class InvalidLines:
    """The lines of text files that are invalid in the encoding of their file.

    Attributes:
        encoding: the encoding in which the files were read.
        count: how many invalid lines there are.
        valid: how many other lines have characters beyond ASCII.
        first: the first invalid line: its number, from 1, and its file if there are several.
        head: the first bytes of the file of the first invalid line, or of the last file.
        sample: the first of the invalid lines, as bytes; at most about `_SAMPLE_BYTES`.
    """

    encoding: str = ""
    count: int = 0
    valid: int = 0
    first: str = ""
    head: bytes = b""
    sample: list[bytes] = field(default_factory=list)
    _size: int = 0

    def add(self, line: bytes, place: str) -> None:
        """Adds an invalid line, or a part of one."""
        self.first = self.first or place
        self.count += 1
        if self._size < _SAMPLE_BYTES:
            self.sample.append(line)
            self._size += len(line)


def find_invalid_lines(files: Sequence[FileSource]) -> InvalidLines:
    """Reads text files again as bytes, and collects the lines that are invalid in the encoding of their file."""
    lines = InvalidLines()
    for file in files:
        if not lines.count:
            lines.encoding = file.encoding
            with _open_bytes(file) as content:
                lines.head = content.read(_HEAD_BYTES)
        _add_lines(lines, file, f" of {file.path}" if len(files) > 1 else "")
    return lines


def _add_lines(lines: InvalidLines, file: FileSource, where: str) -> None:
    if not _extends_ascii(file.encoding):
        if not _guess_utf_16(lines.head):
            lines.add(lines.head[: lines.head.rfind(b"\n") + 1], f"line 1{where}")
        return
    number = 1
    with _open_bytes(file) as content:
        for line in _split_lines(content):
            if not line.isascii() and not _is_valid(line, file.encoding):
                lines.add(line, f"line {number:,}{where}")
            elif not line.removeprefix(codecs.BOM_UTF8).isascii():
                lines.valid += 1
            number += line.endswith(b"\n")


def _split_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yields the lines of a file, longer ones in parts that do not end within a character of UTF-8."""
    while line := file.readline(_MAX_LINE_BYTES):
        for _ in range(3):
            line += file.read(1) if line[-1] > 127 else b""
        yield line


def _is_valid(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeError:
        return False
    return True


def find_header_encoding(source: FileSource, header: Iterable[str]) -> str | None:
    """Returns the encoding in which the header of a file is text; None if it is the one with which it was read."""
    joined = "".join(header)
    if joined.isascii() and "\0" not in joined:
        return None
    lines = find_invalid_lines([source])
    if not lines.count:
        return _guess_utf_16(lines.head) if _extends_ascii(source.encoding) else None
    return suggest_encoding(b"".join(lines.sample), lines.head)


def _extends_ascii(encoding: str) -> bool:
    return b"a\n".decode(encoding, "replace") == "a\n"


def suggest_encoding(sample: bytes, head: bytes) -> str | None:
    """Returns the encoding in which lines are most likely text; None if there is none.

    A Western European encoding is preferred: lines of a few words are too short for statistics.

    Args:
        sample: lines that are invalid in the encoding with which they were read.
        head: the first bytes of the file.
    """
    from charset_normalizer import from_bytes

    if _is_valid(sample, "utf-8"):
        return "utf-8"
    if encoding := _guess_utf_16(head):
        return encoding
    if _is_western(sample):
        return "cp1252"
    match = from_bytes(sample, cp_isolation=list(_OTHER_ENCODINGS)).best()
    if match is None:
        return "cp1252" if _is_valid(sample, "cp1252") else None
    return codecs.lookup(match.encoding).name


def _guess_utf_16(head: bytes) -> str | None:
    """Returns the variant of UTF-16 in which a file begins; None if it is another encoding."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) <= len(head) / 8:
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


def _is_western(sample: bytes) -> bool:
    """Returns whether lines, read as cp1252, look like Western European text.

    Most letters of this text are ASCII, and its words have no symbol or capital inside. Greek, Cyrillic and Asian texts
    have hardly any ASCII letter.
    """
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    special = [character for character in text if not character.isascii()]
    letters = sum(character.isalpha() for character in text)
    accented = sum(character.isalpha() for character in special)
    return accented <= letters / 2 and len(_MISREAD.findall(text)) <= _MAX_MISREAD_SHARE * len(special)


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
