"""ExtractMessages: a snapshot contains all messages of its date and no others, and is taken once."""

from __future__ import annotations

import datetime
import functools
import json
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import luigi
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.errors import InputError, SettingsError
from tasks.extract_messages import ExtractMessages, is_dated
from tasks.settings.inputs import MessagesSettings
from tasks.sources.snapshots import SNAPSHOT_FILE, verify_snapshot

NIGHT = datetime.date(2026, 1, 31)
Configure = Callable[..., None]


@pytest.fixture
def configure(set_settings: Configure) -> Configure:
    """Sets values of [messages] for one test, in its own working folder."""
    set_settings("messages", source="bundled")
    return functools.partial(set_settings, "messages")


def build_task(task: luigi.Task) -> Any:
    return luigi.build([task], local_scheduler=True, workers=1, detailed_summary=True, log_level="WARNING").status


def extract(date: datetime.date = NIGHT) -> ExtractMessages:
    task = ExtractMessages(date=date)
    assert build_task(task) == luigi.LuigiStatusCode.SUCCESS
    verify_snapshot(task.output().path)
    return task


def read_snapshot_rows(task: ExtractMessages) -> list[tuple[Any, ...]]:
    rows = pq.read_table(task.output().file(SNAPSHOT_FILE)).to_pylist()
    assert [row["row_number"] for row in rows] == list(range(1, len(rows) + 1))
    return [(row["source_row"], row["message_id"], row["text"], row["fault"]) for row in rows]


def test_the_bundled_inbox_is_the_same_for_any_date(configure: Configure) -> None:
    configure(date_column="sent", id_column="", text_column="body")
    first, second = extract(), extract(datetime.date(2026, 2, 1))
    assert read_snapshot_rows(first) == read_snapshot_rows(second)
    assert len(read_snapshot_rows(first)) == first.output().manifest()["rows"] > 100
    assert read_snapshot_rows(first)[0][1:2] == ("m-0001",)
    assert first.output().manifest()["source"] == "bundled inbox"
    assert first.output().path.parent == Path("artifacts/snapshots/2026-01-31")
    assert first.output().path.name == second.output().path.name


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.parquet"])
def test_the_messages_of_a_date_are_selected_from_a_file_of_many_dates(
    configure: Configure, tmp_path: Path, name: str
) -> None:
    rows = [
        ("a", "2026-01-30T23:59:59", "before"),
        ("b", "2026-01-31", "first"),
        ("c", "2026-01-31T23:59:59.999+05:30", "last"),
        ("d", "2026-02-01 00:00", "after"),
        ("e", "20260131", "compact"),
    ]
    write_messages(tmp_path / name, rows)
    configure(source="file", path=name, date_column="sent")
    task = extract()
    assert read_snapshot_rows(task) == [(2, "b", "first", None), (3, "c", "last", None), (5, "e", "compact", None)]
    manifest = task.output().manifest()
    assert manifest["other_dates"] == {"rows": 2, "seen": ["2026-01-30", "2026-02-01"]}
    assert (manifest["rows"], manifest["faults"], manifest["source"]) == (3, {}, name)


def write_messages(path: Path, rows: list[tuple[str, str, str]]) -> None:
    names = ("message_id", "sent", "text")
    if path.suffix == ".parquet":
        columns = zip(*rows, strict=True)
        pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    else:
        separator = "," if path.suffix == ".csv" else "\t"
        path.write_text("".join(separator.join(row) + "\n" for row in [names, *rows]))


def test_rows_with_an_unreadable_date_are_kept_with_a_fault(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "message_id,sent,text\na,31/01/2026,x\nb,,y\nc,2026-01-31\nd,2026-01-30\n,2026-01-31,\ne\n"
    )
    configure(source="file", path="m.csv", date_column="sent", max_rejected_share="1")
    task = extract()
    expected = "expected ISO 8601 such as 2026-01-31; set [messages] date_format if dates are written differently"
    assert read_snapshot_rows(task) == [
        (1, "a", "x", f"unreadable date: received '31/01/2026', {expected}"),
        (2, "b", "y", "unreadable date: there is none"),
        (
            3,
            "c",
            None,
            'wrong number of fields: expected 3, received 2; put texts with a line break in quotes (") (line 4)',
        ),
        (5, "", "", None),
        (
            6,
            "e",
            None,
            'wrong number of fields: expected 3, received 1; put texts with a line break in quotes (") (line 7)',
        ),
    ]
    manifest = task.output().manifest()
    assert manifest["faults"] == {"unreadable date": 2, "wrong number of fields": 2}
    assert manifest["other_dates"]["rows"] == 1


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime.date(2026, 1, 31), datetime.date(2026, 2, 1)]),
        pa.array([datetime.datetime(2026, 1, 31, 23), datetime.datetime(2026, 2, 1)], pa.timestamp("ns")),
        pa.array([datetime.datetime(2026, 1, 31, 4), datetime.datetime(2026, 1, 31, 22)], pa.timestamp("ms", "+03:00")),
    ],
)
def test_dates_of_a_parquet_file_are_not_converted(configure: Configure, tmp_path: Path, column: Any) -> None:
    pq.write_table(pa.table({"message_id": [1, 2], "text": ["a", "b"], "sent": column}), tmp_path / "m.parquet")
    configure(source="file", path="m.parquet", date_column="sent")
    assert read_snapshot_rows(extract()) == [(1, "1", "a", None)]


