"""Publishes, verifies and lists the exported versions of the model, and selects the version in service.

Versions are in `exports/<model>/<version>/`, numbered from 1. TensorFlow Serving watches this folder and ignores other
names in it. The newest version is in service, unless another one was chosen since its export (`service.json`).
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
    clear_folder,
    list_manifest_files,
    lock_folder,
    read_json,
    read_manifest,
    sync_folder,
    verify_file,
    write_json,
)
from tasks.artifacts.locations import artifacts_folder
from tasks.settings.loading import load
from tasks.settings.storage import ArtifactSettings

SERVICE, MODEL_CARD = "service.json", "model_card.md"


def exports_folder() -> Path:
    """Returns the folder of the model's versions."""
    return artifacts_folder() / "exports" / load(ArtifactSettings).model_name


def list_versions() -> list[int]:
    """Returns the exported versions, oldest first."""
    folder = exports_folder()
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()) if folder.is_dir() else []


def version_folder(version: int) -> Path:
    """Returns the folder of a version.

    Raises:
        ArtifactError: the version does not exist; the error lists those that do.
    """
    folder = exports_folder() / str(version)
    if not folder.is_dir():
        existing = ", ".join(map(str, list_versions())) or "none"
        raise ArtifactError(f"model version {version}: not in {exports_folder()}; there are: {existing}")
    return folder


def read_version_manifest(version: int) -> dict[str, Any]:
    """Reads the manifest that ExportModel wrote for a version.

    Raises:
        ArtifactError: the version does not exist, or its manifest is damaged.
    """
    folder = version_folder(version)
    manifest = read_manifest(folder)
    for key in ("fingerprint", "training", "evaluation"):
        if not re.fullmatch(r"\w{1,64}", str(manifest.get(key, ""))):
            raise ArtifactError(
                f"{folder / MANIFEST}: {key}: expected a fingerprint, received {manifest.get(key)!r}. "
                "Restore the file from a backup; or delete the folder, and ExportModel exports a new version."
            )
    if manifest.get("version") != version:
        raise ArtifactError(
            f"{folder / MANIFEST}: version: expected {version}, received {manifest.get('version')!r}: a copy of "
            "another version's folder? Restore it from a backup; or delete the folder, and ExportModel exports a new "
            "version."
        )
    return manifest


def verify_version(version: int) -> dict[str, Any]:
    """Verifies the files of a version against its manifest and returns the manifest. The model card may be edited.

    Raises:
        ArtifactError: the version does not exist, or it was changed after the export.
    """
    manifest, folder = read_version_manifest(version), version_folder(version)
    for name in list_manifest_files(folder):
        if name != MODEL_CARD:
            verify_file(folder, name)
    return manifest


def find_version(fingerprint: str) -> int | None:
    """Returns the newest version with this fingerprint; None if there is none."""
    for version in reversed(list_versions()):
        if read_version_manifest(version)["fingerprint"] == fingerprint:
            return version
    return None


def no_version_error() -> ArtifactError:
    """Builds the error for a project that has no exported version yet."""
    return ArtifactError(
        f"{exports_folder()}: no model version is exported yet. To export one, run in the folder of your luigi.cfg: "
        "luigi --module pipeline ExportModel"
    )


def version_in_service() -> int | None:
    """Returns the version that the next batch is scored with; None before the first export."""
    versions = list_versions()
    if not versions:
        return None
    chosen = read_json(exports_folder() / SERVICE) if (exports_folder() / SERVICE).is_file() else {}
    # A choice holds until a newer version is exported.
    if chosen.get("newest") != versions[-1]:
        return versions[-1]
    if not isinstance(chosen.get("version"), int):
        raise ArtifactError(
            f"{exports_folder() / SERVICE}: version: expected a number, received {chosen.get('version')!r}. "
            "Choose the version again with `spamscore serve`, or delete the file to put the newest version in service."
        )
    return int(chosen["version"])


def put_in_service(version: int) -> None:
    """Puts a version in service, until a newer one is exported.

    Waits for a running export: a rollback must not be overridden by a newer version a moment later.

    Raises:
        ArtifactError: the version does not exist, or it was changed after the export.
    """
    verify_version(version)
    with lock_folder(exports_folder()):
        write_json(exports_folder() / SERVICE, {"version": version, "newest": list_versions()[-1]})


def publish_version(fingerprint: str, build: Callable[[Path, int], None]) -> int:
    """Builds an export and publishes it as the next version, completely or not at all; returns the version.

    An export that is already published keeps its version.

    Args:
        fingerprint: fingerprint of the export. Another process that builds the same export waits here.
        build: fills a folder; takes the folder and the version number.
    """
    partial = exports_folder() / f"{fingerprint}.partial"
    with lock_folder(partial):
        if (published := find_version(fingerprint)) is not None:
            shutil.rmtree(partial)
            return published
        with lock_folder(exports_folder()):
            clear_folder(partial)
            version = max(list_versions(), default=0) + 1
            build(partial, version)
            sync_folder(partial)
            partial.rename(exports_folder() / str(version))
        return version


class VersionTarget(luigi.Target):
    """A Luigi target for an export, which exists once a version has its fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def __str__(self) -> str:
        return f"{exports_folder()}/<version of {self.fingerprint}>"

    def exists(self) -> bool:
        """Returns whether a version has this fingerprint."""
        return find_version(self.fingerprint) is not None
