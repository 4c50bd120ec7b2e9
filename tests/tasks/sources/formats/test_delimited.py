"""Tests that CSV and TSV files of every dialect give the rows that were written, and that no wrong row passes."""

from __future__ import annotations

import csv
import io
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chain import DATE, SMALL, luigi, merge_settings, query, write_settings
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from models.errors import InputError
from tasks.settings.dialects import check_dialect
from tasks.sources.file_source import Dialect, FileSource
from tasks.sources.files import read_file
from tasks.sources.formats import delimited_records
from tasks.sources.rows import fault_kind

MESSAGES = {"id_column": "message_id", "text_column": "text"}
ESCAPED = Dialect(quote="none", escape="\\", null=r"\N")
Row = tuple[str | None, ...]


def source(folder: Path, content: bytes | str, name: str = "m.csv", **changes: Any) -> FileSource:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return FileSource("messages", folder / name, **{"columns": MESSAGES, **changes})


def read(file_source: FileSource) -> tuple[list[Row], dict[int, str]]:
    """Returns the values of the valid rows, and the faults of the others by row number."""
    rows = list(read_file(file_source))
    assert [row.row_number for row in rows] == list(range(1, len(rows) + 1))
    valid = [tuple(row.values.values()) for row in rows if row.fault is None]
    return valid, {row.row_number: row.fault for row in rows if row.fault}


def read_valid(file_source: FileSource) -> list[Row]:
    valid, faults = read(file_source)
    assert faults == {}
    return valid


# Delimiters


@pytest.mark.parametrize(
    ("name", "content", "delimiter"),
    [
        ("m.csv", "message_id;text\n1;a, b\n", "auto"),
        ("m.csv", "message_id\ttext\n1\ta, b\n", "auto"),
        ("m.csv", 'message_id|text\n1|"a, b"\n', "auto"),
        ("m.tsv", "message_id;text\n1;a, b\n", "auto"),
        ("m.csv", '"message_id";"text"\n"1";"a, b"\n', "auto"),
        ("m.csv", "sep=;\r\nmessage_id;text\r\n1;a, b\r\n", "auto"),
        ("m.csv", '\ufeff"sep=^"\r\nmessage_id^text\r\n1^a, b\r\n', "auto"),
        ("m.csv", "sep=;\nmessage_id|text\n1|a, b\n", "pipe"),
        ("m.csv", "message_id^text\n1^a, b\n", "^"),
        ("m.csv", "message_id\ttext\n1\ta, b\n", r"\t"),
        ("m.csv", "message_id\ttext\n1\ta, b\n", "tab"),
        ("m.csv", 'message_id;x,y;text\n1;;"a, b"\n', "auto"),
    ],
)
def test_the_delimiter_is_the_one_with_which_the_header_has_all_columns(
    tmp_path: Path, name: str, content: str, delimiter: str
) -> None:
    rows = read_valid(source(tmp_path, content, name, dialect=Dialect(delimiter=delimiter)))
    assert rows == [("1", "a, b")]


