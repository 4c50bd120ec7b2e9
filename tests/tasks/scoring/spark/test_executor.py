"""What an executor checks before it scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.errors import ArtifactError
from tasks.artifacts.folders import MANIFEST, read_seal, write_manifest
from tasks.scoring.spark.executor import require_same_artifact


def test_the_folder_of_the_driver_is_accepted(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"rows": 3})
    require_same_artifact(tmp_path, read_seal(tmp_path))


def test_a_folder_that_is_not_on_this_machine_is_named_with_the_settings(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"missing: no such folder.*\[artifacts\] folder on a path"):
        require_same_artifact(tmp_path / "missing", "0" * 64)


def test_another_folder_at_the_same_path_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"rows": 3})
    seal = read_seal(tmp_path)
    write_manifest(tmp_path, {"rows": 4})
    with pytest.raises(ArtifactError, match=f"not the one of the driver: expected SHA-256 {seal[:16]}"):
        require_same_artifact(tmp_path, seal)


def test_a_manifest_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"rows": 3})
    seal = read_seal(tmp_path)
    content = json.loads((tmp_path / MANIFEST).read_text("utf-8"))
    (tmp_path / MANIFEST).write_text(json.dumps({**content, "rows": 4}), "utf-8")
    with pytest.raises(ArtifactError, match="not the manifest that was written"):
        require_same_artifact(tmp_path, seal)
