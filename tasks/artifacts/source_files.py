"""Describes when and from which files a snapshot was taken, and which of the files were modified since.

Only the manifest of the snapshot is read, so that a run with nothing to do stays fast.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ArtifactError, InputError
from tasks.artifacts.folders import MANIFEST, read_manifest
from tasks.storage.stored_objects import SourcePath, StoredObject, locate


@dataclass(frozen=True)
class SourceFile:
    """A file that messages were read from, as it was then.

    Attributes:
        path: the file, as it is set, or the address of an object.
        bytes: its size.
        mtime_ns: its modification time, in nanoseconds since 1970.
        etag: the version of an object that its store names; empty for a file.
    """

    path: str
    bytes: int
    mtime_ns: int
    etag: str = ""

    def find_change(self) -> str | None:
        """Returns how the file differs from what was read; None if it does not, or if it is gone."""
        try:
            now = describe_file(locate(self.path, "path"))
        except (OSError, InputError):
            return None  # rotated away, or the store does not answer: what was read is in the snapshot
        if (now.bytes, now.etag or now.mtime_ns) == (self.bytes, self.etag or self.mtime_ns):
            return None
        size = f", {self.bytes:,} bytes then, {now.bytes:,} now" if now.bytes != self.bytes else ""
        return f"{self.path} was modified after it was read ({_format_time(now.mtime_ns / 1e9)}{size})"


def describe_file(path: SourcePath) -> SourceFile:
    """Returns the current size and modification time of a file, or those and the ETag of an object.

    Raises:
        OSError: the file or object does not exist.
        InputError: the store of the object does not answer.
    """
    if isinstance(path, StoredObject):
        found = path.find_status()
        if found is None:
            raise FileNotFoundError(f"{path}: no such object")
        return SourceFile(str(path), found.bytes, found.mtime_ns, found.etag)
    status = path.stat()
    return SourceFile(str(path), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class SnapshotOrigin:
    """What the manifest of a snapshot says about its origin.

    Attributes:
        source: name of the file or query.
        rows: number of messages.
        faults: number of messages with a fault, by kind.
        other_dates: number of rows of other dates, which were left out.
        taken_at: when the source was read, as ISO text in UTC; None in a snapshot of an older version.
        files: the files that were read, as they were then; empty for a query and in a snapshot of an older version.
    """

    source: str
    rows: int
    faults: Mapping[str, int]
    other_dates: int
    taken_at: str | None
    files: tuple[SourceFile, ...]

    def find_changes(self) -> list[str]:
        """Returns a phrase for each file that was modified after it was read."""
        return [change for file in self.files if (change := file.find_change())]

    def __str__(self) -> str:
        taken_at = datetime.datetime.fromisoformat(self.taken_at).timestamp() if self.taken_at else None
        when = "" if taken_at is None else f" on {_format_time(taken_at)}"
        changes = "".join(f"; {change}" for change in self.find_changes())
        return f"read from {self.source}{when}{changes}"


def read_origin(snapshot: Path) -> SnapshotOrigin | None:
    """Reads the origin of a snapshot from its manifest; None if there is no such snapshot.

    Raises:
        ArtifactError: the manifest is damaged.
    """
    if not (snapshot / MANIFEST).is_file():
        return None
    content = read_manifest(snapshot)
    try:
        return SnapshotOrigin(
            source=content["source"],
            rows=content["rows"],
            faults=content["faults"],
            other_dates=content["other_dates"]["rows"],
            taken_at=content.get("taken_at"),
            files=tuple(SourceFile(**file) for file in content.get("source_files", ())),
        )
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{snapshot / MANIFEST}: not the manifest of a snapshot: {error}") from None


def describe_origin(snapshot: Path) -> str:
    """Returns the origin of a snapshot as a phrase, or why it is unknown. Raises no error of a damaged manifest."""
    try:
        return str(read_origin(snapshot) or f"its snapshot {snapshot} no longer exists")
    except ArtifactError as error:
        return str(error)


def find_changes(snapshot: Path) -> list[str]:
    """Returns a phrase for each file of a snapshot that was modified since, or for the damage of its manifest."""
    try:
        origin = read_origin(snapshot)
    except ArtifactError as error:
        return [str(error)]
    return origin.find_changes() if origin else []


def origin_to_json(files: Iterable[SourceFile], taken_at: datetime.datetime) -> dict[str, Any]:
    """Returns the keys of a manifest that `read_origin` reads in addition to the counts."""
    return {
        "taken_at": taken_at.isoformat(timespec="seconds"),
        "source_files": [_file_to_json(file) for file in files],
    }


def _file_to_json(file: SourceFile) -> dict[str, Any]:
    etag = {"etag": file.etag} if file.etag else {}
    return {"path": file.path, "bytes": file.bytes, "mtime_ns": file.mtime_ns, **etag}


def _format_time(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M} UTC"
