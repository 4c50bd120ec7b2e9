"""Tests that the content of a file decides its encoding, and that a file of another kind is named."""

from __future__ import annotations

import io
import sqlite3
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import file_formats
import pytest
from file_formats import COMPRESSIONS, MARKED_ENCODINGS, TEXT_FORMATS, mark

from models.errors import InputError
from tasks.sources.file_source import FileSource
from tasks.sources.files import read_file

COLUMNS = {"id_column": "id", "text_column": "text"}
ROWS = [{"id": "1", "text": "café £ 😀"}, {"id": "2", "text": "b"}]
SUFFIXES = {"csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "json": "json", "pretty json": "json", "sms_backup": "xml"}


def source(path: Path, content: bytes, section: str = "messages", **changes: Any) -> FileSource:
    path.write_bytes(content)
    return FileSource(section, path, **{"columns": COLUMNS, **changes})


def valid_values(source: FileSource) -> list[dict[str, str | None]]:
    rows = list(read_file(source))
    assert [row.fault for row in rows] == [None] * len(rows)
    return [row.values for row in rows]


@pytest.mark.parametrize("layout", TEXT_FORMATS)
@pytest.mark.parametrize("marked", MARKED_ENCODINGS)
@pytest.mark.parametrize("configured", ["utf-8", "cp1252", "utf-16", "utf-16-le"])
def test_a_byte_order_mark_decides_the_encoding(tmp_path: Path, layout: str, marked: str, configured: str) -> None:
    content = mark(TEXT_FORMATS[layout](ROWS), marked)
    path = tmp_path / f"m.{SUFFIXES[layout]}"
    assert valid_values(source(path, content, encoding=configured)) == ROWS


@pytest.mark.parametrize("marked", MARKED_ENCODINGS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_byte_order_mark_within_a_compressed_file_decides_too(tmp_path: Path, marked: str, compression: str) -> None:
    content = COMPRESSIONS[compression](mark(file_formats.to_csv(ROWS), marked))
    assert valid_values(source(tmp_path / "m.csv", content)) == ROWS


def test_a_byte_order_mark_decides_for_the_sms_layout(tmp_path: Path) -> None:
    columns = {"label_column": "label", "text_column": "text"}
    content = mark("ham\tcafé\n", "utf-16-le")
    assert valid_values(source(tmp_path / "SMSSpamCollection", content, "corpus", columns=columns)) == [
        {"label": "ham", "text": "café"}
    ]


@pytest.mark.parametrize("layout", TEXT_FORMATS)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_wide_encoding_without_a_mark_is_named_and_read_once_it_is_set(
    tmp_path: Path, layout: str, encoding: str
) -> None:
    path, content = tmp_path / f"m.{SUFFIXES[layout]}", TEXT_FORMATS[layout](ROWS).encode(encoding)
    for configured in {"utf-8", "latin-1", "utf-16"}:
        with pytest.raises(InputError) as caught:
            read_file(source(path, content, encoding=configured))
        assert str(caught.value).endswith(
            f"expected text in {configured}, received {encoding} without a byte order mark. "
            f"Set [messages] encoding = {encoding}."
        )
    assert valid_values(source(path, content, encoding=encoding)) == ROWS


@pytest.mark.parametrize("header", ["i\0d", "te\0xt", "\0i", "é\0é\0é\0", "i\0\0d\0"])
def test_nuls_that_are_not_certainly_utf_16_are_left_to_the_reader(tmp_path: Path, header: str) -> None:
    columns = {"text_column": header}
    assert valid_values(source(tmp_path / "m.csv", f"{header},x\na,b\n".encode(), columns=columns)) == [{header: "a"}]


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("inbox.csv", "id,text\n1,a\n")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("inbox.csv"), io.BytesIO(b""))
    return buffer.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table messages (id, text)")
    content = connection.serialize()
    connection.close()
    return content


KINDS = {
    "zip": (zipped, "is a zip archive. Unpack it. If it is an Excel or LibreOffice workbook"),
    "tar": (tarred, "is a tar archive. Unpack it."),
    "xls": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 504, "such as .xls. Save the workbook as CSV UTF-8."),
    "pdf": (lambda: b"%PDF-1.7\n%", "is a PDF. Export the messages as CSV, JSON or Parquet."),
    "sqlite": (database, "is an SQLite database. Set [messages] source = sql"),
    "html": (lambda: b"\n<!DOCTYPE html><title>Log in</title>", "the file is a web page (HTML)"),
    "html in utf-16": (lambda: mark("<HTML>", "utf-16-le"), "the file is a web page (HTML)"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.json", "m.xml"])
@pytest.mark.parametrize("compress", [bytes, COMPRESSIONS["gzip"]])
def test_a_file_of_another_kind_is_named_with_a_way_out(tmp_path: Path, kind: str, name: str, compress: Any) -> None:
    make, expected = KINDS[kind]
    with pytest.raises(InputError) as caught:
        read_file(source(tmp_path / name, compress(make())))
    assert f"[messages] path = {tmp_path / name}: expected messages, but" in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("html")])
