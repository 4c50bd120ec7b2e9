"""ReportBatch on batches that were published by hand: when it is done, what it keeps, how it warns and fails."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from published_batches import DATE, publish
from sqlalchemy.engine import Engine

from models.errors import DatabaseError, DriftError
from tasks import report_batch
from tasks.artifacts.folders import write_manifest
from tasks.database.ledger import restore_batch, withdraw_batch
from tasks.database.schema import open_database
from tasks.monitoring.drift import accept_drift, drift_of
from tasks.monitoring.report_index import INDEX, report_path, reports_folder
from tasks.report_batch import ReportBatch
from tasks.settings.storage import DatabaseSettings
from tasks.sources.snapshots import SNAPSHOT_FILE, SnapshotRow, write_snapshot

Configure = Callable[..., None]
DAY = datetime.timedelta(days=1)
HAM = {f"m-{number}": round(0.01 + number / 10_000, 6) for number in range(200)}
SPAM = {name: round(1 - score, 6) for name, score in HAM.items()}


@pytest.fixture
def configure(set_settings: Configure) -> Configure:
    return set_settings


@pytest.fixture
def database(configure: Configure) -> Iterator[Engine]:
    one = open_database(DatabaseSettings())
    yield one
    one.dispose()


def reported(date: datetime.date = DATE) -> ReportBatch:
    task = ReportBatch(date=date)
    task.run()
    return task


def page_of(batch_id: int, date: datetime.date = DATE) -> str:
    return report_path(date, batch_id).read_text("utf-8")


def keep_texts(date: datetime.date = DATE, texts: str = "message {} of {}") -> None:
    folder = Path("artifacts/snapshots") / date.isoformat() / "snap"
    folder.mkdir(parents=True)
    rows = [SnapshotRow(number, name, texts.format(number, name), None) for number, name in enumerate(HAM, 1)]
    write_snapshot(rows, folder / SNAPSHOT_FILE)
    write_manifest(folder, {"fingerprint": "snap"})


def test_without_a_published_batch_there_is_no_report_and_none_is_made(database: Engine) -> None:
    assert not ReportBatch(date=DATE).complete()
    with pytest.raises(DatabaseError, match="no batch of 2026-01-31 is published any more"):
        reported()


def test_asking_makes_no_database(configure: Configure, tmp_path: Path) -> None:
    assert not ReportBatch(date=DATE).complete()
    assert list(tmp_path.iterdir()) == []


def test_a_report_leaves_page_figures_and_index_and_is_done(database: Engine) -> None:
    batch_id = publish(database, HAM)
    task = ReportBatch(date=DATE)
    assert not task.complete()
    task.run()
    assert task.complete()
    assert "Batch 1 of Saturday" in page_of(batch_id)
    assert f"2026-01-31/batch-{batch_id}.html" in (reports_folder() / INDEX).read_text("utf-8")
    figures = json.loads(report_path(DATE, batch_id).with_suffix(".json").read_text("utf-8"))
    assert figures["counts"] == {"read": 200, "scored": 200, "rejected": 0, "flagged": 0}
    assert (sum(figures["score_counts"]), figures["crossed"]) == (200, [])
    assert all(one["agrees"] for one in figures["held"])
    kept = drift_of(database, batch_id)
    assert kept is not None
    assert (kept.figures.messages, kept.figures.psi_before, kept.crossed) == (200, None, [])
    assert not list(Path().rglob("*.partial"))


def test_what_is_gone_is_said_in_the_page(database: Engine) -> None:
    batch_id = publish(database, HAM)
    reported()
    page = page_of(batch_id)
    for said in ("the model that scored them is not in", "none is published of an earlier date", "text is not known"):
        assert said in page, said


def test_texts_come_from_the_snapshot_and_only_as_the_setting_has_it(database: Engine, configure: Configure) -> None:
    keep_texts()
    batch_id = publish(database, HAM)
    for messages, there in (("show", "message 200 of m-199"), ("mask", "xxxxxxx 000 xx x-000"), ("hide", "")):
        configure("report", messages=messages)
        report_path(DATE, batch_id).unlink(missing_ok=True)
        reported()
        page = page_of(batch_id)
        assert there in page
        assert ("message 200 of m-199" in page) is (messages == "show")
        assert ('id="messages"' in page) is (messages != "hide")


def two_nights(database: Engine) -> int:
    publish(database, HAM)
    reported()
    return publish(database, SPAM, DATE + DAY)


def test_a_batch_unlike_the_one_before_is_warned_of_and_stays_published(
    database: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch_id, remarks = two_nights(database), list[str]()
    monkeypatch.setattr(report_batch, "remark", remarks.append)
    task = reported(DATE + DAY)
    assert task.complete()
    (said,) = remarks
    assert f"batch {batch_id} of 2026-02-01 is unlike those before: the scores are unlike the batch before" in said
    assert f"spamscore drift {DATE + DAY} --accept" in said
    assert [record.levelname for record in caplog.records if record.message == said] == ["WARNING"]
    assert "Unlike the batches before" in page_of(batch_id, DATE + DAY)
    assert ">drift</span>" in (reports_folder() / INDEX).read_text("utf-8")


def test_a_run_that_fails_on_drift_fails_until_a_person_accepts_it_and_measures_once(
    database: Engine, configure: Configure
) -> None:
    configure("drift", on_drift="fail")
    batch_id = two_nights(database)
    task = ReportBatch(date=DATE + DAY)
    with pytest.raises(DriftError, match="is unlike those before") as failure:
        task.run()
    assert failure.value.exit_code == 50
    first = drift_of(database, batch_id)
    assert first is not None
    assert first.is_open
    assert not task.complete()
    with pytest.raises(DriftError):
        task.run()
    assert drift_of(database, batch_id) == first
    accept_drift(database, batch_id, "ann")
    assert task.complete()
    task.run()
    configure("drift", on_drift="warn")
    assert task.complete()


def test_an_acceptance_outlives_the_report_and_is_in_the_next(database: Engine) -> None:
    batch_id = two_nights(database)
    reported(DATE + DAY)
    accept_drift(database, batch_id, "ann <b>")
    report_path(DATE + DAY, batch_id).unlink()
    assert not ReportBatch(date=DATE + DAY).complete()
    reported(DATE + DAY)
    assert "Accepted by ann &lt;b&gt; on 20" in page_of(batch_id, DATE + DAY)
    assert "drift, accepted" in (reports_folder() / INDEX).read_text("utf-8")


def test_another_batch_of_the_date_wants_a_report_of_its_own(database: Engine) -> None:
    first = publish(database, HAM)
    task = reported()
    second = publish(database, HAM, version=2)
    assert not task.complete()
    task.run()
    assert task.complete()
    assert report_path(DATE, first).is_file()
    assert report_path(DATE, second).is_file()
    restore_batch(database, first)
    assert task.complete()
    withdraw_batch(database, first)
    assert not task.complete()


def test_a_batch_before_that_has_no_report_is_compared_with_by_its_rows(database: Engine) -> None:
    publish(database, HAM)
    batch_id = publish(database, SPAM, DATE + DAY)
    reported(DATE + DAY)
    kept = drift_of(database, batch_id)
    assert kept is not None
    assert kept.figures.psi_before is not None
    assert kept.figures.psi_before > 1
    assert [one.limit for one in kept.crossed] == ["psi_before"]


def test_after_some_nights_a_batch_is_held_to_what_is_usual(database: Engine) -> None:
    for number in range(7):
        publish(database, HAM, DATE + number * DAY)
    few = dict(list(HAM.items())[::10])
    batch_id = publish(database, few, DATE + 7 * DAY)
    reported(DATE + 7 * DAY)
    kept = drift_of(database, batch_id)
    assert kept is not None
    assert [one.limit for one in kept.crossed] == ["message_count"]
    assert "Compared with 7 batches, of 2026-01-31 to 2026-02-06." in page_of(batch_id, DATE + 7 * DAY)


def test_rows_that_are_not_those_that_were_published_are_said(database: Engine) -> None:
    batch_id = publish(database, HAM)
    with database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM spam_scores WHERE message_id = 'm-7'")
    reported()
    page = page_of(batch_id)
    assert "The rows are not those that were published" in page
    figures = json.loads(report_path(DATE, batch_id).with_suffix(".json").read_text("utf-8"))
    assert [one["title"] for one in figures["held"] if not one["agrees"]] == [
        "Rows with a score",
        "Checksum of the rows",
    ]


def test_a_night_without_messages_has_a_report(database: Engine) -> None:
    publish(database, HAM)
    batch_id = publish(database, {}, DATE + DAY)
    reported(DATE + DAY)
    kept = drift_of(database, batch_id)
    assert kept is not None
    assert (kept.figures.flagged_share, kept.figures.psi_before) == (None, None)
    assert dataclasses.asdict(kept)["crossed"] == []