@pytest.mark.parametrize(
    ("content", "changes", "expected"),
    [
        ("Id;Text\n", {}, "are Id, Text. The file was read as csv in utf-8 with [messages] delimiter = semicolon"),
        ("id^text\n", {}, "with [messages] delimiter = comma; set [messages] delimiter to the character between its"),
        ("id,text\n", {"dialect": Dialect(delimiter="semicolon")},
         "with [messages] delimiter = semicolon; with [messages] delimiter = comma it has all columns"),
        ("text;a|text|b\n", {"columns": {"text_column": "text"}}, "with each of the delimiters semicolon and pipe"),
        ('"id"\t"text"\n', {"format": "tsv"}, '; set [messages] quote = " if its columns are in quotation marks'),
        ("\n\r\n", {}, "expected a header, received only blank lines"),
        ('"id,text\n1,a\n', {}, "expected a header, received malformed CSV"),
        ("sep=;\n", {}, "expected a header, received only blank lines"),
    ],
)  # fmt: skip
def test_the_error_for_a_header_names_the_delimiter_and_the_setting(
    tmp_path: Path, content: str, changes: dict[str, Any], expected: str
) -> None:
    columns = {"id_column": "id", "text_column": "text"}
    with pytest.raises(InputError) as caught:
        list(read_file(source(tmp_path, content, **{"columns": columns, **changes})))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("v1,v2,,,", {"label_column": "v1", "text_column": "v2"}),
        ("v1,v2,x,x,x", {"label_column": "v1", "text_column": "v2"}),
        (' v1 ,"v2", "",,', {"label_column": "v1", "text_column": "v2"}),
        ("\ufeffv1,v2,,,", {"label_column": "v1", "text_column": "v2"}),
    ],
)
def test_only_the_requested_columns_need_a_name_of_their_own(
    tmp_path: Path, header: str, columns: dict[str, str]
) -> None:
    content = f'{header}\r\nham,"Go, now £",,,\r\nspam,WIN,,,\r\n'
    encoding = "utf-8" if header.startswith("\ufeff") else "cp1252"
    rows = read_valid(source(tmp_path, content.encode(encoding), columns=columns, encoding=encoding))
    assert rows == [("ham", "Go, now £"), ("spam", "WIN")]


# Line ends


@pytest.mark.parametrize("name", ["m.csv", "m.tsv"])
@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("message_id,text\r1,a\r2,b\r", [("1", "a"), ("2", "b")]),
        ("message_id,text\r1,a\n2,b\r\n\r3,c", [("1", "a"), ("2", "b"), ("3", "c")]),
        ("message_id,text\r\n1,a\n2,b\r\n3,c", [("1", "a"), ("2", "b"), ("3", "c")]),
        ("message_id,text\r\r\n1,a\r\r\n2,b\r\r\n", [("1", "a"), ("2", "b")]),
        ("\n\r\nmessage_id,text\n\n1,a\n\r\n\n2,b\n\n", [("1", "a"), ("2", "b")]),
        ("message_id,text\n1,a\rb\n2\r,c\r\n", [("1", "a\rb"), ("2\r", "c")]),
        ("message_id,text,\n1,a,\n2,b,", [("1", "a"), ("2", "b")]),
        ("message_id,text\n1,a\0b\n\0,\0\n", [("1", "a\0b"), ("\0", "\0")]),
        ("message_id,text\n1,a\x85\u2028\x0b\x0cb\n", [("1", "a\x85\u2028\x0b\x0cb")]),
        ("message_id,text\n", []),
        ("message_id,text", []),
    ],
)
def test_lines_end_as_the_header_does(tmp_path: Path, name: str, content: str, rows: list[Row]) -> None:
    assert read_valid(source(tmp_path, content.replace(",", "\t") if name == "m.tsv" else content, name)) == rows


def test_a_trailing_delimiter_without_one_in_the_header_is_a_wrong_number_of_fields(tmp_path: Path) -> None:
    valid, faults = read(source(tmp_path, "message_id,text\n1,a,\n2,b\n"))
    assert valid == [("2", "b")]
    assert [fault_kind(fault) for fault in faults.values()] == ["wrong number of fields"]


# Rows that are rejected


