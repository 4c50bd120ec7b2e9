"""Describes a file of messages: its path, format, encoding and columns, and the checks before it is read.

The readers of each format are in the modules named after it. `tasks.sources.files` chooses between them.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.errors import InputError, SettingsError
from tasks.storage.stored_objects import SourcePath, StoredObject

PARQUET_SUFFIXES = (".parquet", ".pq")
FORMATS_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    **dict.fromkeys(PARQUET_SUFFIXES, "parquet"),
}
MESSAGE_FORMATS_BY_SUFFIX = {**FORMATS_BY_SUFFIX, ".xml": "sms_backup"}

# Only a corpus may have the layout "label TAB text". The SMS Spam Collection is distributed both without a suffix and
# as .txt.
CORPUS_FORMATS_BY_SUFFIX = {**FORMATS_BY_SUFFIX, "": "sms", ".txt": "sms"}

# They follow the suffix of the format, as in inbox.csv.gz.
COMPRESSION_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class Dialect:
    """How the fields of a CSV or TSV file are separated; the settings of the same names in [corpus] and [messages]."""

    delimiter: str = "auto"
    quote: str = "auto"
    escape: str = "none"
    null: str = ""


@dataclass(frozen=True)
class FileSource:
    """A file of messages.

    Attributes:
        section: section of luigi.cfg that names the file: corpus or messages.
        path: the file.
        columns: names of the columns to read, by the setting that names each; ``text_column`` is the message.
        format: csv, tsv, jsonl, json, parquet, sms, sms_backup, or auto to choose by the suffix of the file name.
        encoding: encoding of a text file without a byte order mark. Bytes that are invalid in it become U+FFFD.
        dialect: how the fields of a CSV or TSV file are separated.
    """

    section: str
    path: SourcePath
    columns: Mapping[str, str]
    format: str = "auto"
    encoding: str = "utf-8"
    dialect: Dialect = Dialect()

    def __str__(self) -> str:
        return f"[{self.section}] path = {self.path}"


def detect_format(source: FileSource) -> str:
    """Returns the format of a file: the one that is set, or the one its suffix stands for.

    Raises:
        InputError: the suffix is not known.
    """
    if source.format != "auto":
        return source.format
    formats = CORPUS_FORMATS_BY_SUFFIX if source.section == "corpus" else MESSAGE_FORMATS_BY_SUFFIX
    suffix = format_suffix(source.path)
    if suffix not in formats:
        raise InputError(
            f"{source}: unknown format: the suffix of the file name is {suffix!r}. Expected one of "
            f"{', '.join(suffix for suffix in formats if suffix)}, or one of them followed by "
            f"{', '.join(COMPRESSION_SUFFIXES)}. Rename the file or set [{source.section}] format."
        )
    return formats[suffix]


def format_suffix(path: SourcePath) -> str:
    """Returns the suffix that names the format of a file, in lower case: .csv for inbox.csv and for inbox.csv.gz."""
    name = PurePosixPath(path.name)
    return (name.with_suffix("") if has_compression_suffix(path) else name).suffix.lower()


def has_compression_suffix(path: SourcePath) -> bool:
    """Returns whether the name of a file says that it is compressed."""
    return path.suffix.lower() in COMPRESSION_SUFFIXES


def check_encoding(source: FileSource) -> None:
    """Checks that Python can read text in the encoding of a file.

    Raises:
        SettingsError: it cannot. Names the setting and its value.
    """
    try:
        codecs.lookup(source.encoding)
        # Codecs such as rot13, undefined and idna exist but cannot decode a file with replacement of invalid bytes.
        io.TextIOWrapper(io.BytesIO(), codec_name(source.encoding), "replace").read()
    except (LookupError, ValueError):
        raise SettingsError(
            f"[{source.section}] encoding = {source.encoding!r}: no such text encoding. "
            "Expected a name that Python knows, such as utf-8, cp1252, latin-1 or utf-16."
        ) from None


def check_file(source: FileSource) -> None:
    """Checks that a file exists.

    Raises:
        InputError: it does not exist or is a folder. Names the setting and the file.
    """
    if source.path.is_dir():
        raise InputError(
            f"{source}: expected a file, received a folder. Name a file in [{source.section}] path, or a pattern such "
            f"as {source.path}/*.csv."
        )
    if not source.path.is_file():
        where = "" if isinstance(source.path, StoredObject) else f" (looked in {Path.cwd()})"
        raise InputError(f"{source}: no such file{where}. Provide the file or correct the setting, and run again.")


def codec_name(encoding: str) -> str:
    """Returns the codec to read an encoding with: for UTF-8, the one that skips a byte order mark."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
