"""Tests that every file format gives the same rows, hostile ones included, and that unusable files are rejected."""

from __future__ import annotations

import codecs
import csv
import datetime
import io
import json
import os
import tracemalloc
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import file_formats
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import InputError, SettingsError
from tasks.sources import text_files
from tasks.sources.file_source import Dialect, FileSource, detect_format
from tasks.sources.files import estimate_total_row_count, read_file, read_files
from tasks.sources.formats import delimited_records
from tasks.sources.paths import FileRows
from tasks.sources.rows import SourceRow, fault_kind, to_plain_text

PROJECT = Path(__file__).resolve().parents[3]
MESSAGES = {"id_column": "id", "text_column": "text"}
CORPUS = {"label_column": "label", "text_column": "text"}

# Any text that can be encoded in UTF-8.
valid_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
allow_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=80)


def source(path: Path, content: bytes | str, section: str = "messages", **changes: Any) -> FileSource:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return FileSource(section, path, **{"columns": MESSAGES, **changes})


def values(rows: Any) -> list[tuple[str | None, ...]]:
    return [tuple(row.values.values()) for row in rows]


def valid_values(rows: Any) -> list[tuple[str | None, ...]]:
    rows = list(rows)
    assert [row.fault for row in rows] == [None] * len(rows)
    assert [row.row_number for row in rows] == list(range(1, len(rows) + 1))
    return values(rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "id,text\n1,a\n2,b\n"),
        ("m.csv", "text,ignored,id\na,x,1\nb,x,2"),
        ("m.csv", "id,text\r\n1,a\r\n2,b\r\n"),
        ("m.csv", "id,text\r1,a\r2,b\r"),
        ("m.csv", "\ufeffid,text\n1,a\n2,b\n"),
        ("m.csv", " id , text\n\n1,a\n\n\n2,b\n\n"),
        ("m.csv", '"id","text"\n"1","a"\n"2","b"\n'),
        ("M.CSV", "id,text\n1,a\n2,b\n"),
        ("m.tsv", "id\ttext\n1\ta\n2\tb\n"),
        ("m.tab", "id\ttext\r\n1\ta\r\n\r\n2\tb"),
        ("m.tsv", "\ufeffid\ttext\n1\ta\n2\tb\n"),
        ("m.jsonl", '{"id": "1", "text": "a"}\n{"text": "b", "id": "2", "more": [1]}\n'),
        ("m.ndjson", '\ufeff{"id": 1, "text": "a"}\r\n\r\n  {"text": "b", "id": 2}'),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    assert valid_values(read_file(source(tmp_path / name, content))) == [("1", "a"), ("2", "b")]


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "cp1252", "utf-16", "utf-16-le", "latin-1"])
def test_the_configured_encoding_is_used(tmp_path: Path, encoding: str) -> None:
    content = "id,text\n1,é£ü\n".encode(encoding)
    assert valid_values(read_file(source(tmp_path / "m.csv", content, encoding=encoding))) == [("1", "é£ü")]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.csv", b"id,text\n1,a\xff\xc3(b\n", "a\ufffd\ufffd(b"),
        ("m.tsv", b"id\ttext\n1\ta\xffb\n", "a\ufffdb"),
        ("m.jsonl", b'{"id": 1, "text": "a\xffb"}', "a\ufffdb"),
        ("m.jsonl", rb'{"id": 1, "text": "a\ud83d b\ude00"}', "a\ufffd b\ufffd"),
        ("m.jsonl", rb'{"id": 1, "text": "\ud83d\ude00"}', "\U0001f600"),
        ("m.csv", b"id,text\n1,a\x00b\n", "a\x00b"),
        ("m.csv", b'id,text\n1,"a\x00\nb"\n', "a\x00\nb"),
        ("m.jsonl", rb'{"id": 1, "text": "a\u0000b"}', "a\x00b"),
        ("m.tsv", b'id\ttext\n1\t"a" b"\n', '"a" b"'),
        ("m.tsv", b'id\ttext\n1\ta "b"\n', 'a "b"'),
        ("m.tsv", b"id\ttext\n1\ta\rb\xc2\x85c\xe2\x80\xa8d\n", "a\rb\x85c\u2028d"),
        ("m.csv", b'id,text\n1,"a ""b"", c\r\nd"\n', 'a "b", c\r\nd'),
        ("m.csv", b"id,text\n1," + b"x" * 1_500_000 + b"\n", "x" * 1_500_000),
        ("m.csv", b"id,text\n1,\n", ""),
        ("m.jsonl", b'{"id": 1, "text": null}', None),
        ("m.jsonl", b'{"id": 1}\n{"id": 2, "text": "b"}', None),
    ],
)
def test_a_hostile_message_is_read(tmp_path: Path, name: str, content: bytes, expected: str | None) -> None:
    assert valid_values(read_file(source(tmp_path / name, content)))[0] == ("1", expected)


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("17", "17"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("0.10", "0.10"),
        ("-1.5e3", "-1.5e3"),
        ("true", "true"),
        ("null", None),
        ('"\\ud800x"', "\ufffdx"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_json_id_keeps_its_spelling(tmp_path: Path, literal: str, expected: str | None) -> None:
    rows = valid_values(read_file(source(tmp_path / "m.jsonl", f'{{"id": {literal}, "text": "a"}}')))
    assert rows == [(expected, "a")]
    assert type(rows[0][0]) in (str, type(None))


@pytest.mark.parametrize(
    ("name", "content", "faults"),
    [
        ("m.csv", "id,text\n1\n2,b\n", {1: "wrong number of fields: expected 2, received 1 (line 2)"}),
        ("m.csv", "id,text\n1,a,c\n2,b\n", {1: "wrong number of fields: expected 2, received 3 (line 2)"}),
        ("m.csv", "id,text\n1,a\n   \n", {2: "wrong number of fields: expected 2, received 1 (line 3)"}),
        ("m.csv", 'id,text\n1,"a"b\n2,b\n', {1: "malformed CSV: ',' expected after '\"' (line 2)"}),
        ("m.csv", 'id,text\n1,"a\n2,b\n3,c\n', {1: "malformed CSV: unexpected end of data (line 2)"}),
        ("m.csv", 'id,text\n\n0,"\n"\n1,"a\n2,"b"\n', {2: "malformed CSV: ',' expected after '\"' (line 5)"}),
        ("m.tsv", "id\ttext\n1\n2\tb\n", {1: "wrong number of fields: expected 2, received 1 (line 2)"}),
        ("m.tsv", "id\ttext\n1\ta\tb\n", {1: "wrong number of fields: expected 2, received 3 (line 2)"}),
        ("m.jsonl", '{"id": 1\n{"id": 2, "text": "b"}', {1: "invalid JSON: Expecting ',' delimiter"}),
        ("m.jsonl", '[1, "a"]\n{"id": 2, "text": "b"}', {1: "not a JSON object: received a list"}),
        ("m.jsonl", 'null\n{"id": 2, "text": "b"}', {1: "not a JSON object: received null"}),
        ("m.jsonl", '{"id": 1, "text": 5}', {1: "text is not a string: column text holds a number"}),
        ("m.jsonl", '{"id": 1, "text": ["a"]}', {1: "text is not a string: column text holds a list"}),
        ("m.jsonl", '{"id": {}, "text": "a"}', {1: "value is not text or a number: column id holds an object"}),
        ("m.jsonl", '{"id": NaN, "text": "a"}', {1: "invalid JSON: NaN is not JSON"}),
        ("m.jsonl", '{"id": 1, "text": ' + "[" * 100_000, {1: "invalid JSON: nested too deep"}),
        ("m.jsonl", '{"id": 1, "text": "a"} trailing', {1: "invalid JSON: Extra data"}),
    ],
)
def test_a_malformed_row_is_a_row_with_a_fault(tmp_path: Path, name: str, content: str, faults: dict[int, str]) -> None:
    rows = list(read_file(source(tmp_path / name, content)))
    actual = {row.row_number: row.fault for row in rows if row.fault}
    assert actual.keys() == faults.keys()
    for number, fault in faults.items():
        start, _, line = fault.partition(" (line ")
        assert (actual[number] or "").startswith(start)
        assert (actual[number] or "").endswith(line and f" (line {line}")


def test_an_unclosed_quote_loses_only_its_own_row(tmp_path: Path) -> None:
    lines = [f"{number},text {number}" for number in range(1, 1001)]
    lines[499] = '500,"never closed'
    rows = list(read_file(source(tmp_path / "m.csv", "\n".join(["id,text", *lines]))))
    assert [row.row_number for row in rows if row.fault] == [500]
    assert values(rows[500:]) == [(str(number), f"text {number}") for number in range(501, 1001)]


def test_the_readable_values_of_a_faulty_row_are_kept(tmp_path: Path) -> None:
    rows = list(read_file(source(tmp_path / "m.csv", "id,text\n7,a, b\n8\n")))
    assert values(rows) == [("7", "a"), ("8", None)]


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl"])
def test_a_row_that_is_too_long_is_a_row_with_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(text_files, "MAX_LINE_LENGTH", 1000)
    monkeypatch.setattr(delimited_records, "MAX_RECORD_LENGTH", 1000)
    contents = {
        "m.csv": f"id,text\n1,{'x' * 5000}\n2,b\n",
        "m.tsv": f"id\ttext\n1\t{'x' * 5000}\n2\tb\n",
        "m.jsonl": f'{{"id": 1, "text": "{"x" * 5000}"}}\n{{"id": 2, "text": "b"}}\n',
    }
    rows = list(read_file(source(tmp_path / name, contents[name])))
    assert [row.row_number for row in rows] == [1, 2]
    assert rows[0].fault is not None
    assert rows[1] == SourceRow(2, {"id": "2", "text": "b"}, None)


@allow_tmp_path
@given(rows=st.lists(st.tuples(valid_texts, valid_texts), min_size=1), quoting=st.sampled_from([0, 1, 2]))
def test_rows_written_by_the_csv_module_are_read_back(
    tmp_path: Path, rows: list[tuple[str, str]], quoting: Any
) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=quoting).writerows([("id", "text"), *rows])
    assert valid_values(read_file(source(tmp_path / "m.csv", buffer.getvalue()))) == rows


@allow_tmp_path
@given(rows=st.lists(st.tuples(st.one_of(valid_texts, st.none()), valid_texts), min_size=1), ascii_only=st.booleans())
def test_rows_written_by_the_json_module_are_read_back(
    tmp_path: Path, rows: list[tuple[str | None, str]], ascii_only: bool
) -> None:
    lines = [json.dumps({"id": name, "text": text}, ensure_ascii=ascii_only) for name, text in rows]
    assert valid_values(read_file(source(tmp_path / "m.jsonl", "\n".join(lines)))) == rows


@allow_tmp_path
@given(rows=st.lists(st.tuples(valid_texts, valid_texts), min_size=1))
def test_rows_written_as_tsv_are_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    rows = [(a.translate({9: "", 10: "", 13: ""}) + "x", b.translate({9: "", 10: "", 13: ""})) for a, b in rows]
    content = "".join(f"{a}\t{b}\n" for a, b in [("id", "text"), *rows])
    assert valid_values(read_file(source(tmp_path / "m.tsv", content, dialect=Dialect(quote="none")))) == rows


@allow_tmp_path
@given(rows=st.lists(st.tuples(st.one_of(valid_texts, st.none()), st.one_of(valid_texts, st.none()))))
def test_rows_written_as_parquet_are_read_back(tmp_path: Path, rows: list[tuple[str | None, str | None]]) -> None:
    table = pa.table(
        {"text": pa.array([b for _, b in rows], pa.string()), "id": pa.array([a for a, _ in rows], pa.string())}
    )
    pq.write_table(table, tmp_path / "m.parquet")
    assert valid_values(read_file(FileSource("messages", tmp_path / "m.parquet", MESSAGES))) == rows


cells = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=20)