@pytest.mark.parametrize(
    ("name", "content", "dialect", "faults"),
    [
        ("m.csv", "message_id,text\n1,Hello, you\n2,a\n", Dialect(), {
            1: "wrong number of fields: expected 2, received 3; put texts with a comma in quotes (\") (line 2)"}),
        ("m.csv", "message_id;text\n1;Hello; you\n2;a\n", Dialect(quote="none"), {
            1: "wrong number of fields: expected 2, received 3; for texts with a semicolon set [messages] quote"}),
        ("m.csv", "message_id,text\n2,a\nHello\n", Dialect(), {
            2: "wrong number of fields: expected 2, received 1; put texts with a line break in quotes (\") (line 3)"}),
        ("m.tsv", "message_id\ttext\n1\ta\tb\n2\ta\n", ESCAPED, {
            1: r"wrong number of fields: expected 2, received 3; escape a tab in texts with \ (line 2)"}),
        ("m.csv", "message_id, text\n2,a\nmessage_id, text\n\ufeffmessage_id, text\n", Dialect(), {
            2: "repeated header (line 3)", 3: "repeated header (line 4)"}),
        ("m.csv", 'message_id,text\n1,"a"b\n2,a\n', Dialect(), {
            1: "malformed CSV: ',' expected after '\"'; set [messages] quote = none if quotes belong to the texts"}),
        ("m.tsv", 'message_id\ttext\n1\t"He said ""go"""\n"2"\ta\n3\t"one\ntwo"\n2\ta\n', Dialect(), {
            1: 'field begins with a quotation mark: set [messages] quote = " if fields are in quotes, or none if',
            2: "field begins", 3: "field begins", 4: "wrong number of fields"}),
        ("m.tsv", "message_id\ttext\n1\t\\N\n\\N\ta\n2\ta\n", Dialect(), {
            1: r"undeclared null: column text holds \N; set [messages] null = \N (and escape = \ if \n is a",
            2: r"undeclared null: column message_id holds \N"}),
        ("m.csv", 'message_id,text\n1,"\\N"\n2,a\n', Dialect(), {
            1: r"undeclared null: column text holds \N; set [messages] null = \N, or null = NULL if \N is a text"}),
        ("m.csv", "message_id,text\n1,\\N\n2,a\n", Dialect(escape="\\"), {1: "undeclared null"}),
        ("m.tsv", "message_id\ttext\n2\ta\n1\tb\\", ESCAPED, {2: "unfinished escape"}),
    ],
)  # fmt: skip
def test_a_row_that_the_dialect_does_not_explain_is_rejected_with_the_setting_that_reads_it(
    tmp_path: Path, name: str, content: str, dialect: Dialect, faults: dict[int, str]
) -> None:
    valid, actual = read(source(tmp_path, content, name, dialect=dialect))
    assert valid == [("2", "a")]
    assert actual.keys() == faults.keys()
    for number, fault in faults.items():
        assert actual[number].startswith(fault)


@pytest.mark.parametrize(
    ("text", "is_rejected"),
    [('"Hi" he said', False), ('say "hi"', False), ("'a'", False), ('"hi"', True), ('"hi', True), ('""', True)],
)  # fmt: skip
def test_a_tsv_field_is_rejected_only_if_it_can_be_read_in_two_ways(
    tmp_path: Path, text: str, is_rejected: bool
) -> None:
    valid, faults = read(source(tmp_path, f"message_id\ttext\n1\t{text}\n", "m.tsv"))
    assert (valid, bool(faults)) == ([] if is_rejected else [("1", text)], is_rejected)
    assert read_valid(source(tmp_path, f"message_id\ttext\n1\t{text}\n", "m.tsv", dialect=Dialect(quote="none"))) == [
        ("1", text)
    ]


def test_a_message_equal_to_the_name_of_its_column_is_read(tmp_path: Path) -> None:
    assert read_valid(source(tmp_path, "message_id,text\n1,text\nmessage_id,a\n")) == [
        ("1", "text"),
        ("message_id", "a"),
    ]


# Nulls and escapes


