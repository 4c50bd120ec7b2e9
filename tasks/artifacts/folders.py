"""Writes and reads the folders of artifacts: a folder appears complete, with a manifest, or not at all.

A stage builds its folder as `<name>.partial`, under a lock, and renames it to `<name>` after the manifest is written. A
killed run leaves the `.partial` folder. The next run takes it over: a stage that can resume finds it as it was left,
any other stage starts with an empty folder.

The manifest contains the size and SHA-256 of every file in the folder, and the SHA-256 of its own content. A reader of
the folder or of a file gets what was written, or an error. `FolderTarget.exists` is called often, so it only checks
that the manifest is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import luigi

from models.errors import AlreadyRunningError, ArtifactError
from tasks.artifacts.fingerprint import content_sha256, file_sha256

log = logging.getLogger("spamscore")

MANIFEST = "manifest.json"
# The keys that `write_manifest` adds to a manifest: the files of the folder, and the hash of the manifest itself.
_FILES, _SEAL = "files", "manifest_sha256"


class FolderTarget(luigi.Target):
    """A Luigi target for a folder, which exists once its manifest exists."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Returns whether the folder is complete."""
        return (self.path / MANIFEST).is_file()

    def file(self, name: str) -> Path:
        """Returns the path of a file in the folder, verified against the manifest.

        Raises:
            ArtifactError: the file or the manifest is missing or was changed.
        """
        return verify_file(self.path, name)

    def manifest(self) -> dict[str, Any]:
        """Returns the content of the manifest, as the stage wrote it.

        Raises:
            ArtifactError: the manifest is missing, was changed, or belongs to another folder.
        """
        content = read_manifest(self.path)
        if (received := content.get("fingerprint", self.path.name)) != self.path.name:
            raise ArtifactError(
                f"{self.path / MANIFEST}: expected the manifest of {self.path.name}, received that of {received}: a "
                f"copy of another folder? Restore it from a backup; or delete {self.path} and run again."
            )
        return content

    @contextlib.contextmanager
    def build(self, resume: bool = False, wait: bool = True) -> Iterator[Path]:
        """Gives a partial folder to fill, and renames it to its final name if the block ends without an error.

        The block must write the manifest (`write_manifest`) last. If another process builds the same folder, this call
        waits for it. The block must then check `exists` first: the work may be done.

        Args:
            resume: keep what a killed run left; otherwise the partial folder is cleared.
            wait: wait for another process that builds the folder.

        Raises:
            AlreadyRunningError: another process builds it, and `wait` is false.
        """
        partial = self.path.with_name(self.path.name + ".partial")
        with lock_folder(partial, wait):
            if not resume:
                clear_folder(partial)
            yield partial
            if self.exists():
                shutil.rmtree(partial)
            else:
                publish_folder(partial, self.path)


@contextlib.contextmanager
def lock_folder(path: Path, wait: bool = True) -> Iterator[None]:
    """Holds an exclusive lock on a folder, which is created if needed. The lock ends with the process in any case.

    Raises:
        AlreadyRunningError: another process holds it, and `wait` is false.
    """
    while True:
        try:
            path.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # renamed by the process that held the lock
        except FileExistsError:
            if path.exists():
                raise
            continue  # renamed while `mkdir` looked what exists there
        try:
            _flock(handle, path, wait)
            # The process that held the lock may have renamed the folder meanwhile.
            if not path.is_dir() or path.stat().st_ino != os.fstat(handle).st_ino:
                continue
            yield
            return
        finally:
            os.close(handle)