@allow_tmp_path
@given(
    rows=st.lists(st.tuples(cells, cells).map(lambda row: {"id": row[0] + "x", "text": row[1]}), min_size=1),
    layout=st.sampled_from(list(file_formats.TEXT_FORMATS)),
    compression=st.none() | st.sampled_from(list(file_formats.COMPRESSIONS)),
    encoding=st.sampled_from(list(file_formats.MARKED_ENCODINGS)),
    is_marked=st.booleans(),
)
def test_rows_are_read_back_from_any_format_compression_and_encoding(
    tmp_path: Path, rows: list[dict[str, str]], layout: str, compression: str | None, encoding: str, is_marked: bool
) -> None:
    text = file_formats.TEXT_FORMATS[layout](rows)
    content = file_formats.mark(text, encoding) if is_marked else text.encode(encoding)
    content = file_formats.COMPRESSIONS[compression](content) if compression else content
    changes = {"encoding": "utf-8" if is_marked else encoding, "format": layout.removeprefix("pretty ")}
    assert valid_values(read_file(source(tmp_path / "m", content, **changes))) == [(r["id"], r["text"]) for r in rows]


@allow_tmp_path
@given(content=st.binary(min_size=1, max_size=300), name=st.sampled_from(["m.csv", "m.tsv", "m.jsonl", "m.parquet"]))
def test_arbitrary_bytes_do_not_crash_a_reader(tmp_path: Path, content: bytes, name: str) -> None:
    header = {"m.csv": b"id,text\n", "m.tsv": b"id\ttext\n", "m.jsonl": b'{"id":1,"text":"a"}\n'}.get(name, b"PAR1")
    try:
        rows = list(read_file(source(tmp_path / name, header + content)))
    except InputError:
        assert name == "m.parquet"
    else:
        assert all("".join(filter(None, row.values.values())).encode() is not None for row in rows)


