"""Ranges of dates: every task with a date can be run for a range, and a range without a date is refused."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import pytest
from chain import SMALL, Settings, luigi, merge_settings, query, write_settings

DATED: Settings = {"messages": {"source": "file", "path": "inbox-{date}.csv"}}
# Starting a process for each of many small tasks takes longer than the tasks.
QUICK: Settings = {"worker": {"force_multiprocessing": "false"}}
TODAY = datetime.date.today()
TOMORROW, YESTERDAY = TODAY + datetime.timedelta(days=1), TODAY - datetime.timedelta(days=1)
RANGE = ("--start", "2024-01-01", "--stop", "2024-01-04")
DATES = ["2024-01-01", "2024-01-02", "2024-01-03"]
PUBLISHED = "select published_date from score_batches where state = 'published' order by 1"


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the folder with a model, and the inboxes of three old dates and of the last three."""
    folder = Path(shutil.copytree(trained, tmp_path / "ranges"))
    write_settings(folder, merge_settings(SMALL, DATED, QUICK))
    for date in [*DATES, *(str(TODAY - datetime.timedelta(days=days)) for days in range(3))]:
        (folder / f"inbox-{date}.csv").write_text(f"message_id,text\n{date},hello of {date}\n", encoding="utf-8")
    return folder


def list_files(folder: Path, pattern: str) -> list[str]:
    return sorted(path.parent.name for path in (folder / "artifacts").glob(pattern))


# Task, and a pattern of the files that it writes for each date.
TASKS = [
    ("ExtractMessages", "snapshots/*/*"),
    ("ScoreBatch", "receipts/*/*"),
    ("ReportBatch", "reports/*/*.html"),
    ("Nightly", "nights/*/*"),
]


@pytest.mark.parametrize("task_range", ["RangeDaily", "RangeDailyBase"])
@pytest.mark.parametrize(("task", "pattern"), TASKS, ids=[row[0] for row in TASKS])
def test_each_task_with_a_date_is_run_for_a_range_of_old_dates(
    folder: Path, task_range: str, task: str, pattern: str
) -> None:
    done = luigi(folder, task_range, "--of", task, *RANGE)
    assert done.code == 0, done.output
    assert "already complete" not in done.output
    assert list_files(folder, pattern) == DATES
    again = luigi(folder, task_range, "--of", task, *RANGE)
    assert (again.code, again.ran) == (0, set())
    assert again.last_line == (
        f"spamscore: {task_range}(of={task}, dates=2024-01-01..2024-01-03) was already complete; nothing to do"
    )


def test_a_range_of_months_has_all_of_their_dates(tmp_path: Path) -> None:
    (tmp_path / "inbox.csv").write_text("message_id,text\n1,hello\n", encoding="utf-8")
    write_settings(tmp_path, merge_settings(QUICK, {"messages": {"source": "file", "path": "inbox.csv"}}))
    done = luigi(tmp_path, "RangeMonthly", "--of", "ExtractMessages", "--start", "2024-02", "--stop", "2024-03")
    assert done.code == 0, done.output
    assert list_files(tmp_path, "snapshots/*/*") == [f"2024-02-{day:02}" for day in range(1, 30)]


def test_only_the_missing_dates_of_a_range_are_run(folder: Path) -> None:
    assert luigi(folder, "ScoreBatch", "--date", "2024-01-02").code == 0
    done = luigi(folder, "RangeDaily", "--of", "ScoreBatch", *RANGE)
    assert (done.code, done.ran) == (0, {"ExtractMessages", "ScoreBatch"})
    assert query(folder, "select batch_date from score_batches order by batch_id") == [
        ("2024-01-02",), ("2024-01-01",), ("2024-01-03",),
    ]  # fmt: skip


def test_a_missing_file_in_a_range_is_missing_data_and_the_other_dates_are_reported(folder: Path) -> None:
    (folder / "inbox-2024-01-02.csv").unlink()
    done = luigi(folder, "RangeDaily", "--of", "ReportBatch", *RANGE)
    assert done.code == 20, done.output
    assert "missing data: [messages] path = inbox-2024-01-02.csv: no such file" in done.output
    assert list_files(folder, "reports/*/*.html") == ["2024-01-01", "2024-01-03"]


