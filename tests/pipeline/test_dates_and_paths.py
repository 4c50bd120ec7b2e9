"""Which messages belong to a date, through the real command: dates, days that are not over, and paths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chain import DATE, SMALL, Settings, luigi, luigi_at, merge_settings, query, write_settings

FILE = {"source": "file"}


def write_messages(folder: Path, path: str, content: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(content, encoding="utf-8")


def read_snapshot(folder: Path, date: str) -> list[tuple[str, str | None]]:
    """Returns the id and the fault of each message of the only snapshot of a date."""
    (snapshot,) = (folder / "artifacts" / "snapshots" / date).iterdir()
    rows: list[dict[str, Any]] = pq.read_table(snapshot / "messages.parquet").to_pylist()
    return [(row["message_id"], row["fault"]) for row in rows]


# Dates

MILLISECONDS = "message_id,text,date\na,WIN a prize,1769810400000\nb,hello,1769814000000\nc,old,1769723999999\n"


def test_epoch_milliseconds_are_read_by_their_setting(tmp_path: Path) -> None:
    write_messages(tmp_path, "in.csv", MILLISECONDS)
    messages = {**FILE, "path": "in.csv", "date_column": "date", "date_format": "epoch_milliseconds"}
    write_settings(tmp_path, {"messages": {**messages, "timezone": "Europe/Berlin"}})
    for date, message_id in (("2026-01-30", "a"), ("2026-01-31", "b")):  # 23:00 and midnight in Berlin
        assert luigi(tmp_path, "ExtractMessages", "--date", date).code == 0
        assert read_snapshot(tmp_path, date) == [(message_id, None)]


def test_epoch_milliseconds_are_never_taken_for_a_date_long_ago(tmp_path: Path) -> None:
    write_messages(tmp_path, "in.csv", "message_id,text,date\n1,hello,1769041200000\n2,WIN,1769041260000\n")
    write_settings(tmp_path, {"messages": {**FILE, "path": "in.csv", "date_column": "date"}})
    luigi(tmp_path, "ExtractMessages", "--date", "1769-04-12")
    for _, fault in read_snapshot(tmp_path, "1769-04-12"):
        assert fault is not None
        assert fault.startswith("unreadable date: received '17690412")
        assert fault.endswith("it is 2026-01-22: set [messages] date_format = epoch_milliseconds")


# Days that are not over


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the folder with a model; it reads in.csv, which the test writes."""
    copied = Path(shutil.copytree(trained, tmp_path / "copied"))
    dated: Settings = {"messages": {**FILE, "path": "in.csv", "date_column": "sent"}}
    write_settings(copied, merge_settings(SMALL, dated))
    return copied


def test_a_day_is_refused_or_scored_provisionally_and_again_when_it_is_over(folder: Path) -> None:
    write_messages(folder, "in.csv", "message_id,text,sent\n1,hello you,2026-03-10 08:00\n")
    refused = luigi_at("2026-03-10 10:00:00", folder, "ScoreBatch", "--date", "2026-03-10")
    assert refused.code == 20
    assert "2026-03-10 is not over: it ends at 2026-03-11 00:00 UTC" in refused.last_line
    assert refused.last_line.endswith("--messages-provisional true")
    early = ("ScoreBatch", "--date", "2026-03-10", "--messages-provisional", "true")
    first = luigi_at("2026-03-10 10:00:00", folder, *early)
    assert first.code == 0, first.output
    provisional = "2026-03-10 is provisional: the first run after 2026-03-11 00:00 UTC scores all of its messages."
    assert provisional in first.last_line
    again = luigi_at("2026-03-10 11:00:00", folder, *early)
    assert (again.code, again.ran) == (0, set())
    assert provisional in again.last_line + "."
    write_messages(folder, "in.csv", "message_id,text,sent\n1,hello you,2026-03-10 08:00\n2,WIN,2026-03-10 20:00\n")
    final = luigi_at("2026-03-11 00:30:00", folder, "ScoreBatch", "--messages-provisional", "true")
    assert final.code == 0, final.output
    assert "provisional" not in final.last_line
    batches = "select state, provisional, scored from score_batches order by batch_id"
    assert query(folder, batches) == [("superseded", 1, 1), ("published", 0, 2)]
    assert query(folder, "select message_id from published_scores order by 1") == [("1",), ("2",)]
    receipts = sorted((folder / "artifacts" / "receipts" / "2026-03-10").iterdir())
    assert [json.loads(receipt.read_text())["provisional"] for receipt in receipts] == [True, False]


@pytest.mark.parametrize("task", ["ExtractMessages", "ScoreBatch", "ReportBatch", "Nightly"])
@pytest.mark.parametrize("source", ["bundled", "sql"])
def test_every_task_and_source_refuses_a_date_that_has_not_begun(tmp_path: Path, task: str, source: str) -> None:
    write_settings(tmp_path, {"messages": {"source": source, "query": "SELECT 1"}})
    done = luigi(tmp_path, task, "--date", "9999-12-31", "--messages-provisional", "true")
    assert done.code == 20, done.output
    assert "9999-12-31 has not begun: it begins at 9999-12-31 00:00" in done.last_line
    assert "Traceback" not in done.output
    assert {path.name for path in tmp_path.glob("artifacts/*")} <= {"alerts"}  # no model was trained first