@pytest.mark.parametrize(
    ("name", "content", "dialect", "rows"),
    [
        ("m.tsv", "1\t\\N\n\\N\tWIN\\nnow\nNULL\tb\n", ESCAPED, [("1", None), (None, "WIN\nnow"), ("NULL", "b")]),
        ("m.tsv", "1\tNULL\n\\N\tb\n", Dialect(null=r"NULL, \N"), [("1", None), (None, "b")]),
        ("m.tsv", "1\t\\N\n2\tNULL\n", Dialect(null="NULL"), [("1", r"\N"), ("2", None)]),
        ("m.csv", '1,NULL\n2,"NULL"\n3,NULLs\n', Dialect(null="NULL"), [("1", None), ("2", None), ("3", "NULLs")]),
        ("m.csv", '1,\\N\n2,"\\N"\n3,\\\\N\n4,N\n', Dialect(escape="\\", null=r"\N"),
         [("1", None), ("2", None), ("3", r"\N"), ("4", "N")]),
        ("m.csv", '1,"a \\"b\\" ""c"" \\\\"\n2,d\\,e\n', Dialect(escape="\\"), [("1", 'a "b" "c" \\'), ("2", "d,e")]),
        ("m.tsv", "1\t\\\\N\\\\n\n2\ta\\\nb\\\tc\n", ESCAPED, [("1", r"\N\n"), ("2", "a\nb\tc")]),
        ("m.tsv", "1\ta\\\r\nb\r\n2\t\\b\\f\\n\\r\\t\\v\\0\\q\\\\\r\n", ESCAPED,
         [("1", "a\r\nb"), ("2", "\b\f\n\r\t\v\0q\\")]),
        ("m.csv", "1,a^,b^^^nc\n", Dialect(quote="none", escape="^"), [("1", "a,b^\nc")]),
    ],
)  # fmt: skip
def test_nulls_and_escapes_are_decoded_as_declared(
    tmp_path: Path, name: str, content: str, dialect: Dialect, rows: list[Row]
) -> None:
    header = "message_id\ttext\n" if name == "m.tsv" else "message_id,text\n"
    assert read_valid(source(tmp_path, header + content, name, dialect=dialect)) == rows


def test_lines_that_are_continued_too_long_cost_one_row_and_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited_records, "MAX_RECORD_LENGTH", 1000)
    content = "message_id\ttext\n0\ta\n1\t" + "x\\\n" * 400_000 + "end\n2\tb\n"
    file_source = source(tmp_path, content, "m.tsv", dialect=ESCAPED)
    del content
    tracemalloc.start()
    try:
        valid, faults = read(file_source)
        assert tracemalloc.get_traced_memory()[1] < 400_000
    finally:
        tracemalloc.stop()
    assert valid == [("0", "a"), ("2", "b")]
    assert [fault_kind(fault) for fault in faults.values()] == ["row too long"]


# Files that other programs write

special = st.sampled_from(list(",;\t|^\"'\\\n\r nNrtb0é😀\ufeff\u2028\0"))
texts = st.text(special | st.characters(exclude_categories=["Cs"]), max_size=12)
rows_of_texts = st.lists(st.tuples(texts, texts), min_size=1, max_size=5)
many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)


def is_unambiguous(rows: list[Any], *, lone: str = "") -> bool:
    """Returns whether the rows can be read back: no value equals a null, and none holds a character of `lone`."""
    values = [value for row in rows for value in row if value is not None]
    return r"\N" not in values and not any(character in value for value in values for character in lone)


def keeps_line_ends(rows: list[Any], lineterminator: str) -> bool:
    """Returns whether the csv module of Python 3.11 writes the line breaks in values so that they can be read.

    It writes those that are not part of the line terminator without quotes: a CR at the end of a line then looks like
    a part of the line end, and an LF in a file with CR like another line end.
    """
    if lineterminator == "\r":
        return is_unambiguous(rows, lone="\n")
    return not any((row[-1] or "").endswith("\r") for row in rows)


def setting_of(delimiter: str, is_auto: bool) -> str:
    words = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
    return "auto" if is_auto and delimiter in words else words.get(delimiter, delimiter)