def test_the_file_of_a_date_is_read_and_required(configure: Configure, tmp_path: Path) -> None:
    configure(source="file", path="in/{date}.csv")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "2026-01-31.csv").write_text("message_id,text\n1,a\n")
    assert read_snapshot_rows(extract()) == [(1, "1", "a", None)]
    task = ExtractMessages(date=datetime.date(2026, 2, 1))
    assert build_task(task) == luigi.LuigiStatusCode.MISSING_EXT
    assert task.requires()[0].path == "in/2026-02-01.csv"


def test_without_an_id_column_the_row_number_identifies_a_message(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("sent,text\n2026-01-30,a\n2026-01-31,b\n2026-01-31,c\n")
    configure(source="file", path="m.csv", date_column="sent", id_column="")
    assert [name for _, name, _, _ in read_snapshot_rows(extract())] == ["2", "3"]


def test_a_rerun_reads_what_the_first_run_read(configure: Configure, tmp_path: Path) -> None:
    configure(source="file", path="m.csv")
    (tmp_path / "m.csv").write_text("message_id,text\n1,a\n")
    before = read_snapshot_rows(extract())
    (tmp_path / "m.csv").write_text("message_id,text\n1,a\n2,b\n")
    assert read_snapshot_rows(extract()) == before
    (tmp_path / "m.csv").unlink()
    assert ExtractMessages(date=NIGHT).complete()


def test_a_query_is_bound_to_the_date(configure: Configure, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "m.db") as connection:
        connection.execute("CREATE TABLE m (message_id INTEGER, text TEXT, sent TEXT)")
        sent = ["2026-01-30 23:59", "2026-01-31 00:00", "2026-01-31 23:59", "2026-02-01 00:00"]
        connection.executemany("INSERT INTO m VALUES (?, 'a', ?)", enumerate(sent, 1))
    connection.close()
    query = "SELECT message_id, text, sent FROM m"
    configure(source="sql", url="sqlite:///m.db", query=f"{query} WHERE sent >= :start AND sent < :end ORDER BY 1")
    task = extract()
    assert read_snapshot_rows(task) == [(1, "2", "a", None), (2, "3", "a", None)]
    assert task.output().manifest()["source"] == "[messages] query"
    configure(query=query, date_column="sent")
    assert [name for _, name, _, _ in read_snapshot_rows(extract())] == ["2", "3"]


@pytest.mark.parametrize(
    ("content", "values", "rows", "message"),
    [
        ("message_id,text,sent\n", {}, 0, "m.csv: no message of 2026-01-31. The batch will be empty."),
        (
            "message_id,text,sent\n1,a,2026-01-29\n2,b,2026-01-12\n",
            {"date_column": "sent"},
            0,
            "m.csv: no message of 2026-01-31; 2 of other dates, 2026-01-12 to 2026-01-29, left out.",
        ),
        ("message_id,text,sent\n1,a,\n", {}, 1, "m.csv: 1 messages of 2026-01-31"),
    ],
)
def test_a_date_without_messages_gives_an_empty_snapshot_and_a_warning(
    configure: Configure,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    content: str,
    values: Any,
    rows: int,
    message: str,
) -> None:
    (tmp_path / "m.csv").write_text(content)
    configure(source="file", path="m.csv", **values)
    with caplog.at_level(logging.INFO, "spamscore"):
        assert len(read_snapshot_rows(extract())) == rows
    assert message in caplog.text
    assert any(record.levelno == logging.WARNING for record in caplog.records) is (rows == 0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"source": "file"}, r"\[messages\] path is empty"),
        ({"source": "sql"}, r"\[messages\] query is empty"),
    ],
)
def test_an_incomplete_source_is_refused_before_any_work(
    configure: Configure, values: dict[str, str], expected: str
) -> None:
    configure(**values)
    with pytest.raises(SettingsError, match=expected):
        ExtractMessages(date=NIGHT)


@pytest.mark.parametrize("values", [{"id_column": "key"}, {"text_column": "body"}, {"date_column": "day"}])
def test_a_missing_column_leaves_no_snapshot(configure: Configure, tmp_path: Path, values: dict[str, str]) -> None:
    (tmp_path / "m.csv").write_text("message_id,text\n1,a\n")
    configure(source="file", path="m.csv", **values)
    task = ExtractMessages(date=NIGHT)
    with pytest.raises(InputError, match=rf"\[messages\] {next(iter(values))} = .*: no such column"):
        task.run()
    assert not task.complete()


@pytest.mark.parametrize(
    ("values", "dated"),
    [
        ({}, False),
        ({"date_column": "sent"}, False),
        ({"source": "file", "path": "m.csv"}, False),
        ({"source": "file", "path": "{date}.csv"}, True),
        ({"source": "file", "path": "m.csv", "date_column": "sent"}, True),
        ({"source": "file", "path": "m.csv", "query": "SELECT :start"}, False),
        ({"source": "sql", "query": "SELECT id FROM m"}, False),
        ({"source": "sql", "query": "SELECT id FROM m WHERE sent>=:start"}, True),
        ({"source": "sql", "query": "SELECT id FROM m WHERE sent::end"}, False),
        ({"source": "sql", "query": "SELECT id FROM m WHERE sent = ':starter'"}, False),
        ({"source": "sql", "query": r"SELECT id FROM m WHERE text = ' \:end'"}, False),
    ],
)
def test_the_date_is_part_of_the_fingerprint_if_it_selects_the_messages(
    configure: Configure, values: dict[str, str], dated: bool
) -> None:
    assert is_dated(MessagesSettings(**{"source": "bundled", **values})) is dated  # type: ignore[arg-type]
    configure(**values)
    parts = ExtractMessages(date=NIGHT).fingerprint_parts()
    assert parts["date"] == ("2026-01-31" if dated else None)
    assert parts["path"] == values.get("path", "")
