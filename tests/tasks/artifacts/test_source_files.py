"""The origin of a snapshot: what was read, when, and which files were modified since."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import pytest

from models.errors import ArtifactError
from tasks.artifacts.folders import write_manifest
from tasks.artifacts.source_files import describe_file, describe_origin, find_changes, origin_to_json, read_origin

TAKEN_AT = datetime.datetime(2026, 2, 1, 3, 0, 5, tzinfo=datetime.UTC)
COUNTS = {"source": "in.csv", "rows": 2, "faults": {"bad": 1}, "other_dates": {"rows": 3, "seen": []}}


def write_origin(folder: Path, **changes: Any) -> Path:
    """Writes a file and the manifest of a snapshot of it, and returns the file."""
    path = folder / "in.csv"
    path.write_text("12")
    write_manifest(folder, {**COUNTS, **origin_to_json([describe_file(path)], TAKEN_AT), **changes})
    return path


def test_an_unchanged_file_is_described_without_a_change(tmp_path: Path) -> None:
    write_origin(tmp_path)
    origin = read_origin(tmp_path)
    assert origin is not None
    assert (origin.source, origin.rows, origin.faults, origin.other_dates) == ("in.csv", 2, {"bad": 1}, 3)
    assert describe_origin(tmp_path) == "read from in.csv on 2026-02-01 03:00 UTC"


def test_another_size_or_modification_time_is_a_change_and_a_missing_file_is_none(tmp_path: Path) -> None:
    path = write_origin(tmp_path)
    os.utime(path, (1_770_000_000, 1_770_000_000))
    change = f"{path} was modified after it was read (2026-02-02 02:40 UTC"
    assert describe_origin(tmp_path) == f"read from in.csv on 2026-02-01 03:00 UTC; {change})"
    path.write_text("123")
    os.utime(path, (1_770_000_000, 1_770_000_000))
    assert describe_origin(tmp_path).endswith(f"{change}, 2 bytes then, 3 now)")
    assert find_changes(tmp_path) == [f"{change}, 2 bytes then, 3 now)"]
    path.unlink()
    assert describe_origin(tmp_path) == "read from in.csv on 2026-02-01 03:00 UTC"


def test_a_snapshot_of_an_older_version_has_neither_time_nor_files(tmp_path: Path) -> None:
    write_manifest(tmp_path, COUNTS)
    assert describe_origin(tmp_path) == "read from in.csv"


def test_a_missing_snapshot_and_a_damaged_manifest_are_described(tmp_path: Path) -> None:
    assert read_origin(tmp_path) is None
    assert "no longer exists" in describe_origin(tmp_path)
    assert find_changes(tmp_path) == []
    write_manifest(tmp_path, {"rows": 1})
    with pytest.raises(ArtifactError, match=r"manifest\.json: not the manifest of a snapshot"):
        read_origin(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    assert "not the manifest that was written" in describe_origin(tmp_path)
    assert "not the manifest that was written" in find_changes(tmp_path)[0]