STAMP = datetime.datetime(2026, 1, 31, 23, 30)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([7]), "7"),
        (pa.array([2**63 + 1], pa.uint64()), "9223372036854775809"),
        (pa.array([7.0]), "7"),
        (pa.array([7.5]), "7.5"),
        (pa.array([float("nan")]), None),
        (pa.array([None], pa.null()), None),
        (pa.array([Decimal("1.50")]), "1.50"),
        (pa.array([True]), "true"),
        (pa.array(["a"], pa.large_string()), "a"),
        (pa.array(["a"], pa.string_view()), "a"),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array([b"a"]), "a"),
        (pa.array([b"\xff\x00"]), "ff00"),
        (pa.array([datetime.date(2026, 1, 31)]), "2026-01-31"),
        (pa.array([STAMP], pa.timestamp("ns")), "2026-01-31 23:30:00.000000000"),
        (pa.array([STAMP], pa.timestamp("s")), "2026-01-31 23:30:00.000"),
        (pa.array([STAMP], pa.timestamp("us", "Asia/Tokyo")), "2026-02-01 08:30:00.000000"),
    ],
)
def test_a_parquet_column_of_any_plain_type_becomes_text(tmp_path: Path, column: Any, expected: str | None) -> None:
    pq.write_table(pa.table({"id": column, "text": ["a"]}), tmp_path / "m.parquet")
    assert valid_values(read_file(FileSource("messages", tmp_path / "m.parquet", MESSAGES))) == [(expected, "a")]


