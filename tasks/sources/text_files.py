"""Opens text files and reads their lines in bounded memory.

The reader of each format, in `tasks.sources.formats`, decides what a line means.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TextIO

from models.errors import InputError
from tasks.sources.compression import open_bytes
from tasks.sources.file_source import FileSource, codec_name

MAX_LINE_LENGTH = 128 * 2**20  # characters of one JSON, TSV or sms line; a longer line is a row with a fault
LINE_TOO_LONG = f"row too long: more than {MAX_LINE_LENGTH} characters"


@contextlib.contextmanager
def open_text(source: FileSource, newline: str) -> Iterator[TextIO]:
    """Opens a file as text, decompressed if needed. Bytes that are invalid in its encoding become U+FFFD.

    Args:
        source: the file.
        newline: as for `open`.

    Raises:
        InputError: the file cannot be read, decompressed or decoded. Errors in the body of the ``with`` count too.
    """
    try:
        with (
            open_bytes(source) as content,
            io.TextIOWrapper(content, codec_name(source.encoding), "replace", newline) as file,
        ):
            yield file
    except UnicodeError as error:
        raise InputError(
            f"{source}: cannot be read as {source.encoding}: {error}. Correct [{source.section}] encoding."
        ) from None


def read_lines(source: FileSource, newline: str) -> Iterator[str | None]:
    """Yields each line with its line end, and None for a line longer than `MAX_LINE_LENGTH`.

    Args:
        source: the file.
        newline: as for `open`: with the empty string lines end at LF, CRLF and CR, with a line feed at LF only.
    """
    with open_text(source, newline) as file:
        while line := file.readline(MAX_LINE_LENGTH):
            if len(line) == MAX_LINE_LENGTH and not line.endswith("\n"):
                _skip_line(file)
                yield None
            else:
                yield line


def _skip_line(file: TextIO) -> None:
    while (part := file.readline(2**20)) and not part.endswith("\n"):
        pass
