"""The night, unattended: many dates at once, and what is done about those that were missed."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from chain import DATE, SMALL, Settings, environment, luigi, merged, query, write_settings

from tasks.score_batch import ScoreBatch

FIRST = datetime.date(2025, 1, 1)
DATED: Settings = {"messages": {"source": "file", "path": "inbox-{date}.csv"}}
# A process for each of many small tasks costs more than the tasks.
QUICK: Settings = {"worker": {"force_multiprocessing": "false"}}


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to run nights in, with an inbox for each date that a test writes."""
    copied = Path(shutil.copytree(trained, tmp_path / "nights"))
    write_settings(copied, merged(SMALL, DATED, QUICK))
    return copied


def write_inboxes(folder: Path, days: int) -> list[datetime.date]:
    dates = [FIRST + datetime.timedelta(days=day) for day in range(days)]
    for number, date in enumerate(dates):
        rows = [f"{number}-{row},message {row} of {date}: call me" for row in range(3)]
        (folder / f"inbox-{date}.csv").write_text("\n".join(["message_id,text", *rows]) + "\n", encoding="utf-8")
    return dates


def backfill(dates: list[datetime.date]) -> tuple[str, ...]:
    stop = dates[-1] + datetime.timedelta(days=1)
    return ("RangeDaily", "--of", "ScoreBatch", "--start", str(dates[0]), "--stop", str(stop))


# Backfill


def test_ninety_dates_of_long_ago_are_scored_with_one_load_of_the_model(folder: Path) -> None:
    dates = write_inboxes(folder, 90)
    done = luigi(folder, *backfill(dates))
    assert done.code == 0, done.output
    assert done.output.count("loaded, from checkpoint") == 1
    published = query(folder, "select batch_date, scored from score_batches where state = 'published' order by 1")
    assert published == [(str(date), 3) for date in dates]
    assert query(folder, "select count(distinct message_id) from published_scores") == [(270,)]
    again = luigi(folder, *backfill(dates))
    assert (again.code, again.ran) == (0, set())


def test_a_date_that_fails_takes_no_other_with_it_and_is_named(folder: Path) -> None:
    dates = write_inboxes(folder, 4)
    for date in dates:
        assert luigi(folder, "ExtractMessages", "--date", str(date)).code == 0
    (snapshot,) = (folder / "artifacts" / "snapshots" / str(dates[1])).iterdir()
    (snapshot / "messages.parquet").write_bytes(b"damaged")
    done = luigi(folder, *backfill(dates))
    assert done.code == 30
    assert f"1 of 4 dates failed, the others are published. {dates[1]}: " in done.last_line
    assert "Traceback" not in done.output
    published = "select batch_date from score_batches where state = 'published' order by 1"
    assert query(folder, published) == [(str(date),) for date in dates if date != dates[1]]
    shutil.rmtree(snapshot)
    assert luigi(folder, *backfill(dates)).code == 0
    assert query(folder, published) == [(str(date),) for date in dates]


def test_several_dates_are_given_by_hand_as_a_range(folder: Path) -> None:
    dates = write_inboxes(folder, 3)
    done = luigi(folder, "ScoreBatch", "--date", f"{dates[0]}..{dates[2]}")
    assert done.code == 0, done.output
    assert done.output.count("loaded, from checkpoint") == 1
    assert query(folder, "select count(*) from score_batches where state = 'published'") == [(3,)]


@pytest.mark.parametrize("days", [1, 90])
def test_whether_many_dates_are_done_is_one_query(set_settings: Callable[..., None], trained: Path, days: int) -> None:
    shutil.copytree(trained, Path.cwd(), dirs_exist_ok=True)
    for section, values in SMALL.items():
        set_settings(section, **values)
    assert luigi(Path.cwd(), "ScoreBatch", "--date", DATE).code == 0
    dates = [datetime.date.fromisoformat(DATE) + datetime.timedelta(days=day) for day in range(days)]
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        assert ScoreBatch.bulk_complete(dates) == dates[:1]
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert sum("FROM score_batches" in statement for statement in asked) == 1
    assert len(asked) < 8  # the others ask whether there are tables, and which


# Nightly

TODAY = datetime.date.today()
NIGHTLY_DATES = [TODAY - datetime.timedelta(days=days) for days in (4, 3, 2, 1)]


def write_inbox(folder: Path, date: datetime.date) -> None:
    text = f"message_id,text\na,hello of {date}\nb,WIN a prize of {date}\n"
    (folder / f"inbox-{date}.csv").write_text(text, encoding="utf-8")


def published_dates(folder: Path) -> list[str]:
    return [str(row[0]) for row in query(folder, "select published_date from score_batches where state = 'published'")]


def test_a_night_scores_what_was_missed_deletes_what_is_old_and_is_done_then(folder: Path) -> None:
    old, withdrawn, missed, tonight = NIGHTLY_DATES
    for date in NIGHTLY_DATES:
        write_inbox(folder, date)
    assert luigi(folder, "ScoreBatch", "--date", f"{old}..{withdrawn}").code == 0
    assert luigi(folder, "ScoreBatch", "--date", str(old), "--scoring-threshold", "0.9").code == 0
    withdraw = [Path(sys.executable).with_name("spamscore"), "withdraw", str(withdrawn), "--yes"]
    subprocess.run(withdraw, cwd=folder, env=environment(), check=True, capture_output=True)
    settings = {"run": {"catch_up_days": "3"}, "database": {"keep_days": "3"}, "artifacts": {"keep_days": "3"}}
    write_settings(folder, merged(SMALL, DATED, QUICK, settings))
    done = luigi(folder, "Nightly", "--date", str(tonight))
    assert done.code == 0, done.output
    assert sorted(published_dates(folder)) == [str(old), str(missed), str(tonight)]
    rows = "select batch_id, count(*) from spam_scores group by batch_id order by batch_id"
    assert [row[0] for row in query(folder, rows)] == [2, 3, 4, 5]  # of batch 1, superseded and old, none
    kept = sorted(path.name for path in (folder / "artifacts" / "snapshots").iterdir())
    assert kept == [str(date) for date in NIGHTLY_DATES[1:]]
    (night,) = (folder / "artifacts" / "nights" / str(tonight)).iterdir()
    assert [one["batch_id"] for one in json.loads(night.read_text(encoding="utf-8"))["pruned"]] == [1]
    again = luigi(folder, "Nightly", "--date", str(tonight))
    assert (again.code, "0 ran" in again.output or again.ran == set()) == (0, True)
    assert "Worker" not in again.output or "running   Nightly" not in again.output


def test_a_night_whose_batch_was_replaced_is_to_be_done_again(folder: Path) -> None:
    date = NIGHTLY_DATES[-1]
    write_inbox(folder, date)
    assert luigi(folder, "Nightly", "--date", str(date)).code == 0
    done = luigi(folder, "Nightly", "--date", str(date), "--scoring-threshold", "0.9")
    assert done.ran == {"ScoreBatch"}
    assert len(list((folder / "artifacts" / "nights" / str(date)).iterdir())) == 2
