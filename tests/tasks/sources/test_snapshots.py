"""Tests that snapshots are read as they were written, in the same chunks every time, and that damage is detected."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import ArtifactError
from tasks.artifacts.fingerprint import file_sha256
from tasks.artifacts.folders import write_manifest
from tasks.database.chunks import find_rejection
from tasks.rejection_limit import Reason
from tasks.sources import snapshots
from tasks.sources.snapshots import (
    REPEATED_IDS_FILE,
    SNAPSHOT_FILE,
    SnapshotChunk,
    SnapshotCounts,
    SnapshotRow,
    count_snapshot_rows,
    read_snapshot,
    read_source_rows,
    verify_snapshot,
    write_snapshot,
)

texts = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
rows = st.lists(st.builds(SnapshotRow, st.integers(1, 2**40), texts, texts, st.one_of(st.none(), st.just("bad: x"))))


def numbered_rows(count: int, length: int = 5) -> Iterator[SnapshotRow]:
    return (SnapshotRow(number, f"m{number}", "x" * length, None) for number in range(1, count + 1))


def content(chunks: Any) -> list[tuple[int, str | None, str | None, str | None]]:
    return [
        (int(number), *rest)
        for chunk in chunks
        for number, *rest in zip(
            chunk.row_numbers, *map(pa.Array.to_pylist, (chunk.message_ids, chunk.texts, chunk.faults)), strict=True
        )
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(rows=rows, chunk_size=st.integers(1, 12), group=st.integers(1, 9), characters=st.integers(1, 60), data=st.data())
def test_written_rows_are_read_with_any_chunk_size_and_row_groups(
    tmp_path: Path, rows: list[SnapshotRow], chunk_size: int, group: int, characters: int, data: st.DataObject
) -> None:
    path = tmp_path / "snapshot.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "ROW_GROUP_SIZE", group)
        patch.setattr(snapshots, "ROW_GROUP_CHARACTERS", characters)
        counts = write_snapshot(rows, path)
    faults = [row for row in rows if row.fault is not None]
    reasons = [Reason("bad", len(faults), faults[0].source_row, (faults[0].fault or "")[5:] or None)] if faults else []
    assert counts == SnapshotCounts(len(rows), reasons)
    assert read_source_rows(path, range(1, len(rows) + 1)) == dict(enumerate((row.source_row for row in rows), 1))
    assert count_snapshot_rows(path) == len(rows)

    chunks = list(read_snapshot(path, chunk_size))
    assert content(chunks) == [(number, *row[1:]) for number, row in enumerate(rows, 1)]
    assert [chunk.chunk_number for chunk in chunks] == list(range(-(-len(rows) // chunk_size)))
    assert all(chunk.first_row == chunk.row_numbers[0] == chunk.chunk_number * chunk_size + 1 for chunk in chunks)
    assert all(len(chunk) == chunk_size for chunk in chunks[:-1])
    assert all(chunk.row_numbers.dtype == np.int64 for chunk in chunks)
    assert pq.read_table(path).column("source_row").to_pylist() == [row.source_row for row in rows]

    chosen = sorted(data.draw(st.sets(st.sampled_from(range(len(chunks)))))) if chunks else []
    assert content(read_snapshot(path, chunk_size, chosen)) == content(chunks[number] for number in chosen)


# Repeated identifiers


def find_first_rows(rows: list[SnapshotRow]) -> list[int | None]:
    """Returns the earlier row that keeps the identifier of each row, found row by row."""
    kept: dict[str | None, int] = {}
    first_rows = []
    for number, row in enumerate(rows, 1):
        can_be_scored = find_rejection(number, row.message_id, row.text, row.fault) is None
        first = kept.setdefault(row.message_id, number) if can_be_scored else number
        first_rows.append(first if first != number else None)
    return first_rows


few_ids = st.sampled_from(
    [None, "", " ", "a", "A", "a ", "á", "a\u0301", "é" * 255, "x" * 256, "a\0", "b", "c", "d", "e"]
)
few_rows = st.builds(
    SnapshotRow, st.just(1), few_ids, st.sampled_from([None, " ", "x"]), st.sampled_from([None, "bad"])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(
    rows=st.lists(few_rows, max_size=4) | st.lists(few_rows, min_size=10, max_size=40),
    chunk_size=st.integers(1, 12),
    group=st.integers(1, 9),
    compared=st.integers(1, 3),
    hash_id=st.sampled_from([hash, lambda _: 0, lambda _: -7, len]),
)
def test_the_first_row_that_can_be_scored_keeps_an_identifier_whatever_the_hashes_are(
    tmp_path: Path, rows: list[SnapshotRow], chunk_size: int, group: int, compared: int, hash_id: Callable[[str], int]
) -> None:
    path = tmp_path / SNAPSHOT_FILE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshots, "ROW_GROUP_SIZE", group)
        patch.setattr(snapshots, "_MAX_COMPARED_IDS", compared)
        patch.setattr(snapshots, "hash", hash_id, raising=False)
        write_snapshot(rows, path)
    first_rows = find_first_rows(rows)
    assert [row for chunk in read_snapshot(path, chunk_size) for row in chunk.first_rows.to_pylist()] == first_rows
    assert (tmp_path / REPEATED_IDS_FILE).exists() == any(first_rows)
    if any(first_rows):
        assert pq.read_table(tmp_path / REPEATED_IDS_FILE).column("first_row").to_pylist() == first_rows


def test_a_snapshot_without_repeated_identifiers_is_read_once_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pq, "ParquetFile", None)
    write_snapshot([*numbered_rows(100), *[SnapshotRow(1, None, "x", None)] * 2], tmp_path / SNAPSHOT_FILE)


def test_row_groups_of_skipped_chunks_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "ROW_GROUP_SIZE", 10)
    write_snapshot(numbered_rows(100), tmp_path / "snapshot.parquet")
    groups_read = []
    original = pq.ParquetFile.read_row_group

    def read_row_group(self: Any, number: int, **options: Any) -> Any:
        groups_read.append(number)
        return original(self, number, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    chunks = list(read_snapshot(tmp_path / "snapshot.parquet", 15, [2, 6]))
    assert [chunk.chunk_number for chunk in chunks] == [2, 6]
    assert groups_read == [3, 4, 9]


def test_memory_does_not_grow_with_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "ROW_GROUP_SIZE", 1000)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        write_snapshot(numbered_rows(50_000, 100), tmp_path / "snapshot.parquet")
        for chunk in read_snapshot(tmp_path / "snapshot.parquet", 1000):
            assert isinstance(chunk, SnapshotChunk)
            assert pa.total_allocated_bytes() - before < 3_000_000
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_long_messages_end_a_row_group_early(tmp_path: Path) -> None:
    write_snapshot(numbered_rows(40, 2**20), tmp_path / "snapshot.parquet")
    metadata = pq.ParquetFile(tmp_path / "snapshot.parquet").metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [16, 16, 8]


@pytest.fixture
def snapshot_folder(tmp_path: Path) -> Path:
    write_snapshot(numbered_rows(300), tmp_path / SNAPSHOT_FILE)
    write_manifest(tmp_path, {"sha256": file_sha256(tmp_path / SNAPSHOT_FILE), "rows": 300})
    return tmp_path


def test_an_intact_snapshot_is_verified(snapshot_folder: Path) -> None:
    assert verify_snapshot(snapshot_folder)["rows"] == 300


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[len(body) // 8] ^= 0xFF
    path.write_bytes(body)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def write_other_columns(path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), path)


@pytest.mark.parametrize("damage", [truncate, flip, empty, write_other_columns, Path.unlink])
def test_a_damaged_snapshot_is_detected(snapshot_folder: Path, damage: Any) -> None:
    damage(snapshot_folder / SNAPSHOT_FILE)
    with pytest.raises(
        ArtifactError, match=r"messages\.parquet: not the snapshot that was written.*takes a new snapshot"
    ):
        verify_snapshot(snapshot_folder)


@pytest.mark.parametrize("damage", [truncate, empty, write_other_columns, Path.unlink])
def test_a_damaged_file_is_not_read(snapshot_folder: Path, damage: Any) -> None:
    damage(snapshot_folder / SNAPSHOT_FILE)
    with pytest.raises(ArtifactError, match=r"messages\.parquet: not the snapshot that was written"):
        list(read_snapshot(snapshot_folder / SNAPSHOT_FILE, 100))
    with pytest.raises(ArtifactError):
        count_snapshot_rows(snapshot_folder / SNAPSHOT_FILE)


@pytest.fixture
def folder_with_repeats(tmp_path: Path) -> Path:
    write_snapshot([*numbered_rows(200), *numbered_rows(100)], tmp_path / SNAPSHOT_FILE)
    write_manifest(tmp_path, {"rows": 300})
    return tmp_path


@pytest.mark.parametrize("damage", [truncate, flip, empty, write_other_columns, Path.unlink])
def test_a_damaged_file_of_repeated_identifiers_is_detected(folder_with_repeats: Path, damage: Any) -> None:
    assert verify_snapshot(folder_with_repeats)["rows"] == 300
    damage(folder_with_repeats / REPEATED_IDS_FILE)
    with pytest.raises(ArtifactError, match=r"repeated_ids\.parquet: not the snapshot that was written.*--again"):
        verify_snapshot(folder_with_repeats)


@pytest.mark.parametrize("damage", [truncate, empty, write_other_columns])
def test_a_damaged_file_of_repeated_identifiers_is_not_read(folder_with_repeats: Path, damage: Any) -> None:
    damage(folder_with_repeats / REPEATED_IDS_FILE)
    with pytest.raises(ArtifactError, match=r"repeated_ids\.parquet: not the snapshot that was written"):
        list(read_snapshot(folder_with_repeats / SNAPSHOT_FILE, 100))


def test_repeated_identifiers_of_another_snapshot_are_detected(folder_with_repeats: Path) -> None:
    repeated_ids = (folder_with_repeats / REPEATED_IDS_FILE).read_bytes()
    write_snapshot(numbered_rows(250), folder_with_repeats / SNAPSHOT_FILE)
    write_manifest(folder_with_repeats, {"rows": 250})
    (folder_with_repeats / REPEATED_IDS_FILE).write_bytes(repeated_ids)
    with pytest.raises(ArtifactError, match=r"repeated_ids\.parquet: .*manifest\.json has no such file"):
        verify_snapshot(folder_with_repeats)
    with pytest.raises(ArtifactError, match="not the snapshot that was written"):
        list(read_snapshot(folder_with_repeats / SNAPSHOT_FILE, 100))


def test_a_snapshot_without_a_manifest_is_rejected(snapshot_folder: Path) -> None:
    (snapshot_folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"manifest\.json: no such file"):
        verify_snapshot(snapshot_folder)
