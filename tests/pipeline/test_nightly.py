"""The Nightly task, unattended: backfill, catch-up, retention, alerts, and retries with luigid."""

from __future__ import annotations

import datetime
import json
import shutil
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import (
    DATE,
    LUIGI,
    SMALL,
    Settings,
    environment,
    kill_group_on_exit,
    luigi,
    merge_settings,
    query,
    write_settings,
)
from eventually import eventually
from luigid import Luigid
from receivers import mail_server, web_server

from pipeline.nightly import find_reasons
from tasks.scheduler.failures import Failure
from tasks.score_batch import ScoreBatch

FIRST = datetime.date(2025, 1, 1)
DATED: Settings = {"messages": {"source": "file", "path": "inbox-{date}.csv"}}
# Starting a process for each of many small tasks takes longer than the tasks.
QUICK: Settings = {"worker": {"force_multiprocessing": "false"}}


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the folder with a model; it reads an inbox for each date, which the test writes."""
    nights = Path(shutil.copytree(trained, tmp_path / "nights"))
    write_settings(nights, merge_settings(SMALL, DATED, QUICK))
    return nights


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


@pytest.mark.slow
def test_a_backfill_of_ninety_old_dates_loads_the_model_once(folder: Path) -> None:
    dates = write_inboxes(folder, 90)
    done = luigi(folder, *backfill(dates))
    assert done.code == 0, done.output
    assert done.output.count("loaded, from checkpoint") == 1
    published = query(folder, "select batch_date, scored from score_batches where state = 'published' order by 1")
    assert published == [(str(date), 3) for date in dates]
    assert query(folder, "select count(distinct message_id) from published_scores") == [(270,)]
    again = luigi(folder, *backfill(dates))
    assert (again.code, again.ran) == (0, set())


def test_a_date_that_fails_is_named_and_the_other_dates_are_published(folder: Path) -> None:
    dates = write_inboxes(folder, 4)
    for date in dates:
        assert luigi(folder, "ExtractMessages", "--date", str(date)).code == 0
    (snapshot,) = (folder / "artifacts" / "snapshots" / str(dates[1])).iterdir()
    (snapshot / "messages.parquet").write_bytes(b"damaged")
    done = luigi(folder, *backfill(dates))
    assert done.code == 30
    assert f"spamscore: ScoreBatch(date={dates[1]}, model_version=in service) failed: " in done.last_line
    assert "Traceback" not in done.output
    published = "select batch_date from score_batches where state = 'published' order by 1"
    assert query(folder, published) == [(str(date),) for date in dates if date != dates[1]]
    shutil.rmtree(snapshot)
    assert luigi(folder, *backfill(dates)).code == 0
    assert query(folder, published) == [(str(date),) for date in dates]


def test_score_batch_takes_a_range_of_dates(folder: Path) -> None:
    dates = write_inboxes(folder, 3)
    done = luigi(folder, "ScoreBatch", "--date", f"{dates[0]}..{dates[2]}")
    assert done.code == 0, done.output
    assert done.output.count("loaded, from checkpoint") == 1
    assert query(folder, "select count(*) from score_batches where state = 'published'") == [(3,)]


@pytest.mark.parametrize("days", [1, 90])
def test_the_completeness_of_many_dates_is_one_query(
    set_settings: Callable[..., None], trained: Path, days: int
) -> None:
    shutil.copytree(trained, Path.cwd(), dirs_exist_ok=True)
    for section, values in SMALL.items():
        set_settings(section, **values)
    assert luigi(Path.cwd(), "ScoreBatch", "--date", DATE).code == 0
    dates = [datetime.date.fromisoformat(DATE) + datetime.timedelta(days=day) for day in range(days)]
    statements: list[str] = []

    connect = sqlite3.connect

    def connect_and_trace(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(statements.append)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", connect_and_trace)
        assert ScoreBatch.bulk_complete(dates) == dates[:1]
    assert sum("FROM score_batches" in statement for statement in statements) == 1
    assert len(statements) < 8  # the others check which tables exist


# Nightly

TODAY = datetime.date.today()
NIGHTLY_DATES = [TODAY - datetime.timedelta(days=days) for days in (4, 3, 2, 1)]


def write_inbox(folder: Path, date: datetime.date) -> None:
    text = f"message_id,text\na,hello of {date}\nb,WIN a prize of {date}\n"
    (folder / f"inbox-{date}.csv").write_text(text, encoding="utf-8")


def read_published_dates(folder: Path) -> list[str]:
    return [str(row[0]) for row in query(folder, "select published_date from score_batches where state = 'published'")]


def test_nightly_catches_up_on_missed_dates_deletes_old_data_and_is_complete(folder: Path) -> None:
    old, withdrawn, missed, tonight = NIGHTLY_DATES
    for date in NIGHTLY_DATES:
        write_inbox(folder, date)
    assert luigi(folder, "ScoreBatch", "--date", f"{old}..{withdrawn}").code == 0
    assert luigi(folder, "ScoreBatch", "--date", str(old), "--scoring-threshold", "0.9").code == 0
    withdraw = [Path(sys.executable).with_name("spamscore"), "withdraw", str(withdrawn), "--yes"]
    subprocess.run(withdraw, cwd=folder, env=environment(), check=True, capture_output=True)
    artifacts = {"keep_days": "3", "shared": f"file://{folder}/mounted"}
    for date in (old, tonight):
        (folder / "mounted" / "snapshots" / str(date)).mkdir(parents=True)
    settings = {"run": {"catch_up_days": "3"}, "database": {"keep_days": "3"}, "artifacts": artifacts}
    write_settings(folder, merge_settings(SMALL, DATED, QUICK, settings))
    done = luigi(folder, "Nightly", "--date", str(tonight))
    assert done.code == 0, done.output
    assert sorted(read_published_dates(folder)) == [str(old), str(missed), str(tonight)]
    rows = "select batch_id, count(*) from spam_scores group by batch_id order by batch_id"
    assert [row[0] for row in query(folder, rows)] == [2, 3, 4, 5]  # none of batch 1, which is superseded and old
    reported = sorted(path.parent.name for path in (folder / "artifacts" / "reports").glob("*/*.html"))
    assert reported == [str(missed), str(tonight)]
    snapshots = sorted(path.name for path in (folder / "artifacts" / "snapshots").iterdir())
    assert snapshots == [str(date) for date in NIGHTLY_DATES[1:]]
    assert [path.name for path in (folder / "mounted" / "snapshots").iterdir()] == [str(tonight)]
    (record,) = (folder / "artifacts" / "nights" / str(tonight)).iterdir()
    assert [batch["batch_id"] for batch in json.loads(record.read_text(encoding="utf-8"))["pruned"]] == [1]
    again = luigi(folder, "Nightly", "--date", str(tonight))
    assert (again.code, "running   Nightly(" in again.output) == (0, False)


def test_nightly_is_not_complete_after_its_batch_was_replaced(folder: Path) -> None:
    date = NIGHTLY_DATES[-1]
    write_inbox(folder, date)
    assert luigi(folder, "Nightly", "--date", str(date)).code == 0
    done = luigi(folder, "Nightly", "--date", str(date), "--scoring-threshold", "0.9")
    assert done.ran == {"ScoreBatch"}
    assert len(list((folder / "artifacts" / "nights" / str(date)).iterdir())) == 2


CATCH_UP: Settings = {"run": {"catch_up_days": "3"}}


def list_finished(folder: Path) -> dict[str, list[str]]:
    """Returns the dates that have a batch, a report and a record of the night."""
    artifacts = folder / "artifacts"
    return {
        "batch": sorted(read_published_dates(folder)),
        "report": sorted(path.parent.name for path in (artifacts / "reports").glob("*/*.html")),
        "night": sorted(path.name for path in (artifacts / "nights").glob("*")),
    }


def damage(folder: Path, date: datetime.date, fault: str) -> None:
    """Leaves the messages of a date in a state that cannot be scored."""
    path = folder / f"inbox-{date}.csv"
    if fault == "no file":
        path.unlink(missing_ok=True)
    elif fault == "unreadable file":
        path.write_bytes(b"\x00\x01\x02")
    else:
        assert luigi(folder, "ExtractMessages", "--date", str(date)).code == 0
        (snapshot,) = (folder / "artifacts" / "snapshots" / str(date)).iterdir()
        (snapshot / "messages.parquet").write_bytes(b"damaged")


def repair(folder: Path, date: datetime.date) -> None:
    shutil.rmtree(folder / "artifacts" / "snapshots" / str(date), ignore_errors=True)
    write_inbox(folder, date)


# The date that fails, in days before today, why, and the exit code.
FAILED_DATES = [
    (1, "no file", 20), pytest.param(2, "unreadable file", 30, marks=pytest.mark.slow),
    pytest.param(1, "damaged snapshot", 30, marks=pytest.mark.slow),
    *(pytest.param(2, *fault, marks=pytest.mark.slow) for fault in (("no file", 20), ("damaged snapshot", 30))),
]  # fmt: skip


@pytest.mark.parametrize(("days_ago", "fault", "code"), FAILED_DATES)
def test_a_date_that_fails_keeps_no_other_date_of_the_night_from_being_finished(
    folder: Path, days_ago: int, fault: str, code: int
) -> None:
    *missed, tonight = NIGHTLY_DATES
    failed = TODAY - datetime.timedelta(days=days_ago)
    for date in NIGHTLY_DATES:
        write_inbox(folder, date)
    damage(folder, failed, fault)
    (folder / "metrics").mkdir()
    settings = merge_settings(SMALL, DATED, QUICK, CATCH_UP, {"metrics": {"textfile_folder": "metrics"}})
    write_settings(folder, settings)
    with web_server() as web:
        secret = {"SPAMSCORE_ALERTS_WEBHOOK_URL": web.url}
        done = luigi(folder, "Nightly", "--date", str(tonight), **secret)
        assert done.code == code, done.output
        finished = [str(date) for date in NIGHTLY_DATES if date != failed]
        record = [str(tonight)] * (failed != tonight)
        assert list_finished(folder) == {"batch": finished, "report": finished, "night": record}
        assert [(alert["date"], alert["state"]) for alert in web.messages] == [(str(failed), "open")]
        assert str(failed) in web.messages[0]["said"]
        metrics = (folder / "metrics" / "spamscore_run.prom").read_text(encoding="utf-8")
        assert f"spamscore_run_failed {float(failed == tonight)}" in metrics
        assert 'spamscore_alerts_open{kind="failure"} 1.0' in metrics
        batch = (folder / "metrics" / "spamscore_batch.prom").read_text(encoding="utf-8")
        assert "spamscore_batch_messages 2.0" in batch
        if failed in missed:
            assert f"Nightly of {tonight} is done. Missed dates that are not done: {failed}, for" in done.last_line
        repair(folder, failed)
        again = luigi(folder, "Nightly", "--date", str(tonight), **secret)
        assert again.code == 0, again.output
        everything = [str(date) for date in NIGHTLY_DATES]
        assert list_finished(folder) == {"batch": everything, "report": everything, "night": [str(tonight)]}
        assert [alert["state"] for alert in web.messages] == ["open", "recovered"]
        third = luigi(folder, "Nightly", "--date", str(tonight), **secret)
        assert (third.code, third.ran, len(web.messages)) == (0, set(), 2)


def test_a_first_night_without_the_files_of_the_days_before_is_finished_and_names_them(folder: Path) -> None:
    *missed, tonight = NIGHTLY_DATES
    write_inbox(folder, tonight)
    write_settings(folder, merge_settings(SMALL, DATED, QUICK, CATCH_UP))
    done = luigi(folder, "Nightly", "--date", str(tonight))
    assert done.code == 20, done.output
    assert list_finished(folder) == {key: [str(tonight)] for key in ("batch", "report", "night")}
    assert f"Missed dates that are not done: {missed[0]}..{missed[-1]}, for the reasons above" in done.last_line
    assert all(f"inbox-{date}.csv: no such file" in done.output for date in missed)


REASONS = [
    ("own", ["30 failed", "31 failed"], 30, ["30 failed"]),
    ("shared", ["no model", "31 failed"], 30, ["no model"]),
    ("only of others", ["31 failed"], 30, ["31 failed"]),
    ("none", [], 30, []),
]


@pytest.mark.parametrize(("_name", "messages", "day", "expected"), REASONS, ids=[row[0] for row in REASONS])
def test_the_reasons_of_a_date_are_the_failures_that_name_it_or_none(
    _name: str, messages: list[str], day: int, expected: list[str]
) -> None:
    failed = [Failure(None, f"2026-01-{message}" if message[0].isdigit() else message) for message in messages]
    dates = [datetime.date(2026, 1, 30), datetime.date(2026, 1, 31)]
    reasons = find_reasons(datetime.date(2026, 1, day), dates, failed)
    assert [reason.message.removeprefix("2026-01-") for reason in reasons] == expected


# Alerts


def test_failure_lateness_and_recovery_each_send_one_mail_and_one_webhook_call(
    folder: Path,
) -> None:
    date = NIGHTLY_DATES[-1]
    with web_server() as web, mail_server() as mailbox:
        (folder / "metrics").mkdir()
        write_settings(
            folder,
            merge_settings(
                SMALL, DATED, QUICK,
                {
                    "run": {"deadline": "00:00"}, "metrics": {"textfile_folder": "metrics", "pushgateway": web.url},
                    "alerts": {"mail_to": "oncall@example.org"},
                    "smtp": {"host": "127.0.0.1", "port": str(mailbox.port)},
                },
            ),
        )  # fmt: skip
        secret = {"SPAMSCORE_ALERTS_WEBHOOK_URL": f"{web.url}/hunter2"}
        for _ in range(2):
            failed = luigi(folder, "Nightly", "--date", str(date), **secret)
            assert failed.code == 20, failed.output
        assert [path.name for path in (folder / "metrics").iterdir()] == ["spamscore_run.prom"]
        write_inbox(folder, date)
        done = luigi(folder, "Nightly", "--date", str(date), **secret)
        assert done.code == 0, done.output
        assert "spamscore: too late: 2 of 2 messages are scored" in done.output
        assert luigi(folder, "Nightly", "--date", str(date), **secret).code == 0
        alerts = [json.loads(body) for path, body in web.received if path == "/hunter2"]
    expected = [("failure", "open"), ("deadline", "open"), ("failure", "recovered"), ("deadline", "recovered")]
    assert [(alert["kind"], alert["state"]) for alert in alerts] == expected
    assert f"[messages] path = inbox-{date}.csv: no such file" in alerts[0]["said"]
    assert len(mailbox.mails) == 4
    assert "hunter2" not in failed.output + done.output
    batch = (folder / "metrics" / "spamscore_batch.prom").read_text(encoding="utf-8")
    assert "spamscore_batch_messages 2.0" in batch
    assert {path for path, _ in web.received} == {"/hunter2", "/metrics/job/spamscore"}


NOT_STARTED = [
    ("a bad setting", {"training": {"epochs": "0"}}, {}, 40, "[training] epochs = 0: expected"),
    (
        "no database", {}, {"SPAMSCORE_DATABASE_URL": "postgresql://nobody:hunter2@127.0.0.1:1/none"}, 35,
        "cannot be reached",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("_name", "settings", "variables", "code", "message"), NOT_STARTED, ids=[row[0] for row in NOT_STARTED]
)
def test_a_run_that_cannot_start_sends_an_alert(
    tmp_path: Path, _name: str, settings: Settings, variables: dict[str, str], code: int, message: str
) -> None:
    write_settings(tmp_path, settings)
    with web_server() as web:
        done = luigi(tmp_path, "Nightly", **variables, SPAMSCORE_ALERTS_WEBHOOK_URL=web.url)
    assert done.code == code, done.output
    (alert,) = web.messages
    assert message in alert["said"]
    assert "hunter2" not in web.received[0][1].decode()


def test_a_single_stage_sends_no_alert(tmp_path: Path) -> None:
    write_settings(tmp_path, {"messages": {"source": "file", "path": "none.csv"}})
    with web_server() as web:
        done = luigi(tmp_path, "ExtractMessages", SPAMSCORE_ALERTS_WEBHOOK_URL=web.url)
    assert (done.code, web.received) == (20, [])


# luigid, with deploy/nightly.cfg

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def night_cfg(tmp_path: Path) -> Iterator[tuple[Path, Luigid]]:
    """A folder with deploy/nightly.cfg, with another address and shorter delays, and its luigid."""
    luigid = Luigid(tmp_path / "luigid")
    text = (ROOT / "deploy" / "nightly.cfg").read_text(encoding="utf-8")
    for line, replacement in [
        ("default_scheduler_url = http://127.0.0.1:8082", f"default_scheduler_url = {luigid.url}"),
        ("retry_delay = 600", "retry_delay = 2"),
        ("wait_interval = 5", "wait_interval = 1"),
        ("mail_to = root@localhost", "mail_to ="),
        ("textfile_folder = /var/lib/prometheus/node-exporter", "textfile_folder ="),
    ]:
        assert line in text
        text = text.replace(line, replacement)
    (tmp_path / "nightly.cfg").write_text(text, encoding="utf-8")
    (luigid.folder / "luigi.cfg").write_text(text, encoding="utf-8")
    with luigid:
        yield tmp_path, luigid


def fetch_metrics(luigid: Luigid) -> str:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{luigid.url}/metrics") as answer:
        return str(answer.read().decode())


@pytest.mark.slow
def test_a_failing_task_is_tried_three_times_and_luigid_keeps_its_state_over_a_restart(
    night_cfg: tuple[Path, Luigid],
) -> None:
    folder, luigid = night_cfg
    write_settings(folder, {"messages": {"source": "sql", "query": "SELECT nonsense FROM nowhere"}})
    done = luigi(folder, "ExtractMessages", "--date", DATE, LUIGI_CONFIG_PATH="nightly.cfg")
    assert done.code == 30, done.output
    assert done.output.count("failed    ExtractMessages(") == 3
    for metric in ('failed_total{family="ExtractMessages"} 2.0', 'disabled_total{family="ExtractMessages"} 1.0'):
        eventually(lambda: fetch_metrics(luigid), lambda text, metric=metric: f"luigi_task_{metric}" in text)
    luigid.process.terminate()
    luigid.process.wait(timeout=30)
    luigid.start()
    disabled = eventually(lambda: luigid.call("task_list", status="DISABLED", upstream_status=""))
    assert [task["name"] for task in disabled.values()] == ["ExtractMessages"]


def test_a_late_file_is_waited_for_and_not_reported_as_missing(night_cfg: tuple[Path, Luigid]) -> None:
    folder, _ = night_cfg
    write_settings(folder, DATED)
    command = ("ExtractMessages", "--date", DATE)
    process = subprocess.Popen(
        [LUIGI, "--module", "pipeline", *command], cwd=folder, env=environment(LUIGI_CONFIG_PATH="nightly.cfg"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    with kill_group_on_exit(process):
        assert process.stdout is not None
        for line in process.stdout:
            if "FAILED" in line or "does not exist" in line:
                break
        write_inbox(folder, datetime.date.fromisoformat(DATE))
        remaining_output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, remaining_output
    assert "spamscore: missing data" not in remaining_output


def test_a_file_that_never_arrives_ends_the_run_as_missing_data(night_cfg: tuple[Path, Luigid]) -> None:
    folder, _ = night_cfg
    write_settings(folder, DATED)
    done = luigi(folder, "ExtractMessages", "--date", DATE, LUIGI_CONFIG_PATH="nightly.cfg")
    assert done.code == 20, done.output
    assert f"inbox-{DATE}.csv: no such file" in done.last_line
