"""Reads rows from CSV and TSV files, and from the layout of the SMS Spam Collection, `label TAB text`."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from models.errors import InputError
from tasks.sources.file_source import FileSource, detect_format
from tasks.sources.replacements import find_header_encoding
from tasks.sources.rows import SourceRow, check_columns, replace_surrogates
from tasks.sources.text_files import LINE_TOO_LONG, read_lines

MAX_RECORD_LENGTH = 16 * 2**20  # characters of one CSV record; also how far an unclosed quote is followed


class Record(NamedTuple):
    """The fields of one row, or its fault, and the number of its first line, from 1."""

    line: int
    fields: Sequence[str]
    fault: str | None = None


@dataclass
class _RecordLines:
    """Feeds lines to a csv reader, and can push back all lines of the current record except the first.

    A quote that is never closed would swallow the rest of the file into one record. With the lines pushed back, only
    the row with the quote is lost.
    """

    lines: Iterator[str | None]
    first_line: int = 1
    record: list[str | None] = field(default_factory=list)
    pushed_back: deque[str | None] = field(default_factory=deque)
    size: int = 0

    def __iter__(self) -> _RecordLines:
        return self

    def __next__(self) -> str:
        line = self.pushed_back.popleft() if self.pushed_back else next(self.lines)
        self.record.append(line)
        self.size += len(line or "")
        if line is None or self.size > MAX_RECORD_LENGTH:
            raise csv.Error(f"more than {MAX_RECORD_LENGTH} characters; is a quote not closed?")
        return line

    def start_record(self) -> None:
        """Starts a new record at the next line."""
        self.first_line += len(self.record)
        self.record.clear()
        self.size = 0

    def push_back(self) -> None:
        """Keeps the first line of the record. The other lines are read again, as the start of new records."""
        self.pushed_back.extendleft(reversed(self.record[1:]))
        del self.record[1:]


def _read_csv_records(source: FileSource) -> Iterator[Record]:
    lines = _RecordLines(read_lines(source, newline=""))
    reader = csv.reader(lines, strict=True)
    while True:
        lines.start_record()
        try:
            yield Record(lines.first_line, next(reader))
        except StopIteration:
            return
        except csv.Error as error:
            lines.push_back()
            yield Record(lines.first_line, (), f"malformed CSV: {error}")


def _read_tab_records(source: FileSource, max_splits: int = -1) -> Iterator[Record]:
    """Yields records without quoting: a quote is a character of the message."""
    for number, line in enumerate(read_lines(source, newline="\n"), 1):
        if line is None:
            yield Record(number, (), LINE_TOO_LONG)
        else:
            text = line.removesuffix("\n").removesuffix("\r")
            yield Record(number, text.split("\t", max_splits) if text else ())


def _convert_records_with_header(source: FileSource, records: Iterator[Record]) -> Iterator[SourceRow]:
    """Yields the rows of a file whose first record is a header."""
    header = next((record for record in records if record.fields or record.fault), None)
    if header is None or header.fault:
        raise InputError(
            f"{source}: expected a header, received {header.fault if header else 'only blank lines'}. "
            f"Give the file a first line with the names of its columns, or correct [{source.section}] format."
        )
    names = [name.strip() for name in header.fields]
    check_columns(str(source), source.section, source.columns, names, _describe_header(source, header.fields))
    return _convert_records(source, names, records)


def _describe_header(source: FileSource, header: Sequence[str]) -> str:
    """Says how the header was read, and names the likely separator if there is only one column."""
    description = f" The file was read as {detect_format(source)} in {source.encoding}"
    if encoding := find_header_encoding(source, header):
        return f"{description}, but seems to be {encoding}: set [{source.section}] encoding = {encoding}."
    for name, separator in (("semicolons", ";"), ("tabs", "\t"), ("commas", ",")):
        if len(header) == 1 and separator in header[0]:
            return f"{description}; its columns seem to be separated by {name}."
    return f"{description}."


def _convert_records(source: FileSource, names: list[str], records: Iterable[Record]) -> Iterator[SourceRow]:
    """Yields the rows of records. A blank line is not a row."""
    column_indices = [(name, names.index(name)) for name in dict.fromkeys(source.columns.values())]
    row_number = 0
    for record in records:
        if record.fields or record.fault:
            row_number += 1
            yield _convert_record(row_number, record, column_indices, len(names))


def _convert_record(row_number: int, record: Record, column_indices: list[tuple[str, int]], width: int) -> SourceRow:
    fields, fault = record.fields, record.fault
    if fault is None and len(fields) != width:
        fault = f"wrong number of fields: expected {width}, received {len(fields)}"
    values = {
        name: replace_surrogates(fields[index]) if index < len(fields) else None for name, index in column_indices
    }
    return SourceRow(row_number, values, fault and f"{fault} (line {record.line})")


def read_csv(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a CSV file with a header.

    Raises:
        InputError: the header is missing or malformed, or lacks a column.
    """
    yield from _convert_records_with_header(source, _read_csv_records(source))


def read_tsv(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a TSV file with a header. Quotes have no special meaning.

    Raises:
        InputError: the header is missing or too long, or lacks a column.
    """
    yield from _convert_records_with_header(source, _read_tab_records(source))


def read_sms(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a file in the layout `label TAB text`, without a header. The text may contain tabs."""
    names = [source.columns["label_column"], source.columns["text_column"]]
    yield from _convert_records(source, names, _read_tab_records(source, max_splits=1))
