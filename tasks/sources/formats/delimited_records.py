"""Splits the lines of CSV and TSV files into the fields of records, by the dialect of the file.

`tasks.sources.formats.delimited` finds the dialect and converts records to rows.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.sources.text_files import LINE_TOO_LONG

MAX_RECORD_LENGTH = 16 * 2**20  # characters of one record; also how far an unclosed quote is followed

_RECORD_TOO_LONG = f"row too long: more than {MAX_RECORD_LENGTH} characters"

# What a character means after the escape character of a file without quoting: PostgreSQL's COPY and MySQL's LOAD DATA
# agree on these. Any other character means itself.
_CONTROL_CHARACTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
# Stands for a carriage return in the middle of a line, which csv.reader would refuse outside quotes. Decoded text
# contains no lone surrogate.
_CARRIAGE_RETURN = "\udc0d"
# A field that can be read in two ways if it is not known whether the file has quoting: "text", ""text"" or "text
_QUOTED_OR_OPEN = re.compile(r'"(?:[^"]++|"")*+"?')

SEEMS_QUOTED = "field begins with a quotation mark"
MALFORMED_QUOTING = "malformed CSV"


class Syntax(NamedTuple):
    """The characters of a dialect.

    Attributes:
        delimiter: between two fields.
        quote: around a field; None for a file without quoting.
        escape: before an escaped character; None for no escapes.
        nulls: fields that stand for a missing value.
        rejects_quotes: whether a record with a field that seems to be quoted has a fault; for files without quoting.
    """

    delimiter: str
    quote: str | None = None
    escape: str | None = None
    nulls: Sequence[str] = ()
    rejects_quotes: bool = False


# (number of its first line from 1, its fields with None for a null, its fault). A plain tuple, because there is one for
# each row of a file.
Record = tuple[int, Sequence[str | None], str | None]


def split_records(lines: Iterator[str | None], syntax: Syntax, first_line: int = 1) -> Iterator[Record]:
    """Yields the record of each row. A blank line is a record without fields and fault.

    Args:
        lines: the lines with their line ends; None for a line that is too long.
        syntax: the characters of the dialect.
        first_line: number of the first line.
    """
    if syntax.quote:
        return _split_quoted(_RecordLines(lines, first_line), syntax)
    if syntax.escape:
        return _split_escaped(lines, syntax, first_line)
    return split_plain(lines, syntax, first_line)


def split_plain(
    lines: Iterator[str | None], syntax: Syntax, first_line: int = 1, max_splits: int = -1
) -> Iterator[Record]:
    """Yields the records of a file without quoting and escapes; a quote is a character of the text.

    Args:
        lines: as for `split_records`.
        syntax: the characters of the dialect.
        first_line: number of the first line.
        max_splits: number of delimiters that separate fields; further ones belong to the last field; -1 for all.
    """
    for number, line in enumerate(lines, first_line):
        if line is None:
            yield number, (), LINE_TOO_LONG
            continue
        text = _remove_line_end(line)
        fields: Sequence[str | None] = text.split(syntax.delimiter, max_splits) if text else ()
        fault = None
        if syntax.rejects_quotes and '"' in text:
            fault = SEEMS_QUOTED if any(map(_QUOTED_OR_OPEN.fullmatch, text.split(syntax.delimiter))) else None
        for null in syntax.nulls:
            if null in fields:
                fields = [None if value == null else value for value in fields]
        yield number, fields, fault


def _remove_line_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _split_escaped(lines: Iterator[str | None], syntax: Syntax, first_line: int) -> Iterator[Record]:
    """Yields the records of a file with escapes but without quoting."""
    delimiter, escape = re.escape(syntax.delimiter), re.escape(syntax.escape or "")
    find_fields = re.compile(rf"{delimiter}((?:[^{delimiter}{escape}]++|{escape}.)*+)", re.DOTALL).findall
    find_escapes = re.compile(rf"{escape}(.)", re.DOTALL)

    def decode(text: str) -> str:
        return find_escapes.sub(lambda match: _CONTROL_CHARACTERS.get(match[1], match[1]), text)

    for number, text, fault in _join_continued_lines(lines, syntax.escape or "", first_line):
        fields = find_fields(syntax.delimiter + text) if text else ()
        yield number, [None if value in syntax.nulls else decode(value) for value in fields], fault


def _join_continued_lines(
    lines: Iterator[str | None], escape: str, first_line: int
) -> Iterator[tuple[int, str, str | None]]:
    """Yields (number of the first line, text, fault) for lines that are joined where a line end is escaped."""
    parts: list[str] = []
    start, size, is_continued = first_line, 0, False
    for number, line in enumerate(lines, first_line):
        if not is_continued:
            start, size = number, 0
        size += MAX_RECORD_LENGTH + 1 if line is None else len(line)
        text = _remove_line_end(line or "")
        is_continued = (len(text) - len(text.rstrip(escape))) % 2 == 1
        if size > MAX_RECORD_LENGTH:
            parts.clear()
        else:
            parts.append((line or "") if is_continued else text)
        if not is_continued:
            yield start, "".join(parts), _RECORD_TOO_LONG if size > MAX_RECORD_LENGTH else None
            parts.clear()
    if is_continued:
        yield start, "", "unfinished escape: the file ends after an escape character"


@dataclass
class _RecordLines:
    """Feeds lines to a csv reader, and can push back all lines of the current record except the first.

    A quote that is never closed would swallow the rest of the file into one record. With the lines pushed back, only
    the row with the quote is lost.
    """

    lines: Iterator[str | None]
    first_line: int
    record: list[str | None] = field(default_factory=list)
    pushed_back: deque[str | None] = field(default_factory=deque)
    size: int = 0
    has_carriage_return: bool = False

    def __iter__(self) -> _RecordLines:
        return self

    def __next__(self) -> str:
        line = self.pushed_back.popleft() if self.pushed_back else next(self.lines)
        self.record.append(line)
        self.size += len(line or "")
        if line is None or self.size > MAX_RECORD_LENGTH:
            raise csv.Error(f"more than {MAX_RECORD_LENGTH} characters; is a quote not closed?")
        return self._replace_carriage_returns(line) if "\r" in line else line

    def _replace_carriage_returns(self, line: str) -> str:
        text = line.rstrip("\r\n")
        if "\r" not in text:
            return line
        self.has_carriage_return = True
        return text.replace("\r", _CARRIAGE_RETURN) + line[len(text) :]

    def start_record(self) -> None:
        """Starts a new record at the next line."""
        self.first_line += len(self.record)
        self.record.clear()
        self.size = 0
        self.has_carriage_return = False

    def push_back(self) -> None:
        """Keeps the first line of the record. The other lines are read again, as the start of new records."""
        self.pushed_back.extendleft(reversed(self.record[1:]))
        del self.record[1:]


def _split_quoted(lines: _RecordLines, syntax: Syntax) -> Iterator[Record]:
    """Yields the records of a file with quoting, with csv.reader."""
    reader = csv.reader(
        lines, delimiter=syntax.delimiter, quotechar=syntax.quote, escapechar=syntax.escape, strict=True
    )
    escapes = re.compile(re.escape(syntax.escape or "") + "(.)") if syntax.escape else None
    # csv.reader returns N for \N if the backslash is the escape character.
    nulls = [escapes.sub(r"\1", null) if escapes else null for null in syntax.nulls]
    while True:
        lines.start_record()
        try:
            texts = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            lines.push_back()
            yield lines.first_line, (), f"{MALFORMED_QUOTING}: {error}"
            continue
        if lines.has_carriage_return:
            texts = [text.replace(_CARRIAGE_RETURN, "\r") for text in texts]
        fields: Sequence[str | None] = texts
        for null in nulls:
            if null in texts:
                written = _written_fields(lines.record, syntax) if syntax.escape else texts
                fields = [None if raw in syntax.nulls else text for text, raw in zip(texts, written, strict=True)]
                break
        yield lines.first_line, fields, None


def _written_fields(record: Sequence[str | None], syntax: Syntax) -> list[str]:
    """Returns the fields of a record without quotes, but with their escapes, which csv.reader removes.

    Args:
        record: the lines of a valid record.
        syntax: the characters of the dialect, with an escape character.
    """
    delimiter, quote, escape = (re.escape(character or "") for character in syntax[:3])
    quoted = rf"{quote}((?:[^{quote}{escape}]++|{escape}.|{quote}{quote})*+){quote}"
    plain = rf"((?:[^{delimiter}{escape}]++|{escape}.?)*+)"
    text = syntax.delimiter + "".join(filter(None, record)).rstrip("\r\n")
    return [match[1] or match[2] or "" for match in re.finditer(f"{delimiter}(?:{quoted}|{plain})", text, re.DOTALL)]