def test_the_dates_of_a_range_that_are_over_are_scored_and_the_others_are_named(folder: Path) -> None:
    write_messages(folder, "in.csv", "message_id,text,sent\n1,hello you,2026-01-31 08:00\n")
    done = luigi(folder, "ScoreBatch", "--date", "2026-01-30..2026-01-31,9999-12-30,9999-12-31")
    assert done.code == 20, done.output
    assert "2 of 4 dates failed, the others are published. 9999-12-30 has not begun" in done.last_line
    assert "9999-12-31 has not begun" in done.last_line
    published = "select batch_date, scored from score_batches where state = 'published' order by 1"
    assert query(folder, published) == [("2026-01-30", 0), ("2026-01-31", 1)]


# Paths

A, B = "message_id,text\na,hello\n", "message_id,text\nb,hello\n"
PATHS = [
    ("the home folder", "~/in.csv", {"home/in.csv": A}, [("a", None)]),
    ("a format of the date", "in/{date:%Y%m%d}.csv", {"in/20260131.csv": A, "in/20260130.csv": B}, [("a", None)]),
    ("a pattern", "in/*.csv", {"in/2.csv": A, "in/1.csv": B, "in/3.txt": A}, [("b", None), ("a", None)]),
    ("a pattern and a date", "in/{date}-*.csv", {"in/2026-01-31-x.csv": A, "in/2026-01-30-x.csv": B}, [("a", None)]),
    ("a name with brackets", "in/[a].csv", {"in/[a].csv": A, "in/a.csv": B}, [("a", None)]),
]


@pytest.mark.parametrize(("_name", "path", "files", "rows"), PATHS, ids=[row[0] for row in PATHS])
def test_the_files_of_a_path_are_read(
    tmp_path: Path, _name: str, path: str, files: dict[str, str], rows: list[tuple[str, str | None]]
) -> None:
    for name, content in files.items():
        write_messages(tmp_path, name, content)
    write_settings(tmp_path, {"messages": {**FILE, "path": path}})
    done = luigi(tmp_path, "ExtractMessages", "--date", DATE, HOME=str(tmp_path / "home"))
    assert done.code == 0, done.output
    assert read_snapshot(tmp_path, DATE) == rows


def test_a_fault_in_one_of_several_files_names_the_file(tmp_path: Path) -> None:
    write_messages(tmp_path, "in/1.csv", A + "c,hello\nd,hello\ne,hello\n")
    write_messages(tmp_path, "in/2.csv", "message_id,text\nb\n")
    write_settings(tmp_path, {"messages": {**FILE, "path": "in/*.csv"}})
    assert luigi(tmp_path, "ExtractMessages", "--date", DATE).code == 0
    *_, (message_id, fault) = read_snapshot(tmp_path, DATE)
    assert message_id == "b"
    assert str(fault).endswith("(line 2), in row 1 of in/2.csv")


REFUSALS = [
    (
        "s3://key:hunter2@bucket/in.csv",
        40,
        "[messages] path = s3://…: expected an address such as s3://bucket/messages.csv",
    ),
    (
        "https://key:hunter2@host/in.csv",
        40,
        "[messages] path = https://…: expected a path on this machine or",
    ),
    ("in/{date:YYYYMMDD}.csv", 40, "[messages] path: {date:YYYYMMDD}: expected {date} for 2026-01-31, or"),
    ("in/*.csv", 20, "missing data: [messages] path = in/*.csv: no file matches (looked in "),
    ("in", 20, "received the folder in. Name the files in it, such as in/*.csv, and run again."),
]


@pytest.mark.parametrize(("path", "code", "message"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_a_path_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, path: str, code: int, message: str) -> None:
    (tmp_path / "in").mkdir()
    write_settings(tmp_path, {"messages": {**FILE, "path": path}})
    done = luigi(tmp_path, "ExtractMessages", "--date", DATE)
    assert done.code == code, done.output
    assert message in done.last_line
    assert "hunter2" not in done.output
    assert "Traceback" not in done.output


def test_a_corpus_of_several_files_is_one_corpus_and_its_content_is_its_fingerprint(tmp_path: Path) -> None:
    write_settings(tmp_path, {"corpus": {**FILE, "path": "labelled/*.csv"}})
    write_messages(tmp_path, "labelled/1.csv", "label,text\nspam,WIN\n")
    write_messages(tmp_path, "labelled/2.csv", "label,text\nham,hello\nham\n")
    for expected in (3, 4):
        assert luigi(tmp_path, "IngestCorpus").code == 0
        corpora = [pq.read_table(path).to_pylist() for path in (tmp_path / "artifacts" / "corpus").glob("*/*.parquet")]
        rows = max(corpora, key=len)
        assert [row["row_number"] for row in rows] == list(range(1, expected + 1))
        write_messages(tmp_path, "labelled/3.csv", "label,text\nham,bye\n")
    assert rows[2]["fault"].endswith(" (line 3), in row 2 of labelled/2.csv")
