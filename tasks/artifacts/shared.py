"""Copies artifact folders to and from [artifacts] shared, where executors on other machines find them.

An address mirrors the artifacts folder: ``<shared>/snapshots/<date>/<name>``. The manifest is uploaded last: a copy
without one is incomplete, and a reader does not take it. A machine downloads a folder once, into a cache, and verifies
each file against the manifest.

The functions take addresses and load no settings, except `shared_address`: executors have no luigi.cfg.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from models.errors import ArtifactError
from tasks.artifacts.fingerprint import content_sha256
from tasks.artifacts.folders import MANIFEST, FolderTarget, find_file_damage, list_manifest_files, verify_seal
from tasks.artifacts.folders import verify_file as verify_local_file
from tasks.artifacts.locations import SNAPSHOTS, artifacts_folder
from tasks.settings.loading import load
from tasks.settings.storage import ArtifactSettings
from tasks.storage.addresses import is_missing_bucket, open_filesystem, report_faults

log = logging.getLogger("spamscore")

_SETTING = "[artifacts] shared"
# File systems that rename a file in one step. A store of objects shows an object only when it is whole.
_RENAMING = ("file://", "hdfs://")


def shared_address(folder: Path) -> str | None:
    """Returns the address of the copy of an artifact folder; None if [artifacts] shared is not set.

    Args:
        folder: a folder within [artifacts] folder.
    """
    shared = load(ArtifactSettings).shared
    return f"{shared.rstrip('/')}/{folder.relative_to(artifacts_folder()).as_posix()}" if shared else None


def put_folder(folder: Path, address: str) -> int:
    """Uploads an artifact folder: the files of its manifest, then the manifest. An equal copy is left as it is.

    Args:
        folder: a complete folder, with its manifest.
        address: address of the copy.

    Returns:
        The number of uploaded files; 0 if an equal copy is there.

    Raises:
        ArtifactError: a file of the folder is damaged, or the storage cannot be written.
    """
    names = list_manifest_files(folder)
    with _report_faults(address):
        filesystem, path = open_filesystem(address)
        sizes = _list_sizes(filesystem, path)
        expected = {name: (folder / name).stat().st_size for name in (*names, MANIFEST)}
        content = (folder / MANIFEST).read_bytes()
        if sizes.items() >= expected.items() and filesystem.cat_file(f"{path}/{MANIFEST}") == content:
            return 0
        if MANIFEST in sizes:
            filesystem.rm_file(f"{path}/{MANIFEST}")
        for name in names:
            filesystem.put_file(str(verify_local_file(folder, name)), f"{path}/{name}")
        _write_manifest(filesystem, f"{path}/{MANIFEST}", content, address)
    log.info("%s: uploaded (%d files)", address, len(expected))
    return len(expected)


def _list_sizes(filesystem: Any, path: str) -> dict[str, int]:
    """Returns the size of each file of a copy by its name; empty if there is none."""
    try:
        found = filesystem.find(path, detail=True)
    except FileNotFoundError:
        return {}
    return {name[len(path) :].lstrip("/"): info["size"] for name, info in found.items() if not name.endswith("/")}


def _write_manifest(filesystem: Any, path: str, content: bytes, address: str) -> None:
    if not address.startswith(_RENAMING):
        filesystem.pipe_file(path, content)
        return
    filesystem.pipe_file(f"{path}.partial", content)
    filesystem.mv(f"{path}.partial", path)


def fetch_folder(address: str, cache: Path) -> Path:
    """Returns a local copy of a shared folder, verified against its manifest. Downloads it unless the cache has it.

    Processes of one machine that share the cache wait for each other, and one of them downloads. A copy in the cache
    that is damaged, or of which another content was uploaded since, is replaced.

    Args:
        address: address of the folder, as for `put_folder`.
        cache: folder for the local copies; created if needed.

    Raises:
        ArtifactError: the folder is missing, incomplete or damaged, or the storage cannot be read.
    """
    manifest = _read_manifest(address)
    names = list(_parse_manifest(manifest, address))
    # A snapshot is named by its own folder and that of its date. The first folder tells addresses apart.
    path = cache.joinpath(content_sha256(address)[:16], *PurePosixPath(address).parts[-2:])
    if not _is_copy(path, manifest):
        with FolderTarget(path).build() as partial:
            if not _is_copy(path, manifest):
                shutil.rmtree(path, ignore_errors=True)
                (partial / MANIFEST).write_bytes(manifest)
                for name in names:
                    _download(address, name, partial)
    return path


def _is_copy(path: Path, manifest: bytes) -> bool:
    """Returns whether a local folder is a whole copy with this manifest."""
    try:
        if (path / MANIFEST).read_bytes() != manifest:
            return False
        return not any(find_file_damage(path, name) for name in list_manifest_files(path))
    except (FileNotFoundError, ArtifactError):
        return False  # not there, or another process is replacing it


def _download(address: str, name: str, partial: Path) -> None:
    """Downloads a file and verifies it against the manifest."""
    where = f"{address}/{name}"
    (partial / name).parent.mkdir(parents=True, exist_ok=True)
    with _report_faults(where):
        filesystem, path = open_filesystem(where)
        try:
            filesystem.get_file(path, str(partial / name))
        except FileNotFoundError:
            raise _damage_error(where, address, "no such file") from None
    if reason := find_file_damage(partial, name):
        raise _damage_error(where, address, reason)


def _read_manifest(address: str) -> bytes:
    with _report_faults(address):
        filesystem, path = open_filesystem(f"{address}/{MANIFEST}")
        try:
            return bytes(filesystem.cat_file(path))
        except FileNotFoundError as error:
            if is_missing_bucket(error):
                raise
            raise ArtifactError(
                f"{_SETTING}: {address}: no such folder, or an upload that was cut off: it has no {MANIFEST}. Run the "
                "task again: it uploads the folder."
            ) from None


def _parse_manifest(manifest: bytes, address: str) -> dict[str, dict[str, Any]]:
    """Returns the files of a manifest, with their size and SHA-256.

    Raises:
        ArtifactError: it is not the manifest that was written, or names a file outside of its folder.
    """
    try:
        files: dict[str, dict[str, Any]] = verify_seal(json.loads(manifest))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damage_error(f"{address}/{MANIFEST}", address, "its content does not have its own SHA-256") from None
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise _damage_error(f"{address}/{MANIFEST}", address, f"it names a file outside of its folder: {name!r}")
    return files


def delete_shared_snapshots(shared: str, before: datetime.date) -> list[str]:
    """Deletes the shared snapshots of old dates, and returns the addresses of their folders.

    Args:
        shared: the address that [artifacts] shared names.
        before: snapshots of this date and later ones are kept, as are folders not named after a date.

    Raises:
        ArtifactError: the storage cannot be written.
    """
    root = f"{shared.rstrip('/')}/{SNAPSHOTS}"
    deleted = []
    with _report_faults(root):
        filesystem, path = open_filesystem(root)
        for folder in sorted(_list_folders(filesystem, path)):
            name = folder.rstrip("/").rpartition("/")[2]
            if _is_before(name, before):
                # A deletion that is cut off leaves no manifest without its files.
                for file in [file for file in filesystem.find(folder) if file.endswith(f"/{MANIFEST}")]:
                    filesystem.rm_file(file)
                filesystem.rm(folder, recursive=True)
                deleted.append(f"{root}/{name}")
    return deleted


def _list_folders(filesystem: Any, path: str) -> list[str]:
    try:
        return list(filesystem.ls(path, detail=False))
    except FileNotFoundError:
        return []


def _is_before(name: str, before: datetime.date) -> bool:
    try:
        return len(name) == len("2026-01-31") and datetime.date.fromisoformat(name) < before
    except ValueError:
        return False


def _report_faults(address: str) -> contextlib.AbstractContextManager[None]:
    return report_faults(f"{_SETTING}: {address}", address, ArtifactError)


def _damage_error(where: str, address: str, reason: str) -> ArtifactError:
    return ArtifactError(
        f"{_SETTING}: {where}: not what was uploaded: {reason}. Delete {address} and run the task again: it uploads "
        "the folder."
    )
