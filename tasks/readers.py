"""Rows of messages out of files, one at a time: CSV, TSV, JSON lines, Parquet, and the SMS Spam Collection's layout.

`read_file` gives the same `SourceRow` for all of them. A row that is malformed comes with a fault instead of ending the
run or going missing; what is wrong with a file as a whole is an InputError before its first row. Memory is bounded by
the longest row, not by the file. What a row looks like is `tasks.rows`'s part; what it means (label, date, duplicate)
is decided by the stages.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.errors import InputError, SettingsError
from tasks.rows import SourceRow, WrittenNumber, check_columns, kind_of, typed_row, whole_text

MAX_LINE = 128 * 2**20  # characters of one JSON, TSV or sms line; a longer one is a row with a fault
MAX_RECORD = 16 * 2**20  # characters of one CSV record; also how far a quote that is never closed is followed
PARQUET_ROWS = 1024  # rows of a Parquet file decoded at once

# Python's own limit of 131,072 characters refuses a megabyte message. It is one for the whole process.
csv.field_size_limit(MAX_RECORD)

ENDINGS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
# Only a corpus may have the layout "label TAB text"; the Collection goes about without an ending and as .txt.
CORPUS_ENDINGS = {**ENDINGS, "": "sms", ".txt": "sms"}


@dataclass(frozen=True)
class FileSource:
    """A file of messages.

    Attributes:
        section: section of luigi.cfg that names the file: corpus or messages.
        path: the file.
        columns: names of the columns to read, by the setting that names each; ``text_column`` is the message.
        format: csv, tsv, jsonl, parquet, sms, or auto to go by the ending.
        encoding: encoding of any but a Parquet file; bytes outside it become U+FFFD.
    """

    section: str
    path: Path
    columns: Mapping[str, str]
    format: str = "auto"
    encoding: str = "utf-8"

    def __str__(self) -> str:
        return f"[{self.section}] path = {self.path}"


def read_file(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a file, in its order.

    Format, encoding and presence of the file are checked at the call, its header when the first row is asked for.

    Raises:
        SettingsError: the encoding does not exist.
        InputError: the file is missing, empty, damaged, of unknown ending, lacks a column, or changed meanwhile.
    """
    rows = _READERS[file_format(source)]
    check_encoding(source)
    check_file(source)
    return _unchanged(source, rows(source))


