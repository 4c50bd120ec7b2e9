"""Expands [corpus] path and [messages] path: the home folder, the date, and patterns that match several files.

A path is one of this machine, or the address of an object, as `tasks.storage.stored_objects` reads it.
"""

from __future__ import annotations

import bisect
import datetime
import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import luigi

from tasks.artifacts.fingerprint import content_sha256, file_sha256
from tasks.scheduler.failures import record_failure, retract_failure
from tasks.scheduler.luigi_defaults import LUIGI_DEFAULTS
from tasks.settings.input_checks import PLACEHOLDER, format_placeholder
from tasks.sources.rows import SourceRow
from tasks.storage.stored_objects import SourcePath, StoredObject, locate

_ABSENT = "absent"


def expand_path(path: str, date: datetime.date | None = None) -> str:
    """Replaces ~ at the start by the home folder and, if a date is given, {date} and {date:FORMAT} by the date.

    Raises:
        SettingsError: a placeholder is not known.
    """
    if date is not None:
        path = PLACEHOLDER.sub(lambda match: format_placeholder(match[1], date), path)
    return os.path.expanduser(path)  # noqa: PTH111 - Path would drop a slash at the end


def is_dated_path(path: str) -> bool:
    """Returns whether a path contains a placeholder for the date."""
    return PLACEHOLDER.search(path) is not None


def find_files(path: str | SourcePath) -> list[SourcePath]:
    """Returns what a path matches, in the order of the names; empty if nothing does.

    The path is a pattern with ``*``, ``?`` and ``[…]``, or with ``**`` for any number of folders; they do not match a
    name that starts with a dot. A path that exists is taken as it is, whatever characters it has.
    """
    if isinstance(path, StoredObject):
        return list(path.find_matches())
    if os.path.lexists(path) or not glob.has_magic(str(path)):
        return [Path(path)] if os.path.lexists(path) else []
    return [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - Path.glob takes no absolute pattern


def hash_files(path: str | SourcePath) -> str:
    """Returns the SHA-256 of the content of all files of a path, in their order; ``absent`` if one is no file.

    Of an object the version that the store names (its ETag) is hashed, so that a check does not read the object.
    """
    files = find_files(path)
    if not files or not all(file.is_file() for file in files):
        return _ABSENT
    hashes = [hash_version(file) if isinstance(file, StoredObject) else file_sha256(file) for file in files]
    return hashes[0] if len(hashes) == 1 else content_sha256(hashes)


def hash_version(stored: StoredObject) -> str:
    """Returns the SHA-256 of the version of an object: its ETag and size; without an ETag its time and address too."""
    status = stored.find_status()
    if status is None:
        return _ABSENT
    return content_sha256([status.etag, status.bytes] if status.etag else [str(stored), status.mtime_ns, status.bytes])


@dataclass
class FileRows:
    """Records which file each row of a source comes from, and names the file in faults if there are several.

    Attributes:
        files: the files of the source, in their order.
        offsets: for each file that was started, the number of rows before it.
    """

    files: list[SourcePath] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def name_files(self, rows: Iterable[SourceRow]) -> Iterator[SourceRow]:
        """Yields rows of `tasks.sources.files.read_files`; a fault says in which row of which file it is."""
        for row in rows:
            is_named = row.fault is not None and len(self.files) > 1
            yield row._replace(fault=self._name_file(row.row_number, row.fault)) if is_named else row

    def _name_file(self, row_number: int, fault: str | None) -> str:
        index = bisect.bisect_left(self.offsets, row_number) - 1
        # The kind of a fault ends at its first colon: see `tasks.sources.rows.fault_kind`.
        separator = ", in" if ":" in str(fault) else ": in"
        return f"{fault}{separator} row {row_number - self.offsets[index]} of {self.files[index]}"


class FilesTarget(luigi.Target):
    """A Luigi target for the files of a path, which exists if there are files and all of them are regular ones."""

    def __init__(self, path: SourcePath) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Returns whether there is something to read."""
        files = find_files(self.path)
        return bool(files) and all(file.is_file() for file in files)


class ExternalFile(luigi.ExternalTask):
    """Input files that the pipeline does not create. If there are none, the run ends as "missing data"."""

    path = luigi.Parameter(description="path of the file, or a pattern for several files")
    setting = luigi.Parameter(description="the setting that names the file, for the error message", significant=False)
    _missing_message = ""

    def output(self) -> FilesTarget:
        """Returns the path as a target."""
        return FilesTarget(self.located())

    def located(self) -> SourcePath:
        """Returns the path, or the object or pattern at an address."""
        return locate(self.path, self.setting)

    def complete(self) -> bool:
        """Returns whether the files exist. Records a failure if not, and retracts it if they appear later."""
        reason = self._describe_missing()
        if reason is None:
            if self._missing_message:
                retract_failure(self._missing_message)
            return True
        self._missing_message = f"missing data: {self.setting} = {self.path}: {reason}, and run again."
        record_failure(self._missing_message, int(LUIGI_DEFAULTS["retcode"]["missing_data"]))
        return False

    def _describe_missing(self) -> str | None:
        """Says why there is nothing to read, and the way out; None if there is something."""
        files = find_files(located := self.located())
        if not files and isinstance(located, StoredObject):
            return _describe_missing_object(located)
        if not files:
            where = f"no such file (looked in {Path.cwd()})"
            if glob.has_magic(self.path):
                where = f"no file matches (looked in {Path(self.path).absolute().parent})"
            return f"{where}. Provide the file or correct the setting"
        for file in files:
            if file.is_dir():
                return f"expected a file, received the folder {file}. Name the files in it, such as {file}/*.csv"
            if not file.is_file():
                return f"{file} is a broken link, or not a regular file. Provide the file or correct the setting"
        return None


def _describe_missing_object(located: StoredObject) -> str:
    if located.lacks_bucket():
        return "no such bucket. Create it or correct the setting"
    if glob.has_magic(located.address):
        return "no object matches. Provide the objects or correct the setting"
    return "no such object. Provide it or correct the setting"
