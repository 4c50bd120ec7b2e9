"""Rows of CSV and TSV files, and of the SMS Spam Collection's layout `label TAB text`."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from models.errors import InputError
from tasks.sources.rows import SourceRow, check_columns, replace_surrogates
from tasks.sources.text_files import LINE_TOO_LONG, FileSource, detect_format, read_lines

MAX_RECORD_LENGTH = 16 * 2**20  # characters of one CSV record; also how far a quote that is never closed is followed


class Record(NamedTuple):
    """The fields of one row, or its fault, and the line that it starts on (1-based)."""

    line: int
    fields: Sequence[str]
    fault: str | None = None


@dataclass
class _RecordLines:
    """Feeds lines to a csv reader and keeps those of the record at hand, to give all but the first back.

    A quote that is never closed would swallow the rest of the file into one record; with the lines given back it costs
    the one row that it stands in.
    """

    lines: Iterator[str | None]
    first: int = 1
    record: list[str | None] = field(default_factory=list)
    again: deque[str | None] = field(default_factory=deque)
    size: int = 0

    def __iter__(self) -> _RecordLines:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self.lines)
        self.record.append(line)
        self.size += len(line or "")
        if line is None or self.size > MAX_RECORD_LENGTH:
            raise csv.Error(f"more than {MAX_RECORD_LENGTH} characters; is a quote not closed?")
        return line

    def begin(self) -> None:
        """The next line starts a new record."""
        self.first += len(self.record)
        self.record.clear()
        self.size = 0

    def give_back(self) -> None:
        """Keeps the record's first line and has the others read again, each as the start of a record."""
        self.again.extendleft(reversed(self.record[1:]))
        del self.record[1:]


def _csv_records(source: FileSource) -> Iterator[Record]:
    lines = _RecordLines(read_lines(source, newline=""))
    reader = csv.reader(lines, strict=True)
    while True:
        lines.begin()
        try:
            yield Record(lines.first, next(reader))
        except StopIteration:
            return
        except csv.Error as error:
            lines.give_back()
            yield Record(lines.first, (), f"malformed CSV: {error}")


def _tab_records(source: FileSource, most_splits: int = -1) -> Iterator[Record]:
    """Records without quoting: a quote is a character of the message."""
    for number, line in enumerate(read_lines(source, newline="\n"), 1):
        if line is None:
            yield Record(number, (), LINE_TOO_LONG)
        else:
            text = line.removesuffix("\n").removesuffix("\r")
            yield Record(number, text.split("\t", most_splits) if text else ())


def _headed_rows(source: FileSource, records: Iterator[Record]) -> Iterator[SourceRow]:
    """Rows of a file whose first record is a header."""
    header = next((one for one in records if one.fields or one.fault), None)
    if header is None or header.fault:
        raise InputError(
            f"{source}: expected a header, received {header.fault if header else 'blank lines alone'}. "
            f"Give the file a first line with the names of its columns, or correct [{source.section}] format."
        )
    names = [name.strip() for name in header.fields]
    check_columns(str(source), source.section, source.columns, names, _told(source, header.fields))
    return _rows(source, names, records)


def _told(source: FileSource, header: Sequence[str]) -> str:
    """How the header was read, and a likely reason where it is one single column."""
    told = f" The file was read as {detect_format(source)} in {source.encoding}"
    for name, sign in (("semicolons", ";"), ("tabs", "\t"), ("commas", ",")):
        if len(header) == 1 and sign in header[0]:
            return f"{told}; its columns seem to be separated by {name}."
    return f"{told}."


def _rows(source: FileSource, names: list[str], records: Iterable[Record]) -> Iterator[SourceRow]:
    """Rows of records; a blank line is no row."""
    places = [(name, names.index(name)) for name in dict.fromkeys(source.columns.values())]
    number = 0
    for record in records:
        if record.fields or record.fault:
            number += 1
            yield _row(number, record, places, len(names))


def _row(number: int, record: Record, places: list[tuple[str, int]], width: int) -> SourceRow:
    fields, fault = record.fields, record.fault
    if fault is None and len(fields) != width:
        fault = f"wrong number of fields: expected {width}, received {len(fields)}"
    values = {name: replace_surrogates(fields[place]) if place < len(fields) else None for name, place in places}
    return SourceRow(number, values, fault and f"{fault} (line {record.line})")


def read_csv(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a CSV file."""
    yield from _headed_rows(source, _csv_records(source))


def read_tsv(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a TSV file."""
    yield from _headed_rows(source, _tab_records(source))


def read_sms(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a file in the layout `label TAB text`."""
    names = [source.columns["label_column"], source.columns["text_column"]]
    yield from _rows(source, names, _tab_records(source, most_splits=1))
