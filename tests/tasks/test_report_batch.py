"""ReportBatch on published batches: when it is complete, what it writes, when it warns and fails."""

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
from tasks.monitoring.drift import accept_drift, read_drift
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
    engine = open_database(DatabaseSettings())
    yield engine
    engine.dispose()


def run_report(date: datetime.date = DATE) -> ReportBatch:
    task = ReportBatch(date=date)
    task.run()
    return task


def read_page(batch_id: int, date: datetime.date = DATE) -> str:
    return report_path(date, batch_id).read_text("utf-8")


def write_texts(date: datetime.date = DATE, texts: str = "message {} of {}") -> None:
    folder = Path("artifacts/snapshots") / date.isoformat() / "snap"
    folder.mkdir(parents=True)
    rows = [SnapshotRow(number, name, texts.format(number, name), None) for number, name in enumerate(HAM, 1)]
    write_snapshot(rows, folder / SNAPSHOT_FILE)
    write_manifest(folder, {"fingerprint": "snap"})


def test_without_a_published_batch_no_report_is_written(database: Engine) -> None:
    assert not ReportBatch(date=DATE).complete()
    with pytest.raises(DatabaseError, match="no batch of 2026-01-31 is published any more"):
        run_report()


def test_checking_completeness_creates_no_database(configure: Configure, tmp_path: Path) -> None:
    assert not ReportBatch(date=DATE).complete()
    assert list(tmp_path.iterdir()) == []


def test_a_report_writes_page_figures_and_index(database: Engine) -> None:
    batch_id = publish(database, HAM)
    task = ReportBatch(date=DATE)
    assert not task.complete()
    task.run()
    assert task.complete()
    assert "Batch 1 of Saturday" in read_page(batch_id)
    assert f"2026-01-31/batch-{batch_id}.html" in (reports_folder() / INDEX).read_text("utf-8")
    figures = json.loads(report_path(DATE, batch_id).with_suffix(".json").read_text("utf-8"))
    assert figures["counts"] == {"read": 200, "scored": 200, "rejected": 0, "flagged": 0}
    assert (sum(figures["score_counts"]), figures["crossed"]) == (200, [])
    assert all(check["agrees"] for check in figures["held"])
    drift = read_drift(database, batch_id)
    assert drift is not None
    assert (drift.figures.messages, drift.figures.psi_before, drift.crossed) == (200, None, [])
    assert not list(Path().rglob("*.partial"))


def test_the_report_of_a_provisional_batch_says_so_and_has_no_limit_for_the_number_of_messages(
    database: Engine, configure: Configure
) -> None:
    configure("drift", least_batches="1", flagged_share="0", psi_before="0", psi_validation="0")
    publish(database, HAM)
    run_report()
    pages = []
    for provisional in (True, False):
        batch_id = publish(database, {"m": 0.5}, DATE + DAY, version=2, provisional=provisional)
        run_report(DATE + DAY)
        pages.append(read_page(batch_id, DATE + DAY))
        figures = json.loads(report_path(DATE + DAY, batch_id).with_suffix(".json").read_text("utf-8"))
        assert (figures["provisional"], "message_count" in figures["limits"]) == (provisional, not provisional)
        assert [crossing["limit"] for crossing in figures["crossed"]] == ([] if provisional else ["message_count"])
    assert ["Provisional: scored before the date was over" in page for page in pages] == [True, False]


def test_the_page_names_what_is_missing(database: Engine) -> None:
    batch_id = publish(database, HAM)
    run_report()
    page = read_page(batch_id)
    for text in (
        "the model that scored them is no longer in",
        "no batch of an earlier date is published",
        "text is not available",
    ):
        assert text in page, text


def test_texts_are_read_from_the_snapshot_and_shown_as_set(database: Engine, configure: Configure) -> None:
    write_texts()
    batch_id = publish(database, HAM)
    for messages, text in (("show", "message 200 of m-199"), ("mask", "xxxxxxx 000 xx x-000"), ("hide", "")):
        configure("report", messages=messages)
        report_path(DATE, batch_id).unlink(missing_ok=True)
        run_report()
        page = read_page(batch_id)
        assert text in page
        assert ("message 200 of m-199" in page) is (messages == "show")
        assert ('id="messages"' in page) is (messages != "hide")