def test_invalid_utf8_in_parquet_text_is_replaced(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"a\xffb"]).buffers())
    pq.write_table(pa.table({"id": ["1"], "text": broken}), tmp_path / "m.parquet")
    assert valid_values(read_file(FileSource("messages", tmp_path / "m.parquet", MESSAGES))) == [("1", "a\ufffdb")]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"id": [1], "text": [5]}, "text_column = text: expected a column of text, received int64"),
        ({"id": [[1]], "text": ["a"]}, "id_column = id: expected a column of text, numbers or dates, received list"),
        ({"id": [1], "txt": ["a"]}, "text_column = text: no such column; did you mean txt? Columns are id, txt."),
    ],
)
def test_a_parquet_column_of_the_wrong_type_is_rejected(tmp_path: Path, columns: Any, expected: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(InputError) as caught:
        list(read_file(FileSource("messages", tmp_path / "m.parquet", MESSAGES)))
    assert expected in str(caught.value)


@pytest.mark.parametrize("cut", [4, 100, -1, -9])
def test_a_damaged_parquet_file_is_rejected(tmp_path: Path, cut: int) -> None:
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"]}), tmp_path / "intact")
    with pytest.raises(InputError, match=r"m\.parquet: cannot be read as Parquet"):
        list(read_file(source(tmp_path / "m.parquet", (tmp_path / "intact").read_bytes()[:cut])))


@pytest.mark.parametrize(
    ("section", "name", "expected"),
    [
        ("corpus", "SMSSpamCollection", "sms"),
        ("corpus", "SMSSpamCollection.txt", "sms"),
        ("corpus", "c.csv", "csv"),
        ("messages", "m.NDJSON", "jsonl"),
        ("messages", "m.pq", "parquet"),
        ("messages", "m.json", "json"),
        ("messages", "m.xml", "sms_backup"),
        ("messages", "2026.01.31.CSV.GZ", "csv"),
        ("messages", "m.jsonl.bz2", "jsonl"),
        ("messages", "m.tab.xz", "tsv"),
        ("corpus", "c.json.zst", "json"),
        ("corpus", "SMSSpamCollection.gz", "sms"),
    ],
)
def test_auto_detects_the_format_by_the_suffix(section: str, name: str, expected: str) -> None:
    assert detect_format(FileSource(section, Path(name), MESSAGES)) == expected


@pytest.mark.parametrize("name", ["m.txt", "m.gz", "m.csv.gz.gz", "m.csv.zip", "m", "m.xlsx"])
def test_an_unknown_suffix_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"set \[messages\] format"):
        read_file(source(tmp_path / name, "id,text\n1,a\n"))


