"""Tests that snapshots are read as they were written, in the same chunks every time, and that damage is detected."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
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
from tasks.rejection_limit import Reason
from tasks.sources import snapshots
from tasks.sources.snapshots import (
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

    skip = data.draw(st.sets(st.integers(0, max(len(chunks) - 1, 0))))
    remaining = [chunk for chunk in chunks if chunk.chunk_number not in skip]
    assert content(read_snapshot(path, chunk_size, skip)) == content(remaining)


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


def test_a_snapshot_without_a_manifest_is_rejected(snapshot_folder: Path) -> None:
    (snapshot_folder / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"manifest\.json: no such file"):
        verify_snapshot(snapshot_folder)