def publish_two_nights(database: Engine) -> int:
    publish(database, HAM)
    run_report()
    return publish(database, SPAM, DATE + DAY)


def test_drift_is_warned_of_and_the_batch_stays_published(
    database: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch_id, notes = publish_two_nights(database), list[str]()
    monkeypatch.setattr(report_batch, "record_note", notes.append)
    task = run_report(DATE + DAY)
    assert task.complete()
    (note,) = notes
    assert f"batch {batch_id} of 2026-02-01 differs from earlier batches: " in note
    assert f"spamscore drift {DATE + DAY} --accept" in note
    assert [record.levelname for record in caplog.records if record.message == note] == ["WARNING"]
    assert "Drift: a limit was crossed" in read_page(batch_id, DATE + DAY)
    assert ">drift</span>" in (reports_folder() / INDEX).read_text("utf-8")


def test_on_drift_fail_fails_until_a_person_accepts_and_measures_once(database: Engine, configure: Configure) -> None:
    configure("drift", on_drift="fail")
    batch_id = publish_two_nights(database)
    task = ReportBatch(date=DATE + DAY)
    with pytest.raises(DriftError, match="differs from earlier batches") as failure:
        task.run()
    assert failure.value.exit_code == 50
    first = read_drift(database, batch_id)
    assert first is not None
    assert first.is_open
    assert not task.complete()
    with pytest.raises(DriftError):
        task.run()
    assert read_drift(database, batch_id) == first
    accept_drift(database, batch_id, "ann")
    assert task.complete()
    task.run()
    configure("drift", on_drift="warn")
    assert task.complete()


def test_an_acceptance_is_kept_when_the_report_is_written_again(database: Engine) -> None:
    batch_id = publish_two_nights(database)
    run_report(DATE + DAY)
    accept_drift(database, batch_id, "ann <b>")
    report_path(DATE + DAY, batch_id).unlink()
    assert not ReportBatch(date=DATE + DAY).complete()
    run_report(DATE + DAY)
    assert "Accepted by ann &lt;b&gt; on 20" in read_page(batch_id, DATE + DAY)
    assert "drift, accepted" in (reports_folder() / INDEX).read_text("utf-8")


def test_each_batch_of_a_date_needs_its_own_report(database: Engine) -> None:
    first = publish(database, HAM)
    task = run_report()
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


def test_a_previous_batch_without_report_is_compared_by_its_rows(database: Engine) -> None:
    publish(database, HAM)
    batch_id = publish(database, SPAM, DATE + DAY)
    run_report(DATE + DAY)
    drift = read_drift(database, batch_id)
    assert drift is not None
    assert drift.figures.psi_before is not None
    assert drift.figures.psi_before > 1
    assert [crossing.limit for crossing in drift.crossed] == ["psi_before"]


def test_after_seven_nights_a_batch_is_compared_with_the_median(database: Engine) -> None:
    for number in range(7):
        publish(database, HAM, DATE + number * DAY)
    few = dict(list(HAM.items())[::10])
    batch_id = publish(database, few, DATE + 7 * DAY)
    run_report(DATE + 7 * DAY)
    drift = read_drift(database, batch_id)
    assert drift is not None
    assert [crossing.limit for crossing in drift.crossed] == ["message_count"]
    assert "Compared with 7 batches, of 2026-01-31 to 2026-02-06." in read_page(batch_id, DATE + 7 * DAY)


def test_changed_rows_are_reported(database: Engine) -> None:
    batch_id = publish(database, HAM)
    with database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM spam_scores WHERE message_id = 'm-7'")
    run_report()
    page = read_page(batch_id)
    assert "The rows differ from those that were published" in page
    figures = json.loads(report_path(DATE, batch_id).with_suffix(".json").read_text("utf-8"))
    assert [check["title"] for check in figures["held"] if not check["agrees"]] == [
        "Rows with a score",
        "Checksum of the rows",
    ]


def test_an_empty_batch_has_a_report(database: Engine) -> None:
    publish(database, HAM)
    batch_id = publish(database, {}, DATE + DAY)
    run_report(DATE + DAY)
    drift = read_drift(database, batch_id)
    assert drift is not None
    assert (drift.figures.flagged_share, drift.figures.psi_before) == (None, None)
    assert dataclasses.asdict(drift)["crossed"] == []
