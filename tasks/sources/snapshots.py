"""Snapshots: the messages of one night as a Parquet file, written once, read in chunks that are the same at every read.

Also the one way in which rows are written to Parquet with bounded memory, which the corpus shares. Where the messages
come from is `tasks.extract_messages`'s part, what becomes of a chunk is scoring's.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import ArtifactError
from tasks.artifacts.folders import FolderTarget, find_file_damage
from tasks.sources.rows import fault_kind

SNAPSHOT_FILE = "messages.parquet"
GROUP_ROWS = 20_000  # rows of a row group
_NARROW_BYTES = 2**31 - 1
GROUP_CHARACTERS = 16 * 2**20  # characters after which a row group ends early: rows may hold a megabyte each

SNAPSHOT_SCHEMA = pa.schema(
    [
        pa.field("row_number", pa.int64(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("message_id", pa.string()),
        pa.field("text", pa.string()),
        pa.field("fault", pa.string()),
    ]
)


class SnapshotRow(NamedTuple):
    """One message to be kept.

    Attributes:
        source_row: 1-based row of the source.
        message_id: what identifies the message, or None.
        text: the message, or None.
        fault: why the row cannot be scored, or None.
    """

    source_row: int
    message_id: str | None
    text: str | None
    fault: str | None


@dataclass(frozen=True)
class SnapshotCounts:
    """How many rows a snapshot has, and how many of them have a fault, by its kind."""

    rows: int
    faults: dict[str, int]


@dataclass(frozen=True)
class SnapshotChunk:
    """Consecutive messages of a snapshot.

    Attributes:
        chunk_number: 0 for the first.
        first_row: row number of the first message, chunk_number * chunk_size + 1.
        row_numbers: int64, (messages,), 1-based positions in the snapshot.
        message_ids: what identifies each message, or null; an Arrow array of strings, as the next two.
        texts: each message, or null.
        faults: why a row cannot be scored, or null.
    """

    chunk_number: int
    first_row: int
    row_numbers: npt.NDArray[np.int64]
    message_ids: pa.Array
    texts: pa.Array
    faults: pa.Array

    def __len__(self) -> int:
        return len(self.texts)


def write_snapshot(rows: Iterable[SnapshotRow], path: Path) -> SnapshotCounts:
    """Writes messages in the order they come, numbered from 1, and counts them."""
    faults: Counter[str] = Counter()

    def numbered() -> Iterator[tuple[Any, ...]]:
        for number, row in enumerate(rows, 1):
            if row.fault is not None:
                faults[fault_kind(row.fault)] += 1
            yield (number, *row)

    return SnapshotCounts(write_rows(numbered(), SNAPSHOT_SCHEMA, path), dict(faults))


def write_rows(rows: Iterable[Sequence[Any]], schema: Any, path: Path) -> int:
    """Writes rows to a Parquet file, a row group at a time, and returns their number.

    Args:
        rows: the values of each row, in the schema's order.
        schema: the Arrow schema.
        path: file to write.
    """
    written = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(rows):
            columns = [
                pa.array(values, kind) for values, kind in zip(zip(*group, strict=True), schema.types, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            written += len(group)
    return written


def _groups(rows: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    """Rows in groups of `GROUP_ROWS`, or fewer when they are long."""
    group: list[Sequence[Any]] = []
    characters = 0
    for row in rows:
        group.append(row)
        characters += sum(len(value) for value in row if isinstance(value, str))
        if len(group) >= GROUP_ROWS or characters >= GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def snapshot_rows(path: Path) -> int:
    """The number of messages in a snapshot's file; reads its footer alone.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def read_snapshot(path: Path, chunk_size: int, skip: Collection[int] = frozenset()) -> Iterator[SnapshotChunk]:
    """Yields the messages of a snapshot's file in chunks; which message is in which depends on the chunk size alone.

    Args:
        path: the file.
        chunk_size: messages in a chunk; the last one may have fewer.
        skip: numbers of chunks to leave out; what only they need is not read.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    with _opened(path) as file:
        groups = _RowGroups(file)
        total = file.metadata.num_rows
        for number, first in enumerate(range(0, total, chunk_size)):
            if number not in skip:
                yield _chunk(number, first, groups.rows(first, min(first + chunk_size, total)))


def _chunk(number: int, first: int, table: Any) -> SnapshotChunk:
    return SnapshotChunk(
        chunk_number=number,
        first_row=first + 1,
        row_numbers=table.column("row_number").to_numpy(),
        message_ids=_whole(table.column("message_id")),
        texts=_whole(table.column("text")),
        faults=_whole(table.column("fault")),
    )


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; with wide offsets where it holds more than narrow ones can tell apart."""
    if column.nbytes > _NARROW_BYTES:
        column = column.cast(pa.large_string())
    return pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)


class _RowGroups:
    """Any range of a file's rows, with the row group read last at hand: chunks rarely end where row groups do."""

    _COLUMNS = ("row_number", "message_id", "text", "fault")

    def __init__(self, file: Any) -> None:
        self.file = file
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        self.starts = np.cumsum([0, *sizes])
        self.number = -1
        self.table: Any = None

    def rows(self, first: int, end: int) -> Any:
        """The rows from `first` up to but not including `end`, both from 0, as an Arrow table."""
        numbers = range(int(np.searchsorted(self.starts, first, "right")) - 1, int(np.searchsorted(self.starts, end)))
        return pa.concat_tables([self._part(number, first, end) for number in numbers])

    def _part(self, number: int, first: int, end: int) -> Any:
        if number != self.number:
            self.table = self.file.read_row_group(number, columns=list(self._COLUMNS))
            self.number = number
        start = int(self.starts[number])
        begin = max(first - start, 0)
        return self.table.slice(begin, end - start - begin)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(SNAPSHOT_SCHEMA):
                raise _damaged(path, f"its columns are {', '.join(file.schema_arrow.names)}")
            metadata = file.metadata
            groups = sum(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))
            if metadata.num_rows != groups:
                raise _damaged(path, f"it says that it has {metadata.num_rows} rows, and its row groups {groups}")
            yield file
    except FileNotFoundError:
        raise _damaged(path, "no such file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, " ".join(str(error).split())[:300]) from None


def verify_snapshot(folder: Path) -> dict[str, Any]:
    """Holds a snapshot to its manifest, and returns that.

    Raises:
        ArtifactError: the manifest or the file is missing, or is not the one that was written.
    """
    manifest = FolderTarget(folder).manifest()
    if reason := find_file_damage(folder, SNAPSHOT_FILE):
        raise _damaged(folder / SNAPSHOT_FILE, reason)
    return manifest


def _damaged(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: not the snapshot that was written: {reason}. Bring it back from a backup; or delete {path.parent}, "
        "and the next run takes a new snapshot of what the source holds then."
    )
