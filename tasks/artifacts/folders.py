"""Folders that appear whole, with a manifest, or not at all.

A stage builds its folder as `<name>.partial` beside the place it goes to, holding a lock on it, and renames it when the
manifest is written. A killed run leaves the `.partial` folder; the next run takes it over: cleared, or, for a stage
that can go on, as it was left.

The manifest is sealed: it carries the size and SHA-256 of every file beside it, and a SHA-256 of its own content. Who
reads a folder, or a file of it, reads what was written or gets an error. Whether a folder is there is asked often, and
looks for the manifest alone.
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
# What `write_manifest` adds to a manifest: the files beside it, and the hash of all that it says.
_FILES, _SEAL = "files", "manifest_sha256"


class FolderTarget(luigi.Target):
    """A folder that exists once its manifest does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether the folder is there, whole."""
        return (self.path / MANIFEST).is_file()

    def file(self, name: str) -> Path:
        """The path of a file in the folder, which is the one that was written.

        Raises:
            ArtifactError: the file or the manifest is missing or was changed.
        """
        return checked_file(self.path, name)

    def manifest(self) -> dict[str, Any]:
        """What the stage wrote down about the folder.

        Raises:
            ArtifactError: the manifest is missing, was changed, or is another folder's.
        """
        content = read_manifest(self.path)
        if (made := content.get("fingerprint", self.path.name)) != self.path.name:
            raise ArtifactError(
                f"{self.path / MANIFEST}: expected the manifest of {self.path.name}, received that of {made}: a copy "
                f"of another folder? Bring it back from a backup; or delete {self.path} and run again."
            )
        return content

    @contextlib.contextmanager
    def building(self, resume: bool = False, wait: bool = True) -> Iterator[Path]:
        """Gives the folder to fill; on leaving without an error it is renamed to its place.

        The block must write the manifest (`write_manifest`) last. Another process that builds the same folder waits
        here and may find the work done: the block asks `exists` before it begins.

        Args:
            resume: keep what a killed run left instead of clearing it.
            wait: for another process that builds the folder.

        Raises:
            AlreadyRunningError: another process builds it, and `wait` is false.
        """
        partial = self.path.with_name(self.path.name + ".partial")
        with locked_folder(partial, wait):
            if not resume:
                clear_folder(partial)
            yield partial
            if self.exists():
                shutil.rmtree(partial)
            else:
                publish_folder(partial, self.path)


@contextlib.contextmanager
def locked_folder(path: Path, wait: bool = True) -> Iterator[None]:
    """Holds an exclusive lock on a folder, made if needed; the lock goes with the process, however it ends.

    Raises:
        AlreadyRunningError: another process holds it, and `wait` is false.
    """
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            _flock(handle, path, wait)
            # While we waited the folder may have been renamed into place by the process that held it.
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
                "Run again once that one has ended, or set it to wait."
            ) from None
        log.info("%s: another run is building it; waiting for it to end", path)
        fcntl.flock(handle, fcntl.LOCK_EX)


def clear_folder(folder: Path) -> None:
    """Removes what is in a folder; the folder itself stays, for a lock may be on it."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def publish_folder(partial: Path, final: Path) -> None:
    """Renames a finished folder into its place, its bytes on the disk first."""
    sync_folder(partial)
    if final.exists():
        # No manifest, so nobody ever took it for whole: a copy cut short or a hand that deleted the manifest.
        aside = final.with_name(final.name + ".damaged")
        log.warning("%s: no %s in it, so it is not taken for whole: set aside as %s", final, MANIFEST, aside.name)
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
    partial.rename(final)
    _sync(final.parent)


def sync_folder(folder: Path) -> None:
    """Asks the system to have every file of a folder on the disk."""
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
    """Writes a folder's manifest and seals it; every other file must be there as it is to stay.

    Args:
        folder: the folder, finished.
        content: what can be written as JSON.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(MANIFEST)]
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in paths
    }
    # Once through JSON, for it is what a reader gets that is sealed: its keys are text, its tuples are lists.
    sealed = json.loads(json.dumps({**content, _FILES: files}))
    write_json(folder / MANIFEST, {**sealed, _SEAL: content_sha256(sealed)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """What was handed to `write_manifest`.

    Raises:
        ArtifactError: the manifest is missing, is not JSON, or was changed.
    """
    content = _sealed(folder)
    del content[_FILES]
    return content


def _sealed(folder: Path) -> dict[str, Any]:
    """A manifest with its list of files, its seal checked and taken off."""
    path = folder / MANIFEST
    content = read_json(path)
    expected, received = content.pop(_SEAL, None), content_sha256(content)
    if expected != received:
        raise ArtifactError(
            f"{path}: not the manifest that was written: expected content of SHA-256 {expected}, as its "
            f"{_SEAL} says, received {received}: changed by hand? Bring it back from a backup; or delete {folder} and "
            "run again."
        )
    return content


def sealed_files(folder: Path) -> list[str]:
    """The files of a folder by its manifest, such as ``variables/variables.index``.

    Raises:
        ArtifactError: as for `read_manifest`.
    """
    return list(_sealed(folder)[_FILES])


def checked_file(folder: Path, name: str) -> Path:
    """The path of a file in a folder, held to the folder's manifest.

    Raises:
        ArtifactError: as for `read_manifest`; or the file is not in it, is missing, or was changed.
    """
    path = folder / name
    if reason := file_damage(folder, name):
        raise ArtifactError(
            f"{path}: not the file that was written: {reason}. Bring it back from a backup; or delete {folder} and "
            "run again."
        )
    return path


def file_damage(folder: Path, name: str) -> str | None:
    """Why a file is not the one that the folder's manifest knows; None if it is.

    Raises:
        ArtifactError: as for `read_manifest`.
    """
    expected, path = _sealed(folder)[_FILES].get(name), folder / name
    if expected is None:
        return f"{MANIFEST} has no such file"
    if not path.is_file():
        return "no such file"
    if (size := path.stat().st_size) != expected["bytes"]:
        return f"expected {expected['bytes']} bytes, as its {MANIFEST} has it, received {size}"
    if (received := file_sha256(path)) != expected["sha256"]:
        return f"expected SHA-256 {expected['sha256']}, as its {MANIFEST} has it, received {received}"
    return None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes sorted, indented JSON by way of a temporary file, so that a reader sees the old or the new one."""
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
            f"{path}: no such file. Delete its folder and run again; the stage makes it anew."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: expected JSON, but {error}. Delete its folder and run again.") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: expected a JSON object, received a {type(content).__name__}")
    return content
