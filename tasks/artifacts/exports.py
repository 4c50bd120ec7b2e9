"""Publishes, verifies and lists the exported versions of the model, and selects the version in service.

Each version has the folder `exports/<model>/<version>/`; versions are numbered from 1. The file `models.config` in
`exports/<model>/` names the version in service. The batch, the commands, the front end and TensorFlow Serving read it
there (`tasks.artifacts.model_config`). An export puts its version in service. A person can put another one in service,
until the next export.
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
    read_manifest,
    sync_folder,
    verify_file,
)
from tasks.artifacts.locations import artifacts_folder
from tasks.artifacts.model_config import (
    STABLE,
    ServedVersions,
    list_more,
    read_model_config,
    serve_versions,
    write_model_config,
)
from tasks.settings.loading import load
from tasks.settings.storage import ArtifactSettings

MODEL_CARD = "model_card.md"


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


def served_versions() -> ServedVersions | None:
    """Returns the version in service, the candidate, and the versions that servers load; None before the first export.

    Versions without a `models.config` were exported by an older spamscore: then the newest one is in service.

    Raises:
        ArtifactError: `models.config` is not as spamscore writes it.
    """
    if served := read_model_config(exports_folder()):
        return served
    versions = list_versions()
    return serve_versions(versions, versions[-1], None) if versions else None


def version_in_service() -> int | None:
    """Returns the version that the next batch is scored with; None before the first export."""
    served = served_versions()
    return served.stable if served else None


def announce_version(version: int) -> bool:
    """Lists a version for servers to load, before a label moves to it. Returns whether it was not listed before.

    Raises:
        ArtifactError: the version does not exist, or it was changed after the export.
    """
    verify_version(version)
    with lock_folder(exports_folder()):
        served = _require_served()
        if version in served.loaded:
            return False
        write_model_config(exports_folder(), list_more(served, version))
        return True


def put_in_service(version: int, label: str = STABLE) -> None:
    """Puts a version in service until a newer one is exported, or makes it the candidate.

    Waits for a running export: a rollback must not be overridden by a newer version a moment later.

    Args:
        version: the version.
        label: STABLE for the version in service; CANARY for the candidate, which stays until it is put in service or
            removed.

    Raises:
        ArtifactError: the version does not exist, or it was changed after the export.
    """
    verify_version(version)
    with lock_folder(exports_folder()):
        served = _require_served()
        # Requests for the old version of the label may still be on their way: it stays loaded until the next change.
        versions = list_versions()
        if label == STABLE:
            served = serve_versions(versions, version, served.canary, (served.stable,))
        else:
            served = serve_versions(versions, served.stable, version)
        write_model_config(exports_folder(), served)


def remove_candidate() -> int | None:
    """Removes the label of the candidate. Returns the version that had it; None if there was none."""
    with lock_folder(exports_folder()):
        served = served_versions()
        if served is None or served.canary is None:
            return None
        write_model_config(exports_folder(), serve_versions(list_versions(), served.stable, None))
        return served.canary


def _require_served() -> ServedVersions:
    served = served_versions()
    if served is None:
        raise no_version_error()
    return served


def publish_version(fingerprint: str, build: Callable[[Path, int], None]) -> int:
    """Builds an export, publishes it as the next version, completely or not at all, and puts it in service.

    An export that is already published keeps its version. If the process that published it was killed before the
    version was in service, it is put in service now.

    Args:
        fingerprint: fingerprint of the export. Another process that builds the same export waits here.
        build: fills a folder; takes the folder and the version number.

    Returns:
        The version.
    """
    partial = exports_folder() / f"{fingerprint}.partial"
    with lock_folder(partial):
        published = find_version(fingerprint)
        with lock_folder(exports_folder()):
            served = read_model_config(exports_folder())
            if published is not None:
                shutil.rmtree(partial)
            else:
                clear_folder(partial)
                # The number of a version that was deleted is not used again: a server may still have it loaded.
                published = max([*list_versions(), served.next_version - 1 if served else 0], default=0) + 1
                build(partial, published)
                sync_folder(partial)
                partial.rename(exports_folder() / str(published))
            if not is_released(published):
                canary, before = (served.canary, (served.stable,)) if served else (None, ())
                write_model_config(exports_folder(), serve_versions(list_versions(), published, canary, before))
        return published


def is_released(version: int) -> bool:
    """Returns whether an exported version was in service since its export, which a killed export leaves undone."""
    served = read_model_config(exports_folder())
    return served is not None and version < served.next_version


class VersionTarget(luigi.Target):
    """A Luigi target for an export, which exists once a version has its fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def __str__(self) -> str:
        return f"{exports_folder()}/<version of {self.fingerprint}>"

    def exists(self) -> bool:
        """Returns whether a version has this fingerprint and was put in service."""
        version = find_version(self.fingerprint)
        return version is not None and is_released(version)
