"""Folders that appear whole, with a manifest, or not at all.

A stage builds its folder as `<name>.partial` beside the place it goes to, holding a lock on it, and renames it when the
manifest is written. A killed run leaves the `.partial` folder; the next run takes it over: cleared, or, for a stage
that can go on, as it was left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import luigi

from models.errors import ArtifactError

MANIFEST = "manifest.json"


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
        """The path of a file in the folder."""
        return self.path / name

    def manifest(self) -> dict[str, Any]:
        """What the stage wrote down about the folder.

        Raises:
            ArtifactError: the manifest is missing or is not JSON.
        """
        return read_manifest(self.path)

    @contextlib.contextmanager
    def building(self, resume: bool = False) -> Iterator[Path]:
        """Gives the folder to fill; on leaving without an error it is renamed to its place.

        The block must write the manifest (`write_manifest`) last. Another process that builds the same folder waits
        here and may find the work done: the block asks `exists` before it begins.

        Args:
            resume: keep what a killed run left instead of clearing it.
        """
        partial = self.path.with_name(self.path.name + ".partial")
        with locked_folder(partial):
            if not resume:
                clear_folder(partial)
            yield partial
            if self.exists():
                shutil.rmtree(partial)
            else:
                publish_folder(partial, self.path)


@contextlib.contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a folder, made if needed; the lock goes with the process, however it ends."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # While we waited the folder may have been renamed into place by the process that held it.
            if not path.is_dir() or path.stat().st_ino != os.fstat(handle).st_ino:
                continue
            yield
            return
        finally:
            os.close(handle)


def clear_folder(folder: Path) -> None:
    """Removes what is in a folder; the folder itself stays, for a lock may be on it."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def publish_folder(partial: Path, final: Path) -> None:
    """Renames a finished folder into its place, its bytes on the disk first."""
    sync_folder(partial)
    if final.exists():
        # No manifest, so nobody ever took it for whole: a copy cut short or a hand that deleted the manifest.
        shutil.rmtree(final)
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
    """Writes a folder's manifest: sorted, indented JSON."""
    write_json(folder / MANIFEST, content)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads a folder's manifest.

    Raises:
        ArtifactError: it is missing or is not a JSON object.
    """
    return read_json(folder / MANIFEST)


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
    except ValueError as error:
        raise ArtifactError(f"{path}: expected JSON, but {error}. Delete its folder and run again.") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: expected a JSON object, received a {type(content).__name__}")
    return content