def rows_expected(path: Path) -> int | None:
    """About how many rows a file has, quickly: what its footer says, or its line ends; None if that cannot be told."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return int(pq.read_metadata(path).num_rows)
        with path.open("rb") as file:
            return sum(part.count(b"\n") for part in iter(lambda: file.read(2**20), b""))
    except (OSError, pa.ArrowException):
        return None  # who reads it says what is the matter


def file_format(source: FileSource) -> str:
    """The format of a file: the one that is set, or by its ending.

    Raises:
        InputError: the ending is not known.
    """
    if source.format != "auto":
        return source.format
    endings = CORPUS_ENDINGS if source.section == "corpus" else ENDINGS
    found = endings.get(source.path.suffix.lower())
    if found is None:
        raise InputError(
            f"{source}: the ending {source.path.suffix!r} does not tell the layout. Expected "
            f"{', '.join(one for one in endings if one)}. Rename the file or set [{source.section}] format."
        )
    return found


def check_encoding(source: FileSource) -> None:
    """Refuses an encoding that Python cannot read text in.

    Raises:
        SettingsError: naming setting and value.
    """
    try:
        codecs.lookup(source.encoding)
        # Codecs such as rot13, undefined and idna exist and still cannot read a file with bytes to be replaced.
        io.TextIOWrapper(io.BytesIO(), _codec(source.encoding), "replace").read()
    except (LookupError, ValueError):
        raise SettingsError(
            f"[{source.section}] encoding = {source.encoding!r}: no such text encoding. "
            "Expected a name that Python knows, such as utf-8, cp1252, latin-1 or utf-16."
        ) from None


def check_file(source: FileSource) -> None:
    """Refuses a file that is not there or holds nothing.

    Raises:
        InputError: naming setting and file.
    """
    if source.path.is_dir():
        raise InputError(f"{source}: expected a file, received a folder. Name one file in [{source.section}] path.")
    if not source.path.is_file():
        raise InputError(
            f"{source}: no such file (looked in {Path.cwd()}). Provide the file or correct the setting, and run again."
        )
    if source.path.stat().st_size == 0:
        raise InputError(
            f"{source}: expected rows, received an empty file (0 bytes). "
            "Provide it again; a file without messages still has its header or schema."
        )


def _unchanged(source: FileSource, rows: Iterator[SourceRow]) -> Iterator[SourceRow]:
    """Passes rows on and makes sure at the end that nobody wrote to the file meanwhile."""
    before = _state(source.path)
    yield from rows
    if _state(source.path) != before:
        raise InputError(
            f"{source}: the file changed while it was read. "
            "Have it written elsewhere and moved into its place when complete, and run again."
        )


def _state(path: Path) -> tuple[int, int, int] | None:
    """What tells one edition of a file from another without reading it; None when it is gone."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _codec(encoding: str) -> str:
    """The codec to read with: UTF-8 accepts a byte order mark."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


# Lines


@contextlib.contextmanager
def _opened(source: FileSource, newline: str) -> Iterator[TextIO]:
    try:
        with source.path.open(encoding=_codec(source.encoding), errors="replace", newline=newline) as file:
            yield file
    except UnicodeError as error:
        raise InputError(
            f"{source}: cannot be read as {source.encoding}: {error}. Correct [{source.section}] encoding."
        ) from None
    except OSError as error:
        raise InputError(
            f"{source}: cannot be read: {error.strerror or error}. Look at the file's rights and its disk."
        ) from None


def _lines(source: FileSource, newline: str) -> Iterator[str | None]:
    """Yields each line with its end; None stands for one longer than `MAX_LINE`.

    Args:
        source: the file.
        newline: as for `open`: the empty text ends lines at LF, CRLF and CR, a line feed at LF alone.
    """
    with _opened(source, newline) as file:
        while line := file.readline(MAX_LINE):
            if len(line) == MAX_LINE and not line.endswith("\n"):
                _skip_line(file)
                yield None
            else:
                yield line


def _skip_line(file: TextIO) -> None:
    while (rest := file.readline(2**20)) and not rest.endswith("\n"):
        pass


_TOO_LONG = f"row too long: more than {MAX_LINE} characters"


# CSV, TSV, sms


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
        if line is None or self.size > MAX_RECORD:
            raise csv.Error(f"more than {MAX_RECORD} characters; is a quote not closed?")
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
    lines = _RecordLines(_lines(source, newline=""))
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
    for number, line in enumerate(_lines(source, newline="\n"), 1):
        if line is None:
            yield Record(number, (), _TOO_LONG)
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
    told = f" The file was read as {file_format(source)} in {source.encoding}"
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
    values = {name: whole_text(fields[place]) if place < len(fields) else None for name, place in places}
    return SourceRow(number, values, fault and f"{fault} (line {record.line})")


def _csv_rows(source: FileSource) -> Iterator[SourceRow]:
    yield from _headed_rows(source, _csv_records(source))


def _tsv_rows(source: FileSource) -> Iterator[SourceRow]:
    yield from _headed_rows(source, _tab_records(source))


def _sms_rows(source: FileSource) -> Iterator[SourceRow]:
    names = [source.columns["label_column"], source.columns["text_column"]]
    yield from _rows(source, names, _tab_records(source, most_splits=1))


# JSON lines


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_int=WrittenNumber, parse_float=WrittenNumber, parse_constant=_refuse_constant)


def _jsonl_rows(source: FileSource) -> Iterator[SourceRow]:
    """Rows of a file of JSON objects, one a line; a key that is not there is a value that is not there."""
    keys = _SeenKeys(source)
    number = 0
    for line in _lines(source, newline="\n"):
        if line is None or not line.isspace():
            number += 1
            found, fault = _json_object(line)
            keys.add(found)
            yield _json_row(number, found, fault, keys.wanted, source.columns["text_column"])
    keys.check()


class _SeenKeys:
    """Finds out whether a column is in no object at all: JSON lines have no header to look it up in."""

    def __init__(self, source: FileSource) -> None:
        self.source = source
        self.wanted = tuple(dict.fromkeys(source.columns.values()))
        self.missing = set(self.wanted)
        self.seen: dict[str, None] = {}

    def add(self, found: Mapping[str, Any]) -> None:
        if self.missing:
            self.missing -= found.keys()
            self.seen.update(dict.fromkeys(itertools.islice(found, 100)) if len(self.seen) < 1000 else {})

    def check(self) -> None:
        if self.seen and self.missing:
            names = [*self.seen, *(name for name in self.wanted if name not in self.seen and name not in self.missing)]
            check_columns(str(self.source), self.source.section, self.source.columns, names, " No line has it.")


def _json_object(line: str | None) -> tuple[dict[str, Any], str | None]:
    """The object of a line, or the line's fault."""
    if line is None:
        return {}, _TOO_LONG
    try:
        found = _JSON.decode(line)
    except RecursionError:
        return {}, "invalid JSON: nested too deep"
    except ValueError as error:
        return {}, f"invalid JSON: {error}"
    if not isinstance(found, dict):
        return {}, f"not a JSON object: received {kind_of(found)}"
    return found, None