def _flock(handle: int, path: Path, wait: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise AlreadyRunningError(
                f"{path}: another run is building it, and [run] when_running = leave. "
                "Run again after that run has ended, or set [run] when_running = wait."
            ) from None
        log.info("%s: another run is building it; waiting for it to end", path)
        fcntl.flock(handle, fcntl.LOCK_EX)


def is_locked(path: Path) -> bool:
    """Returns whether a process holds the lock of a folder, as `lock_folder` takes it; false if there is no folder."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def clear_folder(folder: Path) -> None:
    """Deletes the content of a folder. The folder itself stays, because it may be locked."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def publish_folder(partial: Path, final: Path) -> None:
    """Renames a finished folder to its final name, after its content was flushed to the disk."""
    sync_folder(partial)
    if final.exists():
        # It has no manifest, so no reader used it: an interrupted copy, or somebody deleted the manifest.
        damaged = final.with_name(final.name + ".damaged")
        log.warning("%s: incomplete, because it has no %s; renamed to %s", final, MANIFEST, damaged.name)
        shutil.rmtree(damaged, ignore_errors=True)
        final.rename(damaged)
    partial.rename(final)
    _sync(final.parent)


def sync_folder(folder: Path) -> None:
    """Flushes every file of a folder to the disk (fsync)."""
    for root, _, names in os.walk(folder):
        for name in names:
            _sync(Path(root, name))
        _sync(Path(root))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Writes a folder's manifest, with the hashes of all files and of the manifest itself.

    Args:
        folder: the folder; all other files must be finished.
        content: JSON content.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(MANIFEST)]
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in paths
    }
    # The hash is taken of what a reader gets from JSON: keys are text, tuples are lists.
    sealed = json.loads(json.dumps({**content, _FILES: files}))
    write_json(folder / MANIFEST, {**sealed, _SEAL: content_sha256(sealed)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the content that was passed to `write_manifest`.

    Raises:
        ArtifactError: the manifest is missing, is not JSON, or was changed.
    """
    content = _read_verified_manifest(folder)
    del content[_FILES]
    return content


def _read_verified_manifest(folder: Path) -> dict[str, Any]:
    """Returns a manifest with its list of files, after its own hash was verified and removed."""
    path = folder / MANIFEST
    content = read_json(path)
    expected, received = content.pop(_SEAL, None), content_sha256(content)
    if expected != received:
        raise ArtifactError(
            f"{path}: not the manifest that was written: expected content with SHA-256 {expected}, as in its "
            f"{_SEAL}, received {received}: changed by hand? Restore it from a backup; or delete {folder} and run "
            "again."
        )
    return content


def read_seal(folder: Path) -> str:
    """Returns the SHA-256 of a folder's manifest, which has those of all files: equal for equal folders.

    Raises:
        ArtifactError: as for `read_manifest`.
    """
    return content_sha256(_read_verified_manifest(folder))


def verify_seal(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the files of a manifest that is not in its folder, with their size and SHA-256.

    Raises:
        ValueError: the manifest was changed.
        KeyError: it is not a manifest.
    """
    if content.pop(_SEAL) != content_sha256(content):
        raise ValueError("the manifest was changed")
    return dict(content[_FILES])


def list_manifest_files(folder: Path) -> list[str]:
    """Returns the files that a folder's manifest lists, such as ``variables/variables.index``.

    Raises:
        ArtifactError: as for `read_manifest`.
    """
    return list(_read_verified_manifest(folder)[_FILES])


def verify_file(folder: Path, name: str) -> Path:
    """Verifies a file against the folder's manifest and returns its path.

    Raises:
        ArtifactError: as for `read_manifest`; or the manifest does not list the file, or it is missing or was changed.
    """
    path = folder / name
    if reason := find_file_damage(folder, name):
        raise ArtifactError(
            f"{path}: not the file that was written: {reason}. Restore it from a backup; or delete {folder} and "
            "run again."
        )
    return path


def find_file_damage(folder: Path, name: str) -> str | None:
    """Returns how a file differs from the folder's manifest; None if it does not.

    Raises:
        ArtifactError: as for `read_manifest`.
    """
    expected, path = _read_verified_manifest(folder)[_FILES].get(name), folder / name
    if expected is None:
        return f"{MANIFEST} has no such file"
    if not path.is_file():
        return "no such file"
    if (size := path.stat().st_size) != expected["bytes"]:
        return f"expected {expected['bytes']} bytes, as in its {MANIFEST}, received {size}"
    if (received := file_sha256(path)) != expected["sha256"]:
        return f"expected SHA-256 {expected['sha256']}, as in its {MANIFEST}, received {received}"
    return None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes sorted, indented JSON through a temporary file, so that a reader sees the old or the new content."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ArtifactError: the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: no such file. Delete its folder and run again; the stage then rebuilds it."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: expected JSON, but {error}. Delete its folder and run again.") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: expected a JSON object, received a {type(content).__name__}")
    return content
