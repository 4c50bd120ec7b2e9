"""Decompresses gzip, bzip2, xz and zstd while a file is read, in bounded memory.

The standard library's file objects ignore bytes after the first stream that they cannot read. Here these bytes are an
error: a damaged second stream must not shorten the file.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from models.errors import InputError
from tasks.sources.file_source import FileSource
from tasks.storage.stored_objects import SourcePath

BLOCK = 2**16  # bytes of the compressed file that are read at a time
MAX_XZ_MEMORY = 2**28  # bytes; `xz -9` needs 65 MiB, a hostile header can ask for 4 GiB

# A zstd file may begin with a skippable frame, as pzstd writes it.
_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\x00"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
_MAGIC_BYTES = 10


def find_compression(head: bytes) -> str | None:
    """Returns gzip, bzip2, xz or zstd if the first bytes of a file are those of that format; otherwise None."""
    return next((name for name, magic in _MAGIC.items() if magic.match(head)), None)


def file_compression(path: SourcePath) -> str | None:
    """Returns the compression of a file by its content, whatever its name; None if it is not compressed."""
    with path.open("rb") as file:
        return find_compression(file.read(_MAGIC_BYTES))


@contextlib.contextmanager
def open_bytes(source: FileSource) -> Iterator[BinaryIO]:
    """Opens a file for reading, decompressed if its content is compressed.

    Raises:
        InputError: the file cannot be read, or its compressed content is truncated or damaged. Errors in the body of
            the ``with`` count too.
    """
    try:
        with source.path.open("rb") as file:
            compression = find_compression(file.read(_MAGIC_BYTES))
            file.seek(0)
            if compression is None:
                yield file
            else:
                with io.BufferedReader(_DecompressedFile(source, file, compression), BLOCK) as reader:
                    yield cast(BinaryIO, reader)
    except OSError as error:
        raise InputError(
            f"{source}: cannot be read: {error.strerror or error}. Check the permissions of the file and its disk."
        ) from None


class _DecompressedFile(io.RawIOBase):
    """The content of a compressed file of one or more streams (members, frames), one after the other."""

    def __init__(self, source: FileSource, file: BinaryIO, compression: str) -> None:
        self._source, self._file, self._compression = source, file, compression
        self._decompressor, self._error = _new_decompressor(compression)
        self._streams = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and (content := self._read_some(len(view) - filled)):
            view[filled : filled + len(content)] = content
            filled += len(content)
        return filled

    def _read_some(self, size: int) -> bytes:
        """Returns 1 to `size` bytes, or none at the end of the last stream."""
        compressed = b""
        while True:
            if self._decompressor.eof:
                compressed = self._start_next_stream()
                if not compressed:
                    return b""
            elif self._decompressor.needs_input:
                compressed = self._file.read(BLOCK)
            is_at_end = self._decompressor.needs_input and not compressed
            try:
                content: bytes = self._decompressor.decompress(compressed, size)
            except self._error as error:
                raise self._input_error(f"damaged: {error}") from None
            if content:
                return content
            if is_at_end and not self._decompressor.eof:
                raise self._input_error("truncated: it ends within its content")
            compressed = b""

    def _start_next_stream(self) -> bytes:
        """Returns the first bytes of the next stream, or none at the end of the file.

        Zeros between streams are padding.
        """
        compressed: bytes = self._decompressor.unused_data.lstrip(b"\0")
        while not compressed and (block := self._file.read(BLOCK)):
            compressed = block.lstrip(b"\0")
        if compressed:
            self._decompressor, self._error = _new_decompressor(self._compression)
            self._streams += 1
        return compressed

    def _input_error(self, fault: str) -> InputError:
        stream = f" (stream {self._streams} of the file)" if self._streams > 1 else ""
        return InputError(
            f"{self._source}: the {self._compression} file is {fault}{stream}. Nothing of it is used. "
            "Provide the file again, complete."
        )


class _GzipDecompressor:
    """Gives zlib the interface of the other decompressors."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, compressed: bytes, size: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + compressed, size)


def _new_decompressor(compression: str) -> tuple[Any, type[Exception]]:
    """Returns a decompressor of one stream, and the type of its errors."""
    if compression == "gzip":
        return _GzipDecompressor(), zlib.error
    if compression == "bzip2":
        import bz2

        return bz2.BZ2Decompressor(), OSError
    if compression == "xz":
        import lzma

        return lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_XZ_MEMORY), lzma.LZMAError
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdDecompressor(), zstd.ZstdError
