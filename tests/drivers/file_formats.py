"""Writes rows of messages as bytes of each file format, compression and encoding."""

from __future__ import annotations

import bz2
import codecs
import csv
import functools
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.parquet as pq

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Rows = Sequence[Mapping[str, str | None]]


def compress_zstd(content: bytes) -> bytes:
    """Compresses with a checksum, as the command zstd does."""
    return zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1})


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": functools.partial(gzip.compress, mtime=0),  # two workers must collect the same tests
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": compress_zstd,
}
SUFFIXES = {"gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst"}

# With its byte order mark, each of them decides the encoding of a file.
MARKED_ENCODINGS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


def mark(text: str, encoding: str) -> bytes:
    """Returns text in an encoding, after its byte order mark."""
    return MARKED_ENCODINGS[encoding] + text.encode(encoding)


def to_csv(rows: Rows) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return buffer.getvalue()


def to_tsv(rows: Rows) -> str:
    """Returns TSV, which cannot hold tabs and line breaks."""
    return "".join("\t".join(str(value) for value in values) + "\n" for values in (rows[0], *map(dict.values, rows)))  # type: ignore[arg-type]


def to_json_lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def to_json(rows: Rows) -> str:
    return json.dumps(rows, ensure_ascii=False)


def to_pretty_json(rows: Rows) -> str:
    return json.dumps(rows, indent=2)


def to_sms_backup(rows: Rows) -> str:
    """Returns the XML of SMS Backup & Restore, with the surrogate pairs that the app writes for emoji."""
    messages = "".join(
        f"  <sms {' '.join(f'{name}={_quote(value)}' for name, value in row.items() if value is not None)} />\n"
        for row in rows
    )
    return (
        f"<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>\n<smses count=\"{len(rows)}\">\n{messages}</smses>"
    )


def _quote(value: str) -> str:
    quoted = quoteattr(value, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
    return "".join(map(_reference, quoted))


def _reference(character: str) -> str:
    if ord(character) < 0x10000:
        return character
    units = character.encode("utf-16-be")
    return f"&#{int.from_bytes(units[:2], 'big')};&#{int.from_bytes(units[2:], 'big')};"


TEXT_FORMATS: dict[str, Callable[[Rows], str]] = {
    "csv": to_csv,
    "tsv": to_tsv,
    "jsonl": to_json_lines,
    "json": to_json,
    "pretty json": to_pretty_json,
    "sms_backup": to_sms_backup,
}


def to_parquet(rows: Rows) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(map(dict, rows))), buffer)
    return buffer.getvalue()
