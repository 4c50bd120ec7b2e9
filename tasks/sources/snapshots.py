"""Writes and reads snapshots: the messages of one batch in a Parquet file, read in the same chunks every time.

A second file, which only a snapshot with repeated identifiers has, tells for each row which earlier row keeps its
identifier. So the first row of the snapshot that can be scored keeps it, in whichever order chunks are scored.

`write_parquet_rows` writes rows in bounded memory; the corpus uses it too. `tasks.extract_messages` provides the
messages of a snapshot, `tasks.scoring` scores its chunks.
"""

from __future__ import annotations

import contextlib
import itertools
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import ArtifactError
from tasks.artifacts.folders import FolderTarget, find_file_damage, list_manifest_files
from tasks.database.chunks import find_rejections
from tasks.rejection_limit import Reason
from tasks.sources.rows import fault_kind

IntArray: TypeAlias = npt.NDArray[np.int64]

SNAPSHOT_FILE = "messages.parquet"
REPEATED_IDS_FILE = "repeated_ids.parquet"
ROW_GROUP_SIZE = 20_000  # rows
ROW_GROUP_CHARACTERS = 16 * 2**20  # a row group with more characters ends early: a row may have a megabyte
_MAX_INT32_BYTES = 2**31 - 1  # more bytes do not fit in an Arrow array with 32-bit offsets
_NO_ID = 0  # hash of a row without an identifier
_MAX_COMPARED_IDS = 2**19  # repeated identifiers in memory at once; more are compared in several passes over the file