def test_a_range_ends_with_the_last_date_that_is_over(folder: Path) -> None:
    done = luigi(folder, "RangeDaily", "--of", "ExtractMessages", "--start", str(YESTERDAY), "--stop", str(TOMORROW))
    assert done.code == 0, done.output
    assert f"dates from {TODAY} on are left out, because they are not over" in done.output
    assert list_files(folder, "snapshots/*/*") == [str(YESTERDAY)]
    luigi(folder, "RangeDaily", "--of", "ExtractMessages", "--days-back", "2", "--reverse")
    assert list_files(folder, "snapshots/*/*") == [str(YESTERDAY - datetime.timedelta(days=1)), str(YESTERDAY)]


def test_dates_above_the_limit_of_a_run_are_counted_and_done_by_the_next_run(folder: Path) -> None:
    command = ("RangeDaily", "--of", "ScoreBatch", *RANGE, "--task-limit", "2", "--reverse")
    done = luigi(folder, *command)
    assert done.code == 0, done.output
    assert "1 more dates are not complete (task_limit = 2). Run again." in done.output
    assert query(folder, PUBLISHED) == [("2024-01-02",), ("2024-01-03",)]
    assert luigi(folder, *command).code == 0
    assert query(folder, PUBLISHED) == [(date,) for date in DATES]


# Arguments, and the beginning of the line.
REFUSED = [
    (("RangeDaily", "--of", "ScoreBatch", "--start", "2024-01-01", "--stop", "2024-01-01"), "there is no date in this"),
    (("RangeDaily", "--of", "ScoreBatch", "--start", "2024-01-05", "--stop", "2024-01-01"), "there is no date in this"),
    (("RangeDailyBase", "--of", "Nightly", "--start", str(TODAY)), "no date of this range is over yet"),
    (("RangeDaily", "--of", "ScoreBatch", "--start", "9999-01-01"), "no date of this range is over yet"),
    (("RangeDaily", "--of", "ScoreBatch", *RANGE, "--days-back", "3"), "there is no date in this range"),
    (("RangeDaily", "--of", "ScoreBatch"), "--start is missing"),
    (("RangeDaily", "--of", "ScoreBatch", "--reverse"), "--start is missing"),
    (("RangeDaily", "--of", "TrainModel", *RANGE), "--of TrainModel: expected a task with a date"),
    (("RangeDaily", "--of", "RangeDaily", *RANGE), "--of RangeDaily: expected a task with a date"),
    (("RangeDaily", "--of", "ScoreBatch", *RANGE, "--of-params", '{"model": 2}'), "unknown parameter model"),
    (("RangeMonthly", "--of", "ScoreBatch", "--start", "2024-12", "--stop", "2024-12"), "there is no date in this"),
    (("RangeMonthly", "--of", "ScoreBatch", "--start", "2024-12", "--stop", "2024-12"), "give --stop 2025-01."),
    (("RangeHourly", "--of", "Nightly", "--start", "2024-01-01T00"), "RangeHourly --of Nightly: the tasks of this"),
    (("RangeHourlyBase", "--of", "Nightly", "--start", "2024-01-01T00"), "Use RangeDaily"),
    (("RangeByMinutes", "--of", "Nightly", "--start", "2024-01-01T0000"), "Use RangeDaily"),
    (("RangeByMinutesBase", "--of", "Nightly", "--start", "2024-01-01T0000"), "Use RangeDaily"),
]


@pytest.mark.parametrize(("arguments", "text"), REFUSED, ids=[f"{row[0][0]}: {row[1]}" for row in REFUSED])
def test_a_range_that_cannot_be_run_is_refused_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], text: str
) -> None:
    done = luigi(tmp_path, *arguments)
    assert done.code == 2, done.output
    assert text in done.last_line
    assert "complete; nothing to do" not in done.output
    assert "Traceback" not in done.output
    assert not list(tmp_path.iterdir())


def test_a_bad_setting_stops_a_range_as_it_stops_a_single_date(tmp_path: Path) -> None:
    write_settings(tmp_path, {"training": {"epochs": "0"}})
    done = luigi(tmp_path, "RangeDaily", "--of", "ScoreBatch", *RANGE)
    assert (done.code, "[training] epochs = 0: expected" in done.last_line) == (40, True), done.output
