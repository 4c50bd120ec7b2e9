"""Reads rows of messages from a file of any supported format.

The formats are CSV, TSV, JSON lines, JSON arrays, Parquet, the SMS Spam Collection and SMS Backup & Restore.

`read_file` yields the same `SourceRow` for every format. A malformed row comes with a fault: it neither ends the run
nor goes missing. A fault of the file as a whole is an InputError before the first row. Memory is bounded by the longest
row, not by the file. `tasks.sources.rows` defines a row; the stages decide what it means (label, date, duplicate).
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import InputError
from tasks.sources.compression import file_compression
from tasks.sources.content import identify
from tasks.sources.file_source import PARQUET_SUFFIXES, FileSource, check_encoding, check_file, format_suffix
from tasks.sources.formats.delimited import read_csv, read_sms, read_tsv
from tasks.sources.formats.delimited_records import MAX_RECORD_LENGTH
from tasks.sources.formats.json_array import read_json_array
from tasks.sources.formats.json_lines import read_json_lines
from tasks.sources.formats.parquet import read_parquet
from tasks.sources.formats.sms_backup import read_sms_backup
from tasks.sources.paths import FileRows, find_files
from tasks.sources.rows import SourceRow
from tasks.storage.addresses import CHANGED
from tasks.storage.stored_objects import SourcePath, StoredObject, open_random

# Python's default limit of 131,072 characters refuses a message of a megabyte. The limit is global to the process.
csv.field_size_limit(MAX_RECORD_LENGTH)

_READERS: dict[str, Callable[[FileSource], Iterator[SourceRow]]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_json_lines,
    "json": read_json_array,
    "parquet": read_parquet,
    "sms": read_sms,
    "sms_backup": read_sms_backup,
}


def read_file(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a file, in file order.

    The existence of the file, its format, encoding and first bytes are checked at the call, its header when the first
    row is requested. A compressed file is decompressed, and a byte order mark decides the encoding.

    Raises:
        SettingsError: the encoding does not exist.
        InputError: the file is missing, empty or damaged, has an unknown suffix, is something else than its format,
            lacks a column, or changed while it was read.
    """
    check_encoding(source)
    check_file(source)
    identified = identify(source)
    return _check_unchanged(source, _READERS[identified.format](identified))


def read_files(source: FileSource, file_rows: FileRows) -> Iterator[SourceRow]:
    """Yields the rows of all files that the path of a source matches, one file after the other.

    Row numbers go on from file to file. All files are checked at the call, as `read_file` does.

    Args:
        source: the files; its path may be a pattern.
        file_rows: records which file each row comes from.

    Raises:
        SettingsError: as `read_file`.
        InputError: as `read_file`.
    """
    file_rows.files = find_files(source.path) or [source.path]
    parts = [read_file(dataclasses.replace(source, path=file)) for file in file_rows.files]

    def read_parts() -> Iterator[SourceRow]:
        row_number = 0
        for rows in parts:
            file_rows.offsets.append(offset := row_number)
            for row in rows:
                row_number = offset + row.row_number
                yield row._replace(row_number=row_number) if offset else row

    return read_parts()


def estimate_total_row_count(path: str | SourcePath) -> int | None:
    """Returns about how many rows the files of a path have; None if one of them cannot be read."""
    counts = [estimate_row_count(file) for file in find_files(path)]
    return None if None in counts else sum(count or 0 for count in counts)


def estimate_row_count(path: SourcePath) -> int | None:
    """Returns about how many rows a file has, from its Parquet footer or its line ends.

    Returns None if line ends say nothing about it, as in a compressed file, an array or XML, or if it cannot be read.
    """
    try:
        if format_suffix(path) in PARQUET_SUFFIXES:
            with open_random(path) as file:
                return int(pq.read_metadata(file).num_rows)
        if isinstance(path, StoredObject):
            return None  # to count lines is to read it twice
        if file_compression(path):
            return None
        with path.open("rb") as file:
            if file.read(2**10).lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"[", b"<")):
                return None
            file.seek(0)
            return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
    except (OSError, pa.ArrowException):
        return None  # reading the file reports the error


def _check_unchanged(source: FileSource, rows: Iterator[SourceRow]) -> Iterator[SourceRow]:
    """Passes rows on, and checks after the last one that the file was not written to meanwhile."""
    before = _file_state(source.path)
    yield from rows
    if _file_state(source.path) != before:
        if isinstance(source.path, StoredObject):
            raise InputError(f"{source}: {CHANGED}")
        raise InputError(
            f"{source}: the file changed while it was read. "
            "Write it under another name, move it into place when it is complete, and run again."
        )


def _file_state(path: SourcePath) -> object:
    """Returns what differs between versions of a file: inode, size and time, or an object's status; None if gone."""
    if isinstance(path, StoredObject):
        return path.find_status()
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