SNAPSHOT_SCHEMA = pa.schema(
    [
        pa.field("row_number", pa.int64(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("message_id", pa.string()),
        pa.field("text", pa.string()),
        pa.field("fault", pa.string()),
    ]
)
_COLUMNS = ("row_number", "message_id", "text", "fault")  # those of a chunk
# A row for each message, in the same row groups: the row number that keeps its identifier, or null.
REPEATED_IDS_SCHEMA = pa.schema([pa.field("first_row", pa.int64())])


class SnapshotRow(NamedTuple):
    """One message to be written to a snapshot.

    Attributes:
        source_row: row of the source, from 1.
        message_id: identifier of the message, or None.
        text: the message, or None.
        fault: why the row cannot be scored, or None.
    """

    source_row: int
    message_id: str | None
    text: str | None
    fault: str | None


@dataclass(frozen=True)
class SnapshotCounts:
    """The number of rows of a snapshot, and the kinds of fault of its rows, each with its first row in the source."""

    rows: int
    faults: list[Reason]


@dataclass(frozen=True)
class SnapshotChunk:
    """Consecutive messages of a snapshot.

    Attributes:
        chunk_number: 0 for the first.
        first_row: row number of the first message, chunk_number * chunk_size + 1.
        row_numbers: row of each message in the snapshot, from 1; int64, (messages,).
        message_ids: identifier of each message, or null; an Arrow array of strings, (messages,), as the next two.
        texts: each message, or null.
        faults: why a row cannot be scored, or null.
        first_rows: the earlier row of the snapshot that keeps the identifier of a row, or null; int64, (messages,).
    """

    chunk_number: int
    first_row: int
    row_numbers: npt.NDArray[np.int64]
    message_ids: pa.Array
    texts: pa.Array
    faults: pa.Array
    first_rows: pa.Array

    def __len__(self) -> int:
        return len(self.texts)


def write_snapshot(rows: Iterable[SnapshotRow], path: Path) -> SnapshotCounts:
    """Writes messages in the given order, with row numbers from 1, and counts them.

    If identifiers repeat, writes `REPEATED_IDS_FILE` beside the file. Takes about 20 bytes of memory a message.
    """
    counts: Counter[str] = Counter()
    first: dict[str, SnapshotRow] = {}
    id_hashes = array("q")

    def number_rows() -> Iterator[tuple[Any, ...]]:
        for number, row in enumerate(rows, 1):
            if row.fault is not None:
                kind = fault_kind(row.fault)
                counts[kind] += 1
                first.setdefault(kind, row)
            id_hashes.append(hash(row.message_id) or 1 if row.message_id else _NO_ID)
            yield (number, *row)

    row_count = write_parquet_rows(number_rows(), SNAPSHOT_SCHEMA, path)
    _write_repeated_ids(path, np.asarray(id_hashes))
    return SnapshotCounts(row_count, [_to_reason(kind, count, first[kind]) for kind, count in counts.items()])


def _to_reason(kind: str, rows: int, first: SnapshotRow) -> Reason:
    return Reason(kind, rows, first.source_row, (first.fault or "").removeprefix(kind).lstrip(": ") or None)


def _write_repeated_ids(path: Path, id_hashes: IntArray) -> None:
    """Writes which earlier row keeps the identifier of each row. Writes no file if no identifier repeats.

    Args:
        path: the complete snapshot file.
        id_hashes: Python's hash of each identifier or `_NO_ID`, (messages,). It selects the rows to compare; their
            identifiers, and whether they can be scored, decide.
    """
    target = path.with_name(REPEATED_IDS_FILE)
    target.unlink(missing_ok=True)
    hashes = np.sort(id_hashes)
    repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    repeated = repeated[repeated != _NO_ID]
    del hashes
    first_rows = np.zeros(len(id_hashes) if len(repeated) else 0, np.int64)
    for start in range(0, len(repeated), _MAX_COMPARED_IDS):
        _find_first_rows(path, id_hashes, repeated[start : start + _MAX_COMPARED_IDS], first_rows)
    if not first_rows.any():
        return
    with pq.ParquetFile(path) as file, pq.ParquetWriter(target, REPEATED_IDS_SCHEMA, compression="zstd") as writer:
        for start, stop in itertools.pairwise(_row_group_offsets(file)):
            part = first_rows[start:stop]
            writer.write_batch(pa.record_batch([pa.array(part, mask=part == 0)], schema=REPEATED_IDS_SCHEMA))


def _find_first_rows(path: Path, id_hashes: IntArray, repeated: IntArray, first_rows: IntArray) -> None:
    """Sets the first row of each row whose identifier an earlier one keeps, of rows with one of the repeated hashes.

    Args:
        path: the snapshot file.
        id_hashes: hash of each identifier, (messages,).
        repeated: hashes that several rows have, sorted, (hashes,).
        first_rows: row numbers to be set, (messages,).
    """
    first_row_by_id: dict[str, int] = {}
    with pq.ParquetFile(path) as file:
        for group, (start, stop) in enumerate(itertools.pairwise(_row_group_offsets(file))):
            hashes = id_hashes[start:stop]
            positions = np.minimum(np.searchsorted(repeated, hashes), len(repeated) - 1)
            indices = np.flatnonzero(repeated[positions] == hashes)
            if not len(indices):
                continue
            table = file.read_row_group(group, columns=list(_COLUMNS)).take(pa.array(indices))
            chunk = _create_chunk(group, start, _with_first_rows(table))
            scorable = np.delete(np.arange(len(chunk)), list(find_rejections(chunk)))
            rows, ids = chunk.row_numbers[scorable], chunk.message_ids.take(pa.array(scorable)).to_pylist()
            pairs = zip(ids, rows.tolist(), strict=True)
            first = np.array([first_row_by_id.setdefault(*pair) for pair in pairs], np.int64)
            first_rows[rows - 1] = np.where(first == rows, 0, first)


def _row_group_offsets(file: Any) -> list[int]:
    """Returns the index of the first row of each row group of a Parquet file, followed by the number of rows."""
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    return [0, *itertools.accumulate(sizes)]


def write_parquet_rows(rows: Iterable[Sequence[Any]], schema: Any, path: Path) -> int:
    """Writes rows to a Parquet file, one row group at a time, and returns the number of rows.

    Args:
        rows: the values of each row, in the order of the schema.
        schema: the Arrow schema.
        path: file to write.
    """
    row_count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _split_row_groups(rows):
            columns = [
                pa.array(values, column_type)
                for values, column_type in zip(zip(*group, strict=True), schema.types, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            row_count += len(group)
    return row_count


def _split_row_groups(rows: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    """Yields rows in groups of `ROW_GROUP_SIZE`, or fewer if they are long."""
    group: list[Sequence[Any]] = []
    characters = 0
    for row in rows:
        group.append(row)
        characters += sum(len(value) for value in row if isinstance(value, str))
        if len(group) >= ROW_GROUP_SIZE or characters >= ROW_GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def count_snapshot_rows(path: Path) -> int:
    """Returns the number of messages in a snapshot file. Reads only its footer.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    with _open_snapshot(path) as file:
        return int(file.metadata.num_rows)


def read_source_rows(path: Path, row_numbers: Collection[int]) -> dict[int, int]:
    """Returns the row in the source of rows of a snapshot file.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    with _open_snapshot(path):
        columns, filters = ["row_number", "source_row"], [("row_number", "in", list(row_numbers))]
        rows = pq.read_table(path, columns=columns, filters=filters).to_pylist()
    return {row["row_number"]: row["source_row"] for row in rows}


def read_snapshot(path: Path, chunk_size: int, chunk_numbers: Iterable[int] | None = None) -> Iterator[SnapshotChunk]:
    """Yields the messages of a snapshot file in chunks. Which messages a chunk has depends only on the chunk size.

    Args:
        path: the file.
        chunk_size: messages in a chunk; the last chunk may have fewer.
        chunk_numbers: the chunks to read, in ascending order; by default, all. Row groups that none of them needs are
            not read.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    repeated_ids = path.with_name(REPEATED_IDS_FILE)
    with (
        _open_snapshot(repeated_ids, REPEATED_IDS_SCHEMA) if repeated_ids.exists() else nullcontext() as repeats,
        _open_snapshot(path) as file,
    ):
        row_groups = _RowGroupReader(file, repeats)
        row_count = file.metadata.num_rows
        for chunk_number in range(-(-row_count // chunk_size)) if chunk_numbers is None else chunk_numbers:
            start = chunk_number * chunk_size
            table = row_groups.read_rows(start, min(start + chunk_size, row_count))
            yield _create_chunk(chunk_number, start, table)


def _with_first_rows(table: Any, first_rows: Any = None) -> Any:
    """Returns rows of a snapshot with a column of first rows, which is null if none are given."""
    return table.append_column("first_row", pa.nulls(len(table), pa.int64()) if first_rows is None else first_rows)


def _create_chunk(chunk_number: int, start: int, table: Any) -> SnapshotChunk:
    return SnapshotChunk(
        chunk_number=chunk_number,
        first_row=start + 1,
        row_numbers=table.column("row_number").to_numpy(),
        message_ids=_combine_chunks(table.column("message_id")),
        texts=_combine_chunks(table.column("text")),
        faults=_combine_chunks(table.column("fault")),
        first_rows=_combine_chunks(table.column("first_row")),
    )


def _combine_chunks(column: pa.ChunkedArray) -> pa.Array:
    """Returns a column as one array, with 64-bit offsets if it has too many bytes for 32-bit offsets."""
    if column.nbytes > _MAX_INT32_BYTES:
        column = column.cast(pa.large_string())
    return pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)


class _RowGroupReader:
    """Reads any range of rows of a file. Caches the last row group: chunks rarely end where row groups do."""

    def __init__(self, file: Any, repeats: Any) -> None:
        self.file, self.repeats = file, repeats
        self.offsets = np.array(_row_group_offsets(file))
        self.cached_number = -1
        self.cached_table: Any = None

    def read_rows(self, start: int, stop: int) -> Any:
        """Returns the rows from `start` up to but not including `stop`, both from 0, as an Arrow table."""
        first_group = int(np.searchsorted(self.offsets, start, "right")) - 1
        group_numbers = range(first_group, int(np.searchsorted(self.offsets, stop)))
        return pa.concat_tables([self._read_part(number, start, stop) for number in group_numbers])

    def _read_part(self, number: int, start: int, stop: int) -> Any:
        """Returns the rows of one row group that are in the range."""
        if number != self.cached_number:
            table = self.file.read_row_group(number, columns=list(_COLUMNS))
            first_rows = self.repeats and self.repeats.read_row_group(number).column("first_row")
            self.cached_table, self.cached_number = _with_first_rows(table, first_rows), number
        offset = int(self.offsets[number])
        part_start = max(start - offset, 0)
        return self.cached_table.slice(part_start, stop - offset - part_start)


@contextlib.contextmanager
def _open_snapshot(path: Path, schema: Any = SNAPSHOT_SCHEMA) -> Iterator[Any]:
    """Opens a file of a snapshot, and checks its columns and its number of rows."""
    try:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(schema):
                raise _damage_error(path, f"its columns are {', '.join(file.schema_arrow.names)}")
            if (rows := file.metadata.num_rows) != (group_rows := _row_group_offsets(file)[-1]):
                raise _damage_error(path, f"its footer counts {rows} rows, its row groups have {group_rows}")
            yield file
    except FileNotFoundError:
        raise _damage_error(path, "no such file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damage_error(path, " ".join(str(error).split())[:300]) from None


def verify_snapshot(folder: Path) -> dict[str, Any]:
    """Checks a snapshot against its manifest, and returns the manifest.

    Raises:
        ArtifactError: the manifest or a file is missing, or differs from the one that was written.
    """
    manifest, listed = FolderTarget(folder).manifest(), list_manifest_files(folder)
    has_repeats = REPEATED_IDS_FILE in listed or (folder / REPEATED_IDS_FILE).exists()
    for name in (SNAPSHOT_FILE, REPEATED_IDS_FILE) if has_repeats else (SNAPSHOT_FILE,):
        if reason := find_file_damage(folder, name):
            raise _damage_error(folder / name, reason)
    return manifest


def _damage_error(path: Path, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{path}: not the snapshot that was written: {reason}. Restore it from a backup; or run spamscore extract "
        f"{path.parent.parent.name} --again: the next run then takes a new snapshot of the current content of the "
        "source."
    )