@pytest.mark.parametrize("name", ["m.xlsx", "m.zip", "m.parquet", "m"])
def test_a_file_of_another_kind_is_named_whatever_its_suffix(tmp_path: Path, kind: str, name: str) -> None:
    make, expected = KINDS[kind]
    with pytest.raises(InputError) as caught:
        read_file(source(tmp_path / name, make()))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("m.csv", {}, "expected messages, but the file is a Parquet file. Set [messages] format = parquet."),
        ("m.parquet", {"format": "csv"}, "the file is a Parquet file. Set [messages] format = parquet."),
        ("m", {}, "the file is a Parquet file. Set [messages] format = parquet."),
    ],
)
def test_parquet_under_another_format_is_named(tmp_path: Path, name: str, changes: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        read_file(source(tmp_path / name, file_formats.to_parquet(ROWS), **changes))
    assert str(caught.value).endswith(expected)


@pytest.mark.parametrize("name", ["m.parquet", "m.parquet.gz", "m.pq.zst"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_parquet_is_refused(tmp_path: Path, name: str, compression: str) -> None:
    content = COMPRESSIONS[compression](file_formats.to_parquet(ROWS))
    with pytest.raises(InputError, match=f"expected Parquet, received a {compression} file. Decompress it"):
        read_file(source(tmp_path / name, content))


@pytest.mark.parametrize("inner", COMPRESSIONS)
def test_a_file_that_is_compressed_twice_is_refused(tmp_path: Path, inner: str) -> None:
    content = COMPRESSIONS["gzip"](COMPRESSIONS[inner](b"id,text\n1,a\n"))
    with pytest.raises(InputError, match=f"content of the gzip file is compressed again, with {inner}. Decompress"):
        read_file(source(tmp_path / "m.csv", content))


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.json"])
def test_xml_under_another_format_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"received XML\. .*\[messages\] format = sms_backup\.$"):
        read_file(source(tmp_path / name, file_formats.to_sms_backup(ROWS).encode()))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.jsonl", b""),
        ("m.ndjson", b""),
        ("m.jsonl", b"\n \r\n\t\n"),
        ("m.jsonl", b"\xef\xbb\xbf"),
        ("m.jsonl", mark("\n", "utf-16-le")),
        ("m.jsonl", COMPRESSIONS["gzip"](b"")),
        ("m.jsonl.zst", COMPRESSIONS["zstd"](b"\n")),
        ("m.jsonl", b"[]"),
        ("m.json", b"[]\n"),
        ("m.json", b"\xef\xbb\xbf [ \n\t]\n"),
        ("m.json.bz2", COMPRESSIONS["bzip2"](b"[]")),
        ("m.csv", b"id,text\n"),
        ("m.csv", b"id,text"),
        ("m.csv.gz", COMPRESSIONS["gzip"](b"id,text\n\n")),
        ("m.tsv", b"id\ttext\n"),
        ("m.xml", b'<?xml version="1.0" encoding="UTF-8"?><smses count="0"></smses>'),
        ("m.xml", b"<smses/>"),
    ],
)
def test_a_file_without_messages_has_no_row(tmp_path: Path, name: str, content: bytes) -> None:
    assert list(read_file(source(tmp_path / name, content))) == []


def test_a_parquet_file_without_messages_has_no_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    pq.write_table(schema.empty_table(), tmp_path / "m.parquet")
    assert list(read_file(FileSource("messages", tmp_path / "m.parquet", COLUMNS))) == []


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.csv", b"", "empty file (0 bytes). A CSV file without messages still has a first line"),
        ("m.tsv", b"", "empty file (0 bytes). A TSV file without messages still has a first line"),
        ("m.parquet", b"", "empty file (0 bytes). A Parquet file without messages still has its schema."),
        (
            "m.json",
            b"",
            "empty file (0 bytes). An array without messages is written []. If the file has JSON lines, set",
        ),
        ("m.json", b" \n", "expected a JSON array, which begins with [. An array without messages is written []"),
        ("m.xml", b"", "empty file (0 bytes). A backup without messages still has the element <smses>."),
        ("m.csv.gz", b"", "empty file (0 bytes). A .gz file is never empty: it was cut off."),
        ("m.jsonl.gz", b"", "empty file (0 bytes). A .gz file is never empty: it was cut off."),
        ("m.csv", COMPRESSIONS["gzip"](b""), "empty file (0 bytes once gzip is decompressed). A CSV file"),
        ("m.csv", b"\xef\xbb\xbf", "expected a header, received only blank lines"),
    ],
)
def test_an_empty_file_of_another_format_is_refused_with_advice_for_it(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        list(read_file(source(tmp_path / name, content)))
    assert expected in str(caught.value)


def test_an_empty_corpus_in_the_sms_layout_is_refused(tmp_path: Path) -> None:
    columns = {"label_column": "label", "text_column": "text"}
    with pytest.raises(InputError, match="A file of labelled messages has lines of label TAB text"):
        read_file(source(tmp_path / "SMSSpamCollection", b"", "corpus", columns=columns))
