"""The exported versions of the model, and which one is in service.

`exports/<model>/<version>/`, integers counting up, is what TensorFlow Serving watches; other names there it ignores.
The newest version is in service, unless somebody chose another since it came (`service.json`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import luigi

from models.errors import ArtifactError
from tasks.settings import ArtifactSettings, load
from tasks.stage import artifacts_folder
from tasks.targets import clear_folder, locked_folder, read_json, read_manifest, sync_folder, write_json

SERVICE = "service.json"


def exports_folder() -> Path:
    """The folder of the model's versions."""
    return artifacts_folder() / "exports" / load(ArtifactSettings).model_name


def versions() -> list[int]:
    """The versions there are, oldest first."""
    folder = exports_folder()
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()) if folder.is_dir() else []


def version_folder(version: int) -> Path:
    """The folder of a version.

    Raises:
        ArtifactError: there is no such version; names those there are.
    """
    folder = exports_folder() / str(version)
    if not folder.is_dir():
        there = ", ".join(map(str, versions())) or "none"
        raise ArtifactError(f"model version {version}: not in {exports_folder()}; there are: {there}")
    return folder


def version_manifest(version: int) -> dict[str, Any]:
    """What ExportModel wrote down about a version."""
    return read_manifest(version_folder(version))


def version_of(fingerprint: str) -> int | None:
    """The version that an export of this fingerprint became."""
    return next((one for one in reversed(versions()) if version_manifest(one)["fingerprint"] == fingerprint), None)


def version_in_service() -> int | None:
    """The version that the next batch is scored with, or None before the first export."""
    there = versions()
    if not there:
        return None
    chosen = read_json(exports_folder() / SERVICE) if (exports_folder() / SERVICE).is_file() else {}
    # A choice holds until a newer version is exported.
    return int(chosen["version"]) if chosen.get("newest") == there[-1] else there[-1]


def put_in_service(version: int) -> None:
    """Makes a version the one in service, until a newer one is exported."""
    version_folder(version)
    write_json(exports_folder() / SERVICE, {"version": version, "newest": versions()[-1]})


def publish_version(fingerprint: str, build: Callable[[Path, int], None]) -> int:
    """Builds an export and gives it the next version; it appears whole or not at all.

    Args:
        fingerprint: of the export. Another process that builds the same waits here.
        build: fills a folder, told the version it is to become.
    """
    partial = exports_folder() / f"{fingerprint}.partial"
    with locked_folder(partial):
        if (known := version_of(fingerprint)) is not None:
            shutil.rmtree(partial)
            return known
        with locked_folder(exports_folder()):
            clear_folder(partial)
            version = max(versions(), default=0) + 1
            build(partial, version)
            sync_folder(partial)
            partial.rename(exports_folder() / str(version))
        return version


class VersionTarget(luigi.Target):
    """An export that exists once a version carries its fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def __str__(self) -> str:
        return f"{exports_folder()}/<version of {self.fingerprint}>"

    def exists(self) -> bool:
        """Whether there is such a version."""
        return version_of(self.fingerprint) is not None