@many
@given(
    rows=rows_of_texts,
    delimiter=st.sampled_from(",;\t|^"),
    quote=st.sampled_from("\"'"),
    escape=st.sampled_from(["none", "\\"]),
    doubles=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    lineterminator=st.sampled_from(["\n", "\r\n", "\r"]),
    name=st.sampled_from(["m.csv", "m.tsv"]),
    is_auto=st.booleans(),
)
def test_rows_of_csv_writer_in_any_dialect_with_quotes_are_read_back(
    tmp_path: Path, rows: list[Any], delimiter: str, quote: str, escape: str, doubles: bool, quoting: Any,
    lineterminator: str, name: str, is_auto: bool,
) -> None:  # fmt: skip
    assume(is_unambiguous(rows) and keeps_line_ends(rows, lineterminator))
    buffer = io.StringIO(newline="")
    escapes: dict[str, Any] = {} if escape == "none" else {"escapechar": escape, "doublequote": doubles}
    writer = csv.writer(
        buffer, delimiter=delimiter, quotechar=quote, quoting=quoting, lineterminator=lineterminator, **escapes
    )
    writer.writerows([("message_id", "text"), *rows])
    dialect = Dialect(setting_of(delimiter, is_auto), quote, escape)
    assert read_valid(source(tmp_path, buffer.getvalue(), name, dialect=dialect)) == rows


@many
@given(
    rows=rows_of_texts,
    delimiter=st.sampled_from(",;\t|^"),
    lineterminator=st.sampled_from(["\n", "\r\n"]),
    name=st.sampled_from(["m.csv", "m.tsv"]),
    is_auto=st.booleans(),
)
def test_rows_of_csv_writer_without_quotes_are_read_back(
    tmp_path: Path, rows: list[Any], delimiter: str, lineterminator: str, name: str, is_auto: bool
) -> None:
    assume(is_unambiguous(rows) and keeps_line_ends(rows, lineterminator))
    buffer = io.StringIO(newline="")
    writer = csv.writer(
        buffer, delimiter=delimiter, quoting=csv.QUOTE_NONE, escapechar="\\", lineterminator=lineterminator
    )
    writer.writerows([("message_id", "text"), *rows])
    dialect = Dialect(setting_of(delimiter, is_auto), "none", "\\")
    assert read_valid(source(tmp_path, buffer.getvalue(), name, dialect=dialect)) == rows