@pytest.mark.parametrize("encoding", ["utf-9", "", "rot13", "base64", "idna", "undefined", "utf-8\0"])
def test_an_unknown_encoding_is_rejected(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(SettingsError, match=r"\[messages\] encoding = .*: no such text encoding"):
        read_file(source(tmp_path / "m.csv", "id,text\n1,a\n", encoding=encoding))


@pytest.mark.parametrize(
    ("content", "changes", "expected"),
    [
        ("", {}, "expected rows, received an empty file"),
        ("\n\n", {}, "expected a header, received only blank lines"),
        ('"id,text\n1,a\n', {}, "expected a header, received malformed CSV"),
        ("Id,Text\n1,a\n", {}, "id_column = id: no such column; did you mean Id? Columns are Id, Text."),
        ("id,text,text\n1,a,b\n", {}, "text_column = text: more than one column has the name."),
        (codecs.BOM_UTF16_LE + "id,txt\n1,a\n".encode("utf-16-le"), {}, "The file was read as csv in utf-16"),
        ("id,text\n1,a\n", {"encoding": "utf-16"}, "cannot be read as utf-16"),
        ('{"text": "a"}\n{"text": "b", "ids": 1}', {"format": "jsonl"}, "id: no such column; did you mean ids?"),
    ],
)
def test_the_error_for_an_unusable_file_names_the_setting_and_the_reason(
    tmp_path: Path, content: str | bytes, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        list(read_file(source(tmp_path / "m.csv", content, **changes)))
    assert f"[messages] path = {tmp_path / 'm.csv'}: " in str(caught.value)
    assert expected in str(caught.value)


def test_a_missing_file_and_a_folder_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_file(FileSource("messages", tmp_path / "m.csv", MESSAGES))
    (tmp_path / "m.csv").mkdir()
    with pytest.raises(InputError, match="received a folder"):
        read_file(FileSource("messages", tmp_path / "m.csv", MESSAGES))


def test_a_file_that_changes_while_it_is_read_is_rejected(tmp_path: Path) -> None:
    rows = read_file(source(tmp_path / "m.csv", "id,text\n1,a\n2,b\n"))
    next(rows)
    with (tmp_path / "m.csv").open("a") as file:
        file.write("3,c\n")
    with pytest.raises(InputError, match="changed while it was read"):
        list(rows)


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    row = {"m.csv": "{},some text\n", "m.tsv": "{}\tsome text\n", "m.jsonl": '{{"id": {}, "text": "some text"}}\n'}[
        name
    ]
    header = {"m.csv": "id,text\n", "m.tsv": "id\ttext\n", "m.jsonl": ""}[name]
    file_source = source(tmp_path / name, header + "".join(row.format(number) for number in range(20_000)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_file(file_source)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()


def test_the_sms_layout_keeps_quotes_and_tabs(tmp_path: Path) -> None:
    content = 'ham\t"Hi" he said\nspam\tWIN\tnow\nno tab\n\nham\t\n'
    rows = list(read_file(source(tmp_path / "SMSSpamCollection", content, "corpus", columns=CORPUS)))
    assert values(rows) == [("ham", '"Hi" he said'), ("spam", "WIN\tnow"), ("no tab", None), ("ham", "")]
    assert [row.fault for row in rows] == [None, None, "wrong number of fields: expected 2, received 1 (line 3)", None]


def test_the_published_collection_is_read_completely() -> None:
    folder = Path(os.environ.get("SPAMSCORE_TEST_DATA", PROJECT.parent / "shared" / "data"))
    path = folder / "SMSSpamCollection"
    if not path.is_file():
        pytest.skip(f"{path} does not exist: set SPAMSCORE_TEST_DATA to the folder that contains SMSSpamCollection")
    rows = valid_values(read_file(FileSource("corpus", path, CORPUS)))
    assert Counter(label for label, _ in rows) == {"ham": 4827, "spam": 747}
    assert max(len(text or "") for _, text in rows) == 910


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("malformed CSV: unexpected end of data (line 2)", "malformed CSV"),
        ("row too long: more than 5 characters", "row too long"),
        ("plain", "plain"),
    ],
)
def test_faults_are_counted_by_kind(fault: str, kind: str) -> None:
    assert fault_kind(fault) == kind


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1e15, "1000000000000000"),
        (float("inf"), "inf"),
        (Decimal("1E+3"), "1000"),
        (datetime.time(10, 5), "10:05:00"),
        (memoryview(b"ab"), "ab"),
        (STAMP, "2026-01-31T23:30:00"),
    ],
)
def test_a_plain_value_becomes_text(value: Any, expected: str) -> None:
    assert to_plain_text(value) == expected


