"""Rows of messages out of files, one at a time: CSV, TSV, JSON lines, Parquet, and the SMS Spam Collection's layout.

`read_file` gives the same `SourceRow` for all of them. A row that is malformed comes with a fault instead of ending the
run or going missing; what is wrong with a file as a whole is an InputError before its first row. Memory is bounded by
the longest row, not by the file. What a row looks like is `tasks.sources.rows`'s part; what it means (label, date,
duplicate)
is decided by the stages.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import InputError
from tasks.sources.delimited import MAX_RECORD_LENGTH, read_csv, read_sms, read_tsv
from tasks.sources.json_lines import read_json_lines
from tasks.sources.parquet import read_parquet
from tasks.sources.rows import SourceRow
from tasks.sources.text_files import FileSource, check_encoding, check_file, detect_format

# Python's own limit of 131,072 characters refuses a megabyte message. It is one for the whole process.
csv.field_size_limit(MAX_RECORD_LENGTH)


def read_file(source: FileSource) -> Iterator[SourceRow]:
    """Yields each row of a file, in its order.

    Format, encoding and presence of the file are checked at the call, its header when the first row is asked for.

    Raises:
        SettingsError: the encoding does not exist.
        InputError: the file is missing, empty, damaged, of unknown ending, lacks a column, or changed meanwhile.
    """
    rows = _READERS[detect_format(source)]
    check_encoding(source)
    check_file(source)
    return _unchanged(source, rows(source))


def estimate_row_count(path: Path) -> int | None:
    """About how many rows a file has, quickly: what its footer says, or its line ends; None if that cannot be told."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return int(pq.read_metadata(path).num_rows)
        with path.open("rb") as file:
            return sum(part.count(b"\n") for part in iter(lambda: file.read(2**20), b""))
    except (OSError, pa.ArrowException):
        return None  # who reads it says what is the matter


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


# Lines


# CSV, TSV, sms


# JSON lines


# Parquet


_READERS: dict[str, Callable[[FileSource], Iterator[SourceRow]]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_json_lines,
    "parquet": read_parquet,
    "sms": read_sms,
}