@many
@given(
    rows=st.lists(st.tuples(texts, st.none() | texts), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t|^"),
    null=st.sampled_from([r"\N", "NULL", "<NA>"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    lineterminator=st.sampled_from(["\n", "\r\n"]),
    is_auto=st.booleans(),
)
def test_rows_of_pandas_in_any_dialect_are_read_back(
    tmp_path: Path, rows: list[Any], delimiter: str, null: str, quoting: Any, lineterminator: str, is_auto: bool
) -> None:
    import pandas as pd

    assume(is_unambiguous(rows) and keeps_line_ends(rows, lineterminator))
    frame = pd.DataFrame(rows, columns=["message_id", "text"], dtype=object)
    content = frame.to_csv(
        None, sep=delimiter, na_rep=null, quoting=quoting, lineterminator=lineterminator, index=False
    )
    dialect = Dialect(setting_of(delimiter, is_auto), '"', "none", null)
    assert read_valid(source(tmp_path, content, "m.tsv", dialect=dialect)) == rows


def escape_for_copy(value: str) -> str:
    r"""Writes a value as PostgreSQL's COPY does in text format: control characters by letter, others by a backslash."""
    letters = {"\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\"}
    return "".join(letters.get(character, character) for character in value)


def escape_for_mysql_batch(value: str) -> str:
    r"""Writes a value as mysql --batch does: line feed, tab, NUL and backslash; a carriage return stays as it is."""
    letters = {"\n": r"\n", "\t": r"\t", "\0": r"\0", "\\": r"\\"}
    return "".join(letters.get(character, character) for character in value)


def escape_for_outfile(value: str) -> str:
    r"""Writes a value as MySQL's SELECT INTO OUTFILE does: a backslash before the real characters, and \0 for NUL."""
    return "".join("\\" * (character in "\t\n\\\0") + character.replace("\0", "0") for character in value)


@many
@given(
    rows=st.lists(st.tuples(texts, st.none() | texts), min_size=1, max_size=5),
    writer=st.sampled_from([(escape_for_copy, r"\N"), (escape_for_mysql_batch, "NULL"), (escape_for_outfile, r"\N")]),
)
def test_rows_of_copy_and_mysql_are_read_back(
    tmp_path: Path, rows: list[Any], writer: tuple[Callable[[str], str], str]
) -> None:
    escape, null = writer
    assume("NULL" not in {value for row in rows for value in row})
    # Only COPY marks a CR at the end of a line, which otherwise looks like a part of the line end.
    assume(escape is escape_for_copy or keeps_line_ends(rows, "\n"))
    lines = ["\t".join(null if value is None else escape(value) for value in row) + "\n" for row in rows]
    content = "message_id\ttext\n" + "".join(lines)
    assert read_valid(source(tmp_path, content, "m.tsv", dialect=Dialect(escape="\\", null=null))) == rows


@many
@given(rows=st.lists(st.tuples(texts, st.none() | texts), min_size=1, max_size=5))
def test_rows_of_mysql_with_quotes_and_escapes_are_read_back(tmp_path: Path, rows: list[Any]) -> None:
    assume(is_unambiguous(rows, lone="\0"))  # the csv module reads \0 as 0

    def write(value: str | None) -> str:
        return r"\N" if value is None else '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'

    content = "message_id;text\n" + "".join(";".join(map(write, row)) + "\n" for row in rows)
    dialect = Dialect("semicolon", "auto", "\\", r"\N")
    assert read_valid(source(tmp_path, content, dialect=dialect)) == rows


@many
@given(content=st.binary(max_size=200) | texts.map(str.encode), data=st.data())
def test_any_bytes_in_any_dialect_give_rows(tmp_path: Path, content: bytes, data: st.DataObject) -> None:
    choices = (",;\t", ["auto", "none", '"', "'"], ["none", "\\", "^"], ["", r"\N", "N,a"])
    dialect = Dialect(*(data.draw(st.sampled_from(values)) for values in choices))
    check_dialect("messages", dialect.delimiter, dialect.quote, dialect.escape)
    header = f"message_id{dialect.delimiter}text\n".encode()
    valid, faults = read(source(tmp_path, header + content, dialect=dialect))
    assert len(valid) + len(faults) <= content.count(b"\n") + content.count(b"\r") + 1


# The real command

WIN, SEE = "You have WON a £900 prize! Call now", "See you at six"
PANDAS_TSV = (
    'message_id\ttext\nb1\t"He said ""call me"" twice"\nb2\t"line one\nline two, win"\nb3\t"tab\there"\nb4\tplain\n'
)
NULL_TSV = "message_id\ttext\n1\t\\N\n\\N\tWIN a prize\\nnow\n4\tNULL\n5\tCan you pick up milk?\n"


@pytest.mark.parametrize(
    ("name", "content", "messages", "scored", "rejected"),
    [
        ("inbox.csv", f"message_id;text\na1;{WIN}\na2;{SEE}, ok?\n", {}, {"a1", "a2"}, []),
        ("inbox.csv", f"message_id\ttext\na1\t{WIN}\na2\t{SEE}, ok?\n", {}, {"a1", "a2"}, []),
        ("inbox.csv", f"message_id,text\n1,Hello, how are you\n2,WIN, claim now, call\n3,{SEE}\n", {}, {"3"}, [
            (1, "1", "unreadable row", "wrong number of fields: expected 2, received 3; put texts with a comma"),
            (2, "2", "unreadable row", "wrong number of fields: expected 2, received 4; put texts with a comma")]),
        ("inbox.csv", f"message_id,text\na1,{WIN}\nmessage_id,text\na2,{SEE}\n", {}, {"a1", "a2"}, [
            (2, "message_id", "unreadable row", "repeated header (line 3)")]),
        ("inbox.tsv", PANDAS_TSV, {}, {"b4"}, [
            (1, "b1", "unreadable row", 'field begins with a quotation mark: set [messages] quote = "'),
            (2, "b2", "unreadable row", 'field begins with a quotation mark: set [messages] quote = "'),
            (3, 'line two, win"', "unreadable row", "wrong number of fields: expected 2, received 1"),
            (4, "b3", "unreadable row", 'field begins with a quotation mark: set [messages] quote = "')]),
        ("inbox.tsv", PANDAS_TSV, {"quote": '"'}, {"b1", "b2", "b3", "b4"}, []),
        ("inbox.tsv", NULL_TSV, {}, {"4", "5"}, [
            (1, "1", "unreadable row", r"undeclared null: column text holds \N; set [messages] null = \N"),
            (2, None, "unreadable row", r"undeclared null: column message_id holds \N; set [messages] null = \N")]),
        ("inbox.tsv", NULL_TSV,
         {"null": r"\N", "escape": "\\", "quote": "none"}, {"4", "5"}, [
            (1, "1", "empty text", None), (2, None, "missing message_id", None)]),
    ],
    ids=["semicolon", "tab", "ragged", "second header", "quoted tsv", "quoted tsv declared", "nulls", "nulls declared"],
)  # fmt: skip
def test_a_night_scores_or_rejects_each_row_of_a_dialect(
    trained: Path, tmp_path: Path, name: str, content: str, messages: dict[str, str], scored: set[str],
    rejected: list[Any],
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(trained, tmp_path / "night"))
    (folder / name).write_text(content, encoding="utf-8")
    inbox = {"source": "file", "path": name, "max_rejected_share": "1", **messages}
    write_settings(folder, merge_settings(SMALL, {"messages": inbox}))
    done = luigi(folder, "ScoreBatch", "--date", DATE)
    assert done.code == 0, done.output
    assert {message_id for (message_id,) in query(folder, "select message_id from published_scores")} == scored
    rows = query(folder, "select row_number, message_id, reason, detail from rejected_messages order by row_number")
    assert [row[:3] for row in rows] == [row[:3] for row in rejected]
    for actual, expected in zip(rows, rejected, strict=True):
        assert str(actual[3]).startswith(str(expected[3]))


def test_a_corpus_with_semicolons_is_ingested(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "c.csv").write_bytes("v1;v2;;\r\nham;Go, now £;;\r\nspam;WIN;;\r\n".encode("cp1252"))
    corpus = {"source": "file", "path": "c.csv", "label_column": "v1", "text_column": "v2", "encoding": "cp1252"}
    write_settings(tmp_path, {"corpus": corpus})
    done = luigi(tmp_path, "IngestCorpus")
    assert done.code == 0, done.output
    (path,) = tmp_path.glob("artifacts/corpus/*/corpus.parquet")
    rows = [(row["label"], row["text"], row["fault"]) for row in pq.read_table(path).to_pylist()]
    assert rows == [("ham", "Go, now £", None), ("spam", "WIN", None)]


def test_the_bundled_corpus_is_read_whatever_the_dialect_of_a_file_is(tmp_path: Path) -> None:
    write_settings(tmp_path, {"corpus": {"delimiter": "semicolon", "quote": "none", "escape": "\\", "null": "a"}})
    done = luigi(tmp_path, "IngestCorpus")
    assert done.code == 0, done.output
    assert "fault" not in done.output


@pytest.mark.parametrize(
    ("key", "value"), [("delimiter", "dot"), ("quote", "x"), ("escape", "\\\\"), ("delimiter", '"'), ("escape", '"')]
)
def test_the_command_refuses_a_setting_that_is_no_character(tmp_path: Path, key: str, value: str) -> None:
    write_settings(tmp_path, {"messages": {"source": "file", "path": "m.csv", key: value}})
    done = luigi(tmp_path, "ExtractMessages", "--date", DATE)
    assert done.code != 0
    assert "[messages]" in done.last_line
    assert "expected" in done.last_line