def _json_row(
    number: int, found: Mapping[str, Any], fault: str | None, names: Iterable[str], text_column: str
) -> SourceRow:
    row = typed_row(number, {name: found.get(name) for name in names}, text_column)
    return row if fault is None else row._replace(fault=fault)


# Parquet


def _parquet_rows(source: FileSource) -> Iterator[SourceRow]:
    try:
        with pq.ParquetFile(source.path, buffer_size=2**20) as file:
            _check_schema(source, file.schema_arrow)
            yield from _batch_rows(source, file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{source}: cannot be read as Parquet: {' '.join(str(error).split())[:300]}. "
            f"Provide the file again, or correct [{source.section}] format."
        ) from None


def _check_schema(source: FileSource, schema: Any) -> None:
    check_columns(str(source), source.section, source.columns, schema.names)
    for setting, name in source.columns.items():
        kind = _value_type(schema.field(name).type)
        expected = _expected(kind, setting == "text_column")
        if expected:
            raise InputError(f"{source}: [{source.section}] {setting} = {name}: expected {expected}, received {kind}")


def _expected(kind: Any, is_message: bool) -> str | None:
    """What a column should hold instead of this type; None when the type will do."""
    if is_message:
        fits = any(test(kind) for test in _TEXT_TYPES) or pa.types.is_null(kind)
        return None if fits else "a column of text"
    return "a column of text, numbers or dates" if pa.types.is_nested(kind) else None


_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)


def _batch_rows(source: FileSource, file: Any) -> Iterator[SourceRow]:
    names = list(dict.fromkeys(source.columns.values()))
    text_column, number = source.columns["text_column"], 0
    for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=names):
        columns = [_python_values(batch.column(name)) for name in names]
        for values in zip(*columns, strict=True):
            number += 1
            yield typed_row(number, dict(zip(names, values, strict=True)), text_column)


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _python_values(column: Any) -> list[Any]:
    """The values of an Arrow array; times as ISO text at face value, since Python's cannot hold every one of them."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type) and column.type.tz:
        column = pc.local_timestamp(column)
    if pa.types.is_temporal(column.type):
        column = pc.cast(column, pa.string())
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return list(pc.cast(column, pa.large_binary()).to_pylist())


_READERS: dict[str, Callable[[FileSource], Iterator[SourceRow]]] = {
    "csv": _csv_rows,
    "tsv": _tsv_rows,
    "jsonl": _jsonl_rows,
    "parquet": _parquet_rows,
    "sms": _sms_rows,
}
