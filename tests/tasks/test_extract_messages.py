"""ExtractMessages: the messages of one date, once, nothing lost and nothing of another date."""

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
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError, SettingsError
from tasks.extract_messages import ExtractMessages, OtherDates, is_dated, of_date, read_date
from tasks.settings.inputs import MessagesSettings
from tasks.sources.rows import SourceRow
from tasks.sources.snapshots import SNAPSHOT_FILE, verify_snapshot

NIGHT = datetime.date(2026, 1, 31)
Configure = Callable[..., None]


@pytest.fixture
def configure(set_settings: Configure) -> Configure:
    """Sets values of [messages] for one test, in a working folder of its own."""
    set_settings("messages", source="bundled")
    return functools.partial(set_settings, "messages")


def built(task: luigi.Task) -> Any:
    return luigi.build([task], local_scheduler=True, workers=1, detailed_summary=True, log_level="WARNING").status


def extracted(date: datetime.date = NIGHT) -> ExtractMessages:
    task = ExtractMessages(date=date)
    assert built(task) == luigi.LuigiStatusCode.SUCCESS
    verify_snapshot(task.output().path)
    return task


def kept(task: ExtractMessages) -> list[tuple[Any, ...]]:
    rows = pq.read_table(task.output().file(SNAPSHOT_FILE)).to_pylist()
    assert [row["row_number"] for row in rows] == list(range(1, len(rows) + 1))
    return [(row["source_row"], row["message_id"], row["text"], row["fault"]) for row in rows]


def test_the_bundled_inbox_is_taken_whole_for_any_date(configure: Configure) -> None:
    configure(date_column="sent", id_column="", text_column="body")
    one, two = extracted(), extracted(datetime.date(2026, 2, 1))
    assert kept(one) == kept(two)
    assert len(kept(one)) == one.output().manifest()["rows"] > 100
    assert kept(one)[0][1:2] == ("m-0001",)
    assert one.output().manifest()["source"] == "bundled inbox"
    assert one.output().path.parent == Path("artifacts/snapshots/2026-01-31")
    assert one.output().path.name == two.output().path.name


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.parquet"])
def test_the_messages_of_the_date_are_taken_from_a_file_of_many(
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
    task = extracted()
    assert kept(task) == [(2, "b", "first", None), (3, "c", "last", None), (5, "e", "compact", None)]
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


def test_rows_whose_date_cannot_be_read_are_kept_with_that_as_their_fault(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "message_id,sent,text\na,31/01/2026,x\nb,,y\nc,2026-01-31\nd,2026-01-30\n,2026-01-31,\ne\n"
    )
    configure(source="file", path="m.csv", date_column="sent")
    task = extracted()
    assert kept(task) == [
        (1, "a", "x", "unreadable date: received '31/01/2026', expected ISO 8601"),
        (2, "b", "y", "unreadable date: there is none"),
        (3, "c", None, "wrong number of fields: expected 3, received 2 (line 4)"),
        (5, "", "", None),
        (6, "e", None, "wrong number of fields: expected 3, received 1 (line 7)"),
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
def test_dates_of_a_parquet_file_are_taken_at_face_value(configure: Configure, tmp_path: Path, column: Any) -> None:
    pq.write_table(pa.table({"message_id": [1, 2], "text": ["a", "b"], "sent": column}), tmp_path / "m.parquet")
    configure(source="file", path="m.parquet", date_column="sent")
    assert kept(extracted()) == [(1, "1", "a", None)]


def test_the_path_of_a_date_is_read_and_waited_for(configure: Configure, tmp_path: Path) -> None:
    configure(source="file", path="in/{date}.csv")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "2026-01-31.csv").write_text("message_id,text\n1,a\n")
    assert kept(extracted()) == [(1, "1", "a", None)]
    task = ExtractMessages(date=datetime.date(2026, 2, 1))
    assert built(task) == luigi.LuigiStatusCode.MISSING_EXT
    assert task.requires()[0].path == "in/2026-02-01.csv"


def test_without_an_id_column_a_message_is_identified_by_its_row(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("sent,text\n2026-01-30,a\n2026-01-31,b\n2026-01-31,c\n")
    configure(source="file", path="m.csv", date_column="sent", id_column="")
    assert [name for _, name, _, _ in kept(extracted())] == ["2", "3"]


def test_a_rerun_reads_what_the_first_run_read(configure: Configure, tmp_path: Path) -> None:
    configure(source="file", path="m.csv")
    (tmp_path / "m.csv").write_text("message_id,text\n1,a\n")
    before = kept(extracted())
    (tmp_path / "m.csv").write_text("message_id,text\n1,a\n2,b\n")
    assert kept(extracted()) == before
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
    task = extracted()
    assert kept(task) == [(1, "2", "a", None), (2, "3", "a", None)]
    assert task.output().manifest()["source"] == "[messages] query"
    configure(query=query, date_column="sent")
    assert [name for _, name, _, _ in kept(extracted())] == ["2", "3"]


@pytest.mark.parametrize(
    ("content", "values", "rows", "said"),
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
def test_a_night_without_messages_is_a_snapshot_of_none_and_is_said(
    configure: Configure,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    content: str,
    values: Any,
    rows: int,
    said: str,
) -> None:
    (tmp_path / "m.csv").write_text(content)
    configure(source="file", path="m.csv", **values)
    with caplog.at_level(logging.INFO, "spamscore"):
        assert len(kept(extracted())) == rows
    assert said in caplog.text
    assert any(record.levelno == logging.WARNING for record in caplog.records) is (rows == 0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"source": "file"}, r"\[messages\] path is empty"),
        ({"source": "sql"}, r"\[messages\] query is empty"),
    ],
)
def test_a_source_without_what_it_needs_is_refused_before_any_work(
    configure: Configure, values: dict[str, str], expected: str
) -> None:
    configure(**values)
    with pytest.raises(SettingsError, match=expected):
        ExtractMessages(date=NIGHT)


