"""Finds the lines of a text file that are invalid in its encoding, and the encoding in which they are text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from tasks.sources.compression import open_bytes
from tasks.sources.file_source import FileSource

_HEAD_BYTES = 2**12  # bytes of a file from which UTF-16 is recognized
_SAMPLE_BYTES = 2**16  # bytes of invalid lines from which the encoding is guessed
_MAX_LINE_BYTES = 2**16  # a longer line is read in parts
# Tried in this order where the lines are not Western European text; charset-normalizer decides between them.
_OTHER_ENCODINGS = ("cp1250", "cp1251", "cp1253", "mac_roman", "cp850", "gb18030", "cp932", "cp949", "big5")
# Capitals and symbols within words: text in another encoding that is read as cp1252 has them.
_MISREAD = re.compile("(?<=[a-zß-ÿœšž])(?:[À-ÖØ-ÞŒŠŽŸ]|[¡-³µ¶¸-¿×÷€‚ƒ„†‡ˆ‰‹“”•˜™›](?=[a-zß-ÿœšž]))")  # noqa: RUF001
_MAX_MISREAD_SHARE = 0.1  # of the characters beyond ASCII, in Western European text


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
            with open_bytes(file) as content:
                lines.head = content.read(_HEAD_BYTES)
        _add_lines(lines, file, f" of {file.path}" if len(files) > 1 else "")
    return lines


def _add_lines(lines: InvalidLines, file: FileSource, where: str) -> None:
    if not _extends_ascii(file.encoding):
        if not _guess_utf_16(lines.head):
            lines.add(lines.head[: lines.head.rfind(b"\n") + 1], f"line 1{where}")
        return
    number = 1
    with open_bytes(file) as content:
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
