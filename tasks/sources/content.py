"""Identifies what a file is by its content: compressed or not, its encoding, and contents that are no messages."""

from __future__ import annotations

import codecs
import dataclasses
import re
from typing import NamedTuple

from models.errors import InputError
from tasks.sources.compression import file_compression, find_compression, open_bytes
from tasks.sources.file_source import PARQUET_SUFFIXES, FileSource, detect_format, format_suffix, has_compression_suffix
from tasks.sources.formats.json_layout import choose_json_format
from tasks.sources.text_files import open_text

HEAD = 2**16  # bytes at the beginning of a file that are looked at


class _Signature(NamedTuple):
    """The first bytes of a kind of file, its name, what to do with it, and the suffixes and format it is right for."""

    magic: re.Pattern[bytes]
    name: str
    advice: str
    format: str = ""


_SIGNATURES = (
    _Signature(
        re.compile(rb"PK(?:\x03\x04|\x05\x06)"),
        "a zip archive",
        "Unpack it. If it is an Excel or LibreOffice workbook (.xlsx, .ods), save it as CSV UTF-8.",
    ),
    _Signature(
        re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        "a document of an old Microsoft Office, such as .xls",
        "Save the workbook as CSV UTF-8.",
    ),
    _Signature(re.compile(rb"%PDF-"), "a PDF", "Export the messages as CSV, JSON or Parquet."),
    _Signature(
        re.compile(rb"SQLite format 3\x00"),
        "an SQLite database",
        "Set [{section}] source = sql and [{section}] url = sqlite:///FILE, with a query.",
    ),
    _Signature(re.compile(rb"PAR1"), "a Parquet file", "Set [{section}] format = parquet.", "parquet"),
    _Signature(re.compile(rb".{257}ustar", re.DOTALL), "a tar archive", "Unpack it."),
)

_MARKS = (
    # The mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)
# Encodings without a mark, the bytes of a character in them, and which of these bytes an ASCII character fills.
_WIDE_ENCODINGS = (("utf-16-le", 2, 0), ("utf-16-be", 2, 1), ("utf-32-le", 4, 0), ("utf-32-be", 4, 3))

# JSON lines alone can express a night without messages by no bytes.
_EMPTY_FILES = {
    "csv": "A CSV file without messages still has a first line with the names of its columns.",
    "tsv": "A TSV file without messages still has a first line with the names of its columns.",
    "json": "An array without messages is written []. If the file has JSON lines, set [{section}] format = jsonl.",
    "parquet": "A Parquet file without messages still has its schema.",
    "sms": "A file of labelled messages has lines of label TAB text.",
    "sms_backup": "A backup without messages still has the element <smses>.",
}


def identify(source: FileSource) -> FileSource:
    """Returns the description of a file with the format and the encoding that its content has.

    Raises:
        InputError: the file cannot be read, is empty, or its content does not fit its format. Says what it is.
    """
    with open_bytes(source) as file:
        head = file.read(HEAD)
    compression = file_compression(source.path)
    _check_signature(source, head, compression)
    format_name = detect_format(source)
    if not head:
        _check_empty(source, format_name, compression)
    if format_name == "parquet":
        _check_uncompressed(source, compression)
        return dataclasses.replace(source, format=format_name)
    identified = dataclasses.replace(source, encoding=_detect_encoding(source, head))
    with open_text(identified, newline="\n") as text_file:
        text = text_file.read(HEAD)
    _check_markup(source, text, format_name)
    if format_name in ("json", "jsonl"):
        format_name = choose_json_format(identified, text)
    return dataclasses.replace(identified, format=format_name)


def _check_signature(source: FileSource, head: bytes, compression: str | None) -> None:
    is_parquet = source.format == "parquet" or (
        source.format == "auto" and format_suffix(source.path) in PARQUET_SUFFIXES
    )
    found = next((signature for signature in _SIGNATURES if signature.magic.match(head)), None)
    where = f"the content of the {compression} file" if compression else "the file"
    if compression and (inner := find_compression(head)):
        raise InputError(f"{source}: {where} is compressed again, with {inner}. Decompress it once.")
    if found and not (is_parquet and found.format == "parquet"):
        advice = found.advice.format(section=source.section)
        raise InputError(f"{source}: expected messages, but {where} is {found.name}. {advice}")


def _check_uncompressed(source: FileSource, compression: str | None) -> None:
    if compression:
        raise InputError(
            f"{source}: expected Parquet, received a {compression} file. Decompress it: Parquet is read from any place "
            "of the file, and compresses its columns itself."
        )


def _check_empty(source: FileSource, format_name: str, compression: str | None) -> None:
    advice = _EMPTY_FILES.get(format_name, "").format(section=source.section)
    if compression is None and has_compression_suffix(source.path):
        advice = f"A {source.path.suffix} file is never empty: it was cut off."
    if advice:
        decompressed = f" (0 bytes once {compression} is decompressed)" if compression else " (0 bytes)"
        raise InputError(f"{source}: expected rows, received an empty file{decompressed}. {advice}")


def _detect_encoding(source: FileSource, head: bytes) -> str:
    """Returns the encoding of the byte order mark, or the one that is set.

    Raises:
        InputError: the file certainly is in UTF-16 or UTF-32 without a mark, and another encoding is set.
    """
    if marked := next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None):
        return marked
    found = next((wide[0] for wide in _WIDE_ENCODINGS if _is_wide_ascii(head, *wide[1:])), None)
    if found and codecs.lookup(source.encoding).name != found:
        raise InputError(
            f"{source}: expected text in {source.encoding}, received {found} without a byte order mark. "
            f"Set [{source.section}] encoding = {found}."
        )
    return source.encoding


def _is_wide_ascii(head: bytes, width: int, filled: int) -> bool:
    """Returns whether a file begins with ASCII characters of `width` bytes each, of which all but one are NUL."""
    first = head[: 8 * width]
    fits = all(bool(byte) == (index % width == filled) for index, byte in enumerate(first))
    return fits and len(first) >= 2 * width


def _check_markup(source: FileSource, text: str, format_name: str) -> None:
    start = text[:1000].lstrip("\ufeff").lstrip().lower()
    if start.startswith(("<!doctype html", "<html")):
        raise InputError(
            f"{source}: expected messages, but the file is a web page (HTML), such as a page that asks for a login. "
            "Download the file itself."
        )
    if start.startswith(("<?xml", "<smses")) and format_name != "sms_backup":
        raise InputError(
            f"{source}: expected {format_name}, received XML. Only [messages] reads XML, that of SMS Backup & Restore: "
            "[messages] format = sms_backup."
        )