# Several files


def write_files(folder: Path, **contents: str) -> FileSource:
    for name, content in contents.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return FileSource("messages", folder / "*.*", MESSAGES)


def test_several_files_are_read_as_one_source_in_the_order_of_their_names(tmp_path: Path) -> None:
    files = write_files(
        tmp_path, b_csv="text,id\nx,3\n", a_csv="id,text\n1,a\n2,b\n", c_jsonl='{"id": 4, "text": "y"}\n'
    )
    assert valid_values(read_files(files, FileRows())) == [("1", "a"), ("2", "b"), ("3", "x"), ("4", "y")]
    assert estimate_total_row_count(str(files.path)) == 6  # headers count


def test_a_fault_and_an_error_name_the_file(tmp_path: Path) -> None:
    files, file_rows = write_files(tmp_path, a_csv="id,text\n1,a\n", b_csv="id,text\n2,b\n3\n"), FileRows()
    *_, last = file_rows.name_files(read_files(files, file_rows))
    assert last.row_number == 3
    assert str(last.fault).startswith("wrong number of fields: expected 2, received 1; put texts")
    assert str(last.fault).endswith(f"(line 3), in row 2 of {tmp_path}/b.csv")
    write_files(tmp_path, b_csv="number,text\n2,b\n")
    with pytest.raises(InputError, match=r"path = .*/b\.csv: \[messages\] id_column = id: no such column"):
        list(read_files(files, FileRows()))


def test_all_files_are_checked_before_the_first_is_read(tmp_path: Path) -> None:
    files = write_files(tmp_path, a_csv="id,text\n1,a\n", b_csv="")
    with pytest.raises(InputError, match=r"path = .*/b\.csv: expected rows, received an empty file"):
        read_files(files, FileRows())


def test_a_path_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\*\.csv: no such file"):
        read_files(FileSource("messages", tmp_path / "*.csv", MESSAGES), FileRows())