@pytest.mark.parametrize("values", [{"id_column": "key"}, {"text_column": "body"}, {"date_column": "day"}])
def test_a_column_that_is_not_there_leaves_no_snapshot(
    configure: Configure, tmp_path: Path, values: dict[str, str]
) -> None:
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
def test_the_date_counts_where_it_chooses_the_messages(
    configure: Configure, values: dict[str, str], dated: bool
) -> None:
    assert is_dated(MessagesSettings(**{"source": "bundled", **values})) is dated  # type: ignore[arg-type]
    configure(**values)
    made_of = ExtractMessages(date=NIGHT).made_of()
    assert made_of["date"] == ("2026-01-31" if dated else None)
    assert made_of["path"] == values.get("path", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31", NIGHT),
        (" 2026-01-31T10:00:00Z ", NIGHT),
        ("2026-01-31 23:59:59.123456789-11:00", NIGHT),
        ("2026-W05-6", NIGHT),
        ("2026-02-30", None),
        ("31.01.2026", None),
        ("1769817600", None),
        ("", None),
        (None, None),
        ("<value out of range: 1>", None),
    ],
)
def test_a_date_is_iso_8601(text: str | None, expected: datetime.date | None) -> None:
    assert read_date(text) == expected


@given(st.lists(st.one_of(st.none(), st.text(max_size=12), st.dates().map(str), st.just("2026-01-31"))))
def test_every_row_is_taken_or_counted(values: list[str | None]) -> None:
    others = OtherDates()
    rows = [SourceRow(number, {"sent": value}, None) for number, value in enumerate(values, 1)]
    taken = list(of_date(rows, "sent", NIGHT, others))
    assert len(taken) + others.rows == len(rows)
    assert all((read_date(row.values["sent"]) == NIGHT) is (row.fault is None) for row in taken)
