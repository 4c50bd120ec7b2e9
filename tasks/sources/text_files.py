"""A file of messages: its format, its encoding, and its lines with bounded memory."""

from __future__ import annotations

import codecs
import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from models.errors import InputError, SettingsError

MAX_LINE_LENGTH = 128 * 2**20  # characters of one JSON, TSV or sms line; a longer one is a row with a fault


FORMATS_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


# Only a corpus may have the layout "label TAB text"; the Collection goes about without an ending and as .txt.
CORPUS_FORMATS_BY_SUFFIX = {**FORMATS_BY_SUFFIX, "": "sms", ".txt": "sms"}


@dataclass(frozen=True)
class FileSource:
    """A file of messages.

    Attributes:
        section: section of luigi.cfg that names the file: corpus or messages.
        path: the file.
        columns: names of the columns to read, by the setting that names each; ``text_column`` is the message.
        format: csv, tsv, jsonl, parquet, sms, or auto to go by the ending.
        encoding: encoding of any but a Parquet file; bytes outside it become U+FFFD.
    """

    section: str
    path: Path
    columns: Mapping[str, str]
    format: str = "auto"
    encoding: str = "utf-8"

    def __str__(self) -> str:
        return f"[{self.section}] path = {self.path}"


def detect_format(source: FileSource) -> str:
    """The format of a file: the one that is set, or by its ending.

    Raises:
        InputError: the ending is not known.
    """
    if source.format != "auto":
        return source.format
    endings = CORPUS_FORMATS_BY_SUFFIX if source.section == "corpus" else FORMATS_BY_SUFFIX
    found = endings.get(source.path.suffix.lower())
    if found is None:
        raise InputError(
            f"{source}: the ending {source.path.suffix!r} does not tell the layout. Expected "
            f"{', '.join(one for one in endings if one)}. Rename the file or set [{source.section}] format."
        )
    return found


def check_encoding(source: FileSource) -> None:
    """Refuses an encoding that Python cannot read text in.

    Raises:
        SettingsError: naming setting and value.
    """
    try:
        codecs.lookup(source.encoding)
        # Codecs such as rot13, undefined and idna exist and still cannot read a file with bytes to be replaced.
        io.TextIOWrapper(io.BytesIO(), codec_name(source.encoding), "replace").read()
    except (LookupError, ValueError):
        raise SettingsError(
            f"[{source.section}] encoding = {source.encoding!r}: no such text encoding. "
            "Expected a name that Python knows, such as utf-8, cp1252, latin-1 or utf-16."
        ) from None


def check_file(source: FileSource) -> None:
    """Refuses a file that is not there or holds nothing.

    Raises:
        InputError: naming setting and file.
    """
    if source.path.is_dir():
        raise InputError(f"{source}: expected a file, received a folder. Name one file in [{source.section}] path.")
    if not source.path.is_file():
        raise InputError(
            f"{source}: no such file (looked in {Path.cwd()}). Provide the file or correct the setting, and run again."
        )
    if source.path.stat().st_size == 0:
        raise InputError(
            f"{source}: expected rows, received an empty file (0 bytes). "
            "Provide it again; a file without messages still has its header or schema."
        )


def codec_name(encoding: str) -> str:
    """The codec to read with: UTF-8 accepts a byte order mark."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


@contextlib.contextmanager
def open_text(source: FileSource, newline: str) -> Iterator[TextIO]:
    """Opens the file as text; bytes outside the encoding become U+FFFD."""
    try:
        with source.path.open(encoding=codec_name(source.encoding), errors="replace", newline=newline) as file:
            yield file
    except UnicodeError as error:
        raise InputError(
            f"{source}: cannot be read as {source.encoding}: {error}. Correct [{source.section}] encoding."
        ) from None
    except OSError as error:
        raise InputError(
            f"{source}: cannot be read: {error.strerror or error}. Look at the file's rights and its disk."
        ) from None


def read_lines(source: FileSource, newline: str) -> Iterator[str | None]:
    """Yields each line with its end; None stands for one longer than `MAX_LINE_LENGTH`.

    Args:
        source: the file.
        newline: as for `open`: the empty text ends lines at LF, CRLF and CR, a line feed at LF alone.
    """
    with open_text(source, newline) as file:
        while line := file.readline(MAX_LINE_LENGTH):
            if len(line) == MAX_LINE_LENGTH and not line.endswith("\n"):
                _skip_line(file)
                yield None
            else:
                yield line


def _skip_line(file: TextIO) -> None:
    while (rest := file.readline(2**20)) and not rest.endswith("\n"):
        pass


LINE_TOO_LONG = f"row too long: more than {MAX_LINE_LENGTH} characters"
