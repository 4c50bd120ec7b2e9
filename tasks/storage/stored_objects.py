"""Reads files at an address as the readers of messages read local files: a `StoredObject` stands for a `Path`.

A stream is read in blocks of `STREAM_BLOCK` bytes, each with a request of its own: memory does not grow with the
object, a broken connection costs one block, and S3 refuses a block of another version (its ETag). Parquet is read from
any place, with requests for the ranges that it needs. Nothing is copied to the disk.
"""

from __future__ import annotations

import contextlib
import datetime
import glob
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from models.errors import InputError, SpamscoreError
from tasks.storage.addresses import is_address, open_filesystem, report_faults

HEAD_BLOCK = 2**18  # bytes of the first request for a stream
STREAM_BLOCK = 2**23  # bytes of a later one
RANDOM_BLOCK = 2**20  # bytes of a request for a Parquet file
BUFFER = 2**16  # bytes that a reader of lines takes from a block at a time
RANDOM_BLOCKS = 32  # blocks of a Parquet file that are kept


@dataclass(frozen=True)
class ObjectStatus:
    """Size and version of an object.

    Attributes:
        bytes: its size.
        mtime_ns: its modification time, in nanoseconds since 1970; 0 if the store has none.
        etag: the version that the store names; empty if it names none, as HDFS.
        is_folder: whether it is a folder: on object storage, the beginning of the names of objects.
    """

    bytes: int
    mtime_ns: int
    etag: str
    is_folder: bool


_UNSEEN = ObjectStatus(0, 0, "", is_folder=False)


@dataclass(frozen=True)
class StoredObject:
    """An object at an address, or a pattern that matches several. Has the methods of `Path` that the readers use.

    Attributes:
        address: the address, without a user or password.
        setting: the setting that names it, for error messages, such as ``[messages] path``.
        error: type of the errors.
    """

    address: str
    setting: str
    error: type[SpamscoreError] = InputError

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of the name, such as .gz."""
        return PurePosixPath(self.name).suffix

    def is_dir(self) -> bool:
        """Returns whether it is a folder."""
        status = self._look()
        return status is not None and status.is_folder

    def is_file(self) -> bool:
        """Returns whether it is an object. One that may not be looked at counts: opening it reports that."""
        status = self._look()
        return status is not None and not status.is_folder

    def find_status(self) -> ObjectStatus | None:
        """Returns the current size and version; None if there is no such object."""
        with self.report_faults():
            try:
                return self._read_status()
            except FileNotFoundError:
                return None

    def _look(self) -> ObjectStatus | None:
        with self.report_faults():
            try:
                return self._read_status()
            except FileNotFoundError:
                return None
            except PermissionError:
                return _UNSEEN

    def _read_status(self) -> ObjectStatus:
        filesystem, path = open_filesystem(self.address)
        return _to_status(filesystem.info(path))

    def lacks_bucket(self) -> bool:
        """Returns whether the bucket of the address does not exist; False if the store does not say."""
        with self.report_faults():
            filesystem, path = open_filesystem(self.address)
            try:
                filesystem.info(path.partition("/")[0] or "/")
            except PermissionError:
                return False
            except FileNotFoundError:
                return True
            return False

    def find_matches(self) -> list[StoredObject]:
        """Returns what the address matches, in the order of the names, as `tasks.sources.paths.find_files`."""
        status = self._look()
        if not glob.has_magic(self.address):
            return [self] if status else []
        if status not in (None, _UNSEEN):
            return [self]
        with self.report_faults():
            filesystem, path = open_filesystem(self.address)
            try:
                names = filesystem.glob(path)
            except FileNotFoundError:
                return []
        shown = [name for name in sorted(names) if not name.endswith("/") and not _is_hidden(name, path)]
        # The path of fsspec begins with the bucket or container, or with a slash.
        root = "/".join(self.address.split("/")[:3])
        return [replace(self, address=f"{root}/{name.partition('/')[2]}") for name in shown]

    def open(self, mode: str = "rb") -> BinaryIO:
        """Opens the object for reading from its beginning, in bounded memory."""
        return self._open(_Stream, mode, cache_type="none")

    def open_random(self) -> BinaryIO:
        """Opens the object for reading from any place, in bounded memory."""
        options = {"cache_type": "blockcache", "cache_options": {"maxblocks": RANDOM_BLOCKS}}
        return self._open(_Reader, "rb", block_size=RANDOM_BLOCK, **options)

    def _open(self, reader: type[_Reader], mode: str, **options: Any) -> BinaryIO:
        with self.report_faults():
            filesystem, path = open_filesystem(self.address)
            return cast(BinaryIO, io.BufferedReader(reader(self, filesystem.open(path, mode, **options)), BUFFER))

    def report_faults(self) -> Any:
        """Turns what the store reports in a block into an error that names the setting and the address."""
        return report_faults(f"{self.setting} = {self.address}", self.address, self.error)


class _Reader(io.RawIOBase):
    """An open object whose errors name it. An answer that is shorter than it must be is an error too."""

    def __init__(self, stored: StoredObject, file: Any) -> None:
        self._stored, self._file = stored, file
        self._size = int(file.seek(0, io.SEEK_END))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self.fetch(min(len(view), max(0, self._size - self._position)))
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def fetch(self, size: int) -> bytes:
        """Returns the next bytes from the store; the position stays."""
        with self._stored.report_faults():
            self._file.seek(self._position)
            content = bytes(self._file.read(size)) if size else b""
            if len(content) < size:
                raise ConnectionError(f"received {self._position + len(content)} of {self._size} bytes")
        return content

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Stream(_Reader):
    """Reads ahead, more with each block: many readers only look at the head of a file."""

    def __init__(self, stored: StoredObject, file: Any) -> None:
        super().__init__(stored, file)
        self._block, self._start, self._ahead = b"", 0, HEAD_BLOCK

    def fetch(self, size: int) -> bytes:
        offset = self._position - self._start
        if not 0 <= offset < len(self._block):
            self._block = b""  # before the next one is there: memory holds one of them
            self._block = super().fetch(min(self._ahead, self._size - self._position))
            self._start, self._ahead, offset = self._position, min(4 * self._ahead, STREAM_BLOCK), 0
        return self._block[offset : offset + size]


SourcePath = Path | StoredObject


def locate(path: str, setting: str) -> SourcePath:
    """Returns a path of this machine, or the object at an address.

    Args:
        path: the path or address.
        setting: the setting that names it, for error messages.
    """
    return StoredObject(path, setting) if is_address(path) else Path(path)


@contextlib.contextmanager
def open_random(path: SourcePath) -> Iterator[Any]:
    """Gives what pyarrow reads a Parquet file from: the path of a local file, or an open object."""
    if isinstance(path, Path):
        yield path
        return
    with path.open_random() as file:
        yield file


def _to_status(info: dict[str, Any]) -> ObjectStatus:
    etag = next((str(info[key]).strip('"') for key in ("ETag", "etag", "generation") if info.get(key)), "")
    times = (info[key] for key in ("LastModified", "last_modified", "mtime", "updated") if info.get(key))
    return ObjectStatus(int(info.get("size") or 0), _to_nanoseconds(next(times, 0)), etag, info["type"] == "directory")


def _to_nanoseconds(time: Any) -> int:
    if isinstance(time, str):
        time = datetime.datetime.fromisoformat(time)
    if isinstance(time, datetime.datetime):
        time = (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()
    return int(time * 10**9)


def _is_hidden(name: str, pattern: str) -> bool:
    """Returns whether a part of a name starts with a dot that the pattern does not ask for."""
    return "/." in name and "/." not in pattern
