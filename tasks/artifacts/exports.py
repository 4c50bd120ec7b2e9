"""The exported versions of the model, and which one is in service.

`exports/<model>/<version>/`, integers counting up, is what TensorFlow Serving watches; other names there it ignores.
The newest version is in service, unless somebody chose another since it came (`service.json`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import luigi

from models.errors import ArtifactError
from tasks.artifacts.folders import (
    MANIFEST,
    checked_file,
    clear_folder,
    locked_folder,
    read_json,
    read_manifest,
    sealed_files,
    sync_folder,
    write_json,
)
from tasks.artifacts.locations import artifacts_folder
from tasks.settings.loading import load
from tasks.settings.storage import ArtifactSettings

SERVICE, MODEL_CARD = "service.json", "model_card.md"


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
    """What ExportModel wrote down about a version.

    Raises:
        ArtifactError: there is no such version, or it is damaged.
    """
    folder = version_folder(version)
    manifest = read_manifest(folder)
    for key in ("fingerprint", "training", "evaluation"):
        if not re.fullmatch(r"\w{1,64}", str(manifest.get(key, ""))):
            raise ArtifactError(
                f"{folder / MANIFEST}: {key}: expected a fingerprint, received {manifest.get(key)!r}. "
                "Bring the file back from a backup; or delete the folder, and ExportModel makes a new version."
            )
    if manifest.get("version") != version:
        raise ArtifactError(
            f"{folder / MANIFEST}: version: expected {version}, received {manifest.get('version')!r}: a copy of "
            "another version's folder? Bring it back from a backup; or delete the folder, and ExportModel makes a new "
            "version."
        )
    return manifest


def verified_version(version: int) -> dict[str, Any]:
    """Holds the files of a version to its manifest, and returns that. The model card may be written in.

    Raises:
        ArtifactError: there is no such version, or it is not as it was exported.
    """
    manifest, folder = version_manifest(version), version_folder(version)
    for name in sealed_files(folder):
        if name != MODEL_CARD:
            checked_file(folder, name)
    return manifest


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
    if chosen.get("newest") != there[-1]:
        return there[-1]
    if not isinstance(chosen.get("version"), int):
        raise ArtifactError(
            f"{exports_folder() / SERVICE}: version: expected a number, received {chosen.get('version')!r}. "
            "Choose the version again with `spamscore serve`, or delete the file for the newest to be in service."
        )
    return int(chosen["version"])


def put_in_service(version: int) -> None:
    """Makes a version the one in service, until a newer one is exported.

    An export that is going on is waited for: who takes a model back must not get a newer one a moment later.

    Raises:
        ArtifactError: there is no such version, or it is not as it was exported.
    """
    verified_version(version)
    with locked_folder(exports_folder()):
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
