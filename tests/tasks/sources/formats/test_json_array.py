"""Tests that an array of objects gives the rows of JSON lines, in bounded memory, or an error with its position."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import InputError
from tasks.sources import text_files
from tasks.sources.file_source import FileSource
from tasks.sources.files import estimate_row_count, read_file
from tasks.sources.formats import json_array
from tasks.sources.rows import SourceRow

COLUMNS = {"id_column": "id", "text_column": "text"}
VALUES = [
    '"a"', '""', "null", "true", "12345678901234567890", "1.50", "-1.5e3", "1e400", "9" * 5000, "[1, [2]]", '{"a": {}}',
    r'"\ud83d\ude00"', r'"\ud83d x"', r'"\ude00\ud83d"', r'"\u0000 \" \\ \n"', '"😀 £ \ufffd"', "NaN", "-Infinity",
    '"[1, 2]}, {"', '"' + "x" * 200_000 + '"',
]  # fmt: skip

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


def source(path: Path, content: str | bytes) -> FileSource:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return FileSource("messages", path, COLUMNS)


@pytest.fixture(params=[1, 2, 3, 7, 2**16])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads this many characters at a time."""
    monkeypatch.setattr(json_array, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:20])
def test_a_value_is_read_as_in_json_lines(tmp_path: Path, value: str) -> None:
    objects = [f'{{"id": {value}, "text": "a"}}', f'{{"text": {value}}}', value, '{"id": 7, "text": "b"}']
    lines = list(read_file(source(tmp_path / "m.jsonl", '{"text": "x"}\n' + "\n".join(objects))))
    for layout in ('[{{"text": "x"}},{}]', '\n[ {{"text": "x"}}\n,\t{}\r\n ] \n'):
        text = layout.format(", ".join(objects))
        assert list(read_file(source(tmp_path / "m.json", text))) == lines


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(rows=st.lists(values, min_size=1), indent=st.sampled_from([None, 0, 3]), ascii_only=st.booleans())
@pytest.mark.usefixtures("block")
def test_any_array_gives_the_rows_of_json_lines(
    tmp_path: Path, rows: list[Any], indent: int | None, ascii_only: bool
) -> None:
    rows = [{"id": 1, "text": "a"}, *rows]
    lines = "\n".join(json.dumps(row) for row in rows)
    array = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    expected = list(read_file(source(tmp_path / "m.jsonl", lines)))
    assert list(read_file(source(tmp_path / "m.json", array))) == expected


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[{"id": 1, "text": "a"}', "row 1, line 1: the file ends before the array does; it was cut off."),
        ('[{"id": 1, "text": "a"},', "row 2, line 1: the file ends before the array does; it was cut off."),
        ('[{"id": 1, "text": "a"},\n{"id": 2, "te', "row 2, line 2: the file ends before the array does"),
        ('[\n{"id": 1, "text": "a"},\n{"id": tru', "row 2, line 3: invalid JSON: Expecting value"),
        ('[{"id": 1, "text": "a"},\n\n]', "row 2, line 3: invalid JSON: Expecting value."),
        ('[{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}]', "row 1, line 2: expected , or ] after the element."),
        ('[{"id": 1, "text": "a"},\n{"id" 2, "text": "' + "b" * 50 + '"}]', "row 2, line 2: invalid JSON: Expecting"),
        ('[{"id": 1, "text": "a\tb"}, {"id": 2, "text": "long enough"}]', "row 1, line 1: invalid JSON: Invalid"),
        ('[{"id": 1, "text": "a"}]\n[{"id": 2}]', "row 1, line 2: expected the end of the file"),
        ('[{"id": 1, "text": "a"}]]', "row 1, line 1: expected the end of the file"),
        ("[", "row 1, line 1: the file ends before the array does"),
        ('[{"id": 1, "text": ' + "[" * 100_000, "row 1, line 1: the element is nested too deep."),
    ],
)  # fmt: skip
def test_an_array_that_is_not_whole_is_refused_with_its_row_and_line(
    tmp_path: Path, content: str, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        list(read_file(source(tmp_path / "m.json", content)))
    assert f"[messages] path = {tmp_path / 'm.json'}: {expected}" in str(caught.value)


def test_a_fault_after_many_rows_is_found_at_its_row_and_line(tmp_path: Path) -> None:
    objects = [f'{{"id": {number}, "text": "text {number}"}}' for number in range(1, 5001)]
    objects[3999] = '{"id": 4000, "text": }'
    rows = read_file(source(tmp_path / "m.json", "[\n" + ",\n".join(objects) + "]"))
    with pytest.raises(InputError, match=r"row 4000, line 4001: invalid JSON: Expecting value\."):
        for _ in rows:
            pass


def test_an_element_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MAX_LINE_LENGTH", 100_000)
    content = json.dumps([{"id": 1, "text": "a"}, {"id": 2, "text": "x" * 500_000}])
    with pytest.raises(InputError, match="row 2, line 1: the element has more than 100000 characters"):
        list(read_file(source(tmp_path / "m.json", content)))


def test_a_column_that_no_element_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"id_column = id: no such column; did you mean ids\? .* No row has it\."):
        list(read_file(source(tmp_path / "m.json", '[{"ids": 1, "text": "a"}, {"text": "b"}]')))


def test_a_value_below_the_columns_is_a_row_with_a_fault(tmp_path: Path) -> None:
    rows = list(read_file(source(tmp_path / "m.json", '[{"id": 1, "text": ["a"]}, {"id": 2, "text": "b"}]')))
    assert rows == [
        SourceRow(1, {"text": None, "id": "1"}, "text is not a string: column text holds a list"),
        SourceRow(2, {"text": "b", "id": "2"}, None),
    ]


@pytest.mark.parametrize("separator", [", ", ",\n"])
def test_memory_does_not_grow_with_the_array(tmp_path: Path, separator: str) -> None:
    objects = (f'{{"id": {number}, "text": "some text"}}' for number in range(20_000))
    file_source = source(tmp_path / "m.json", f"[{separator.join(objects)}]")
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_file(file_source)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1_500_000
    finally:
        tracemalloc.stop()


def test_the_rows_of_an_array_are_not_estimated_by_its_lines(tmp_path: Path) -> None:
    assert estimate_row_count(source(tmp_path / "m.json", '[{"id": 1}]').path) is None
    assert estimate_row_count(source(tmp_path / "m.json", '{"id": 1}\n{"id": 2}\n').path) == 2
