"""Tests that JSON arrays and JSON lines are told apart by their content, and that other layouts are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.errors import InputError
from tasks.sources.file_source import FileSource
from tasks.sources.files import read_file

OBJECTS = [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]
LINES = '{"id": 1, "text": "a"}\n{"id": 2, "text": "b"}\n'


def source(path: Path, content: str, format_name: str = "auto") -> FileSource:
    path.write_text(content, encoding="utf-8")
    return FileSource("messages", path, {"id_column": "id", "text_column": "text"}, format_name)


@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "m.ndjson"])
@pytest.mark.parametrize(
    "content", [LINES, json.dumps(OBJECTS), json.dumps(OBJECTS, indent=4), "\n [\n" + json.dumps(OBJECTS)[1:] + "\n\n"]
)
def test_auto_takes_the_layout_of_the_content(tmp_path: Path, name: str, content: str) -> None:
    rows = list(read_file(source(tmp_path / name, content)))
    assert [tuple(row) for row in rows] == [
        (1, {"text": "a", "id": "1"}, None), (2, {"text": "b", "id": "2"}, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        ('["n5", "x"]\n{"id": 2, "text": "b"}\n', {1: "received a list"}),
        ('[]\n{"id": 2, "text": "b"}\n', {1: "received a list"}),
        ('[[1], {"id": 1}]\r\n{"id": 2, "text": "b"}\n', {1: "received a list"}),
        ('{"id": 1\n{"id": 2, "text": "b"}\n', {1: "Expecting ',' delimiter"}),
        ('{"id": 1,\n{"id": 2, "text": "b"}\n', {1: "Expecting property name"}),
        ('{"id": 1, "text": "cut\n{"id": 2, "text": "b"}\n', {1: "Invalid control character"}),
        ('[2026-01-31] started\n{"id": 2, "text": "b"}\n', {1: "invalid JSON"}),
        ('[1, {"id": 2, "text": "b"}]', {1: "received a number"}),
        ('[\n  null,\n  {"id": 2, "text": "b"}\n]', {1: "received null"}),
        ('[["a"],\n{"id": 2, "text": "b"}]', {1: "received a list"}),
    ],
)
def test_a_first_row_that_is_no_object_does_not_decide_the_layout(
    tmp_path: Path, content: str, faults: dict[int, str]
) -> None:
    rows = list(read_file(source(tmp_path / "m.jsonl", content)))
    assert {row.row_number for row in rows if row.fault} == faults.keys()
    assert all(fault in (rows[number - 1].fault or "") for number, fault in faults.items())
    assert rows[-1].values == {"text": "b", "id": "2"}


@pytest.mark.parametrize(
    ("content", "format_name", "expected"),
    [
        (json.dumps(OBJECTS), "jsonl", "expected one JSON object a line, received one JSON array. Set"),
        ("[]", "jsonl", "expected one JSON object a line, received one JSON array. Set"),
        (LINES, "json", "expected one JSON array, received one JSON object a line. Set [messages] format = jsonl."),
        ("id,text\n1,a\n", "json", "expected one JSON array, received text that begins with 'id,text\\n1,a\\n'. Set"),
    ],
)  # fmt: skip
def test_a_format_that_does_not_fit_is_refused_before_the_first_row(
    tmp_path: Path, content: str, format_name: str, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_file(source(tmp_path / "m.json", content, format_name))
    assert f"[messages] format = {format_name}: {expected}" in str(caught.value)


@pytest.mark.parametrize(("name", "format_name"), [("m.json", "auto"), ("m.jsonl", "auto"), ("m.json", "json")])
@pytest.mark.parametrize("count", [1, 2, 2000])
@pytest.mark.parametrize("indent", [None, 0, 2])
def test_an_array_within_an_object_is_named_with_its_key(
    tmp_path: Path, name: str, format_name: str, count: int, indent: int | None
) -> None:
    wrapped: dict[str, Any] = {"exported": "2026-01-31", "count": count, "messages": OBJECTS * count}
    with pytest.raises(InputError) as caught:
        list(read_file(source(tmp_path / name, json.dumps(wrapped, indent=indent), format_name)))
    assert "The key 'messages' holds an array of objects" in str(caught.value)
    assert f"jq '.[\"messages\"]' {name} > messages.json" in str(caught.value)


@pytest.mark.parametrize("objects", [OBJECTS[:1], OBJECTS])
@pytest.mark.parametrize("format_name", ["auto", "json", "jsonl"])
def test_objects_over_several_lines_are_named(tmp_path: Path, objects: list[Any], format_name: str) -> None:
    content = "\n".join(json.dumps(item, indent=2) for item in objects)
    with pytest.raises(
        InputError, match=r"received an object over several lines\. .* jq -c \. m\.json > messages\.jsonl"
    ):
        read_file(source(tmp_path / "m.json", content, format_name))
