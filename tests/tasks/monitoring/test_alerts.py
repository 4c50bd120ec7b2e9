"""Who is told what, once; and that telling it, or failing to, harms nothing."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from receivers import Mailbox, Web, mail_server, web_server

from models.errors import SettingsError
from tasks.monitoring import alerts
from tasks.monitoring.alerts import DRIFT, FAILURE, known_alerts, masked_webhook, raise_alert, recover
from tasks.settings.loading import load
from tasks.settings.operation import AlertSettings

DATE, NEXT = datetime.date(2026, 1, 31), datetime.date(2026, 2, 1)
SECRET = "/hooks/T0/hunter2"

Set = Callable[..., None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_PAUSE", 0.001)


@pytest.fixture
def web(set_settings: Set, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    with web_server() as one:
        monkeypatch.setenv("SPAMSCORE_ALERTS_WEBHOOK_URL", one.url + SECRET)
        yield one


@pytest.fixture
def mailbox(set_settings: Set) -> Iterator[Mailbox]:
    with mail_server() as one:
        set_settings("alerts", mail_to="a@example.org, b@example.org")
        set_settings("smtp", host="127.0.0.1", port=str(one.port))
        set_settings("email", sender="spamscore@example.org")
        yield one


def test_what_goes_on_for_ten_runs_is_told_once_and_so_is_its_end(web: Web, mailbox: Mailbox) -> None:
    for run in range(10):
        raise_alert(FAILURE, DATE, f"no such file, run {run}: \u2026")
    for _ in range(10):
        recover(FAILURE, [str(DATE)], "its scores are published")
    assert [(one["kind"], one["state"], one["date"]) for one in web.messages] == [
        ("failure", "open", "2026-01-31"), ("failure", "recovered", "2026-01-31"),
    ]  # fmt: skip
    assert web.received[0][0] == SECRET
    assert "the night of 2026-01-31 failed\nno such file, run 0: \u2026" in web.messages[0]["text"]
    assert web.messages[1]["since"] == web.messages[0]["since"]
    first, second = mailbox.mails
    assert first["Subject"].endswith("the night of 2026-01-31 failed")
    assert first.get_content().startswith("no such file, run 0: \u2026\r\n")
    assert second["Subject"].endswith("the night of 2026-01-31 is well again")
    assert mailbox.recipients[0] == ["a@example.org", "b@example.org"]
    assert first["From"] == "spamscore@example.org"


def test_another_date_and_another_kind_are_told_for_themselves(web: Web) -> None:
    for kind, date in [(FAILURE, DATE), (FAILURE, NEXT), (DRIFT, DATE)]:
        raise_alert(kind, date, "why")
    recover(FAILURE, [str(DATE), "2026-03-01"], "well")
    assert [(one["kind"], one["date"], one["state"]) for one in web.messages] == [
        ("failure", "2026-01-31", "open"), ("failure", "2026-02-01", "open"), ("drift", "2026-01-31", "open"),
        ("failure", "2026-01-31", "recovered"),
    ]  # fmt: skip
    assert (known_alerts().dates(FAILURE), known_alerts().dates(DRIFT)) == (["2026-02-01"], ["2026-01-31"])


def test_what_does_not_get_through_is_said_and_delivered_by_a_later_run_in_order(
    web: Web, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    web.status, mailbox.refuses = 500, True
    with caplog.at_level(logging.WARNING, "spamscore"):
        raise_alert(FAILURE, DATE, "why")
    assert len(web.received) == 3
    assert "webhook alert not delivered after 3 attempts (it answered 500)" in caplog.text
    assert "mail alert not delivered after 3 attempts (SMTPDataError)" in caplog.text
    assert "hunter2" not in caplog.text
    assert [one.to for one in known_alerts().undelivered] == [["mail", "webhook"]]
    web.status, mailbox.refuses = 204, False
    recover(FAILURE, [str(DATE)], "well")
    assert [one["state"] for one in web.messages[3:]] == ["open", "recovered"]
    assert len(mailbox.mails) == 2
    assert known_alerts().undelivered == []


def test_a_webhook_that_hangs_is_left_after_its_timeout(
    set_settings: Set, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with web_server(hangs=True) as web:
        set_settings("alerts", timeout="1", attempts="1")
        monkeypatch.setenv("SPAMSCORE_ALERTS_WEBHOOK_URL", web.url + SECRET)
        raise_alert(FAILURE, DATE, "why")
    assert "after 1 attempts (ReadTimeout)" in caplog.text


NOBODY = [("nobody listens", "http://127.0.0.1:9"), ("no such host", "http://nowhere.invalid")]


@pytest.mark.parametrize("address", [row[1] for row in NOBODY], ids=[row[0] for row in NOBODY])
def test_a_webhook_that_is_not_there_is_said_without_its_address(
    set_settings: Set, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    monkeypatch.setenv("SPAMSCORE_ALERTS_WEBHOOK_URL", address + SECRET)
    raise_alert(FAILURE, DATE, "why")
    assert "(ConnectionError)" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_webhook_that_sends_elsewhere_is_not_followed(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    web.status = 302
    raise_alert(FAILURE, DATE, "why")
    assert "(it answered 302)" in caplog.text


def test_where_nobody_is_to_be_told_what_is_open_is_kept_all_the_same(set_settings: Set) -> None:
    raise_alert(FAILURE, DATE, "why")
    assert known_alerts().dates(FAILURE) == ["2026-01-31"]
    assert known_alerts().undelivered == []


def test_a_channel_that_is_set_up_no_more_is_no_longer_tried(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.status = 500
    raise_alert(FAILURE, DATE, "why")
    monkeypatch.delenv("SPAMSCORE_ALERTS_WEBHOOK_URL")
    raise_alert(FAILURE, DATE, "why")
    assert known_alerts().undelivered == []


def test_a_disk_that_refuses_to_keep_it_does_not_keep_it_from_being_told(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    Path("artifacts").write_text("a file where the folder should be", encoding="utf-8")
    raise_alert(FAILURE, DATE, "why")
    assert len(web.messages) == 1
    assert "alerts may be told again by the next run" in caplog.text


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"open": {}, "undelivered": [{"colour": 1}]}'])
def test_a_file_that_cannot_be_read_is_begun_anew(web: Web, caplog: pytest.LogCaptureFixture, content: str) -> None:
    path = Path("artifacts/alerts/alerts.json")
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    raise_alert(FAILURE, DATE, "why")
    assert "what was told before is not known" in caplog.text
    assert len(web.messages) == 1
    assert list(json.loads(path.read_text(encoding="utf-8"))["open"]) == ["failure 2026-01-31"]


MASKED = [
    ("https://hooks.example.org/services/T0/hunter2", "https://hooks.example.org/…"),
    ("http://user:hunter2@10.0.0.1:8080/x?token=hunter2", "http://10.0.0.1:8080/…"),
]


@pytest.mark.parametrize(("address", "shown"), MASKED, ids=["path", "password"])
def test_of_a_webhook_only_its_host_is_shown(address: str, shown: str) -> None:
    assert masked_webhook(address) == shown


@pytest.mark.parametrize("address", ["hooks.example.org/hunter2", "ftp://hunter2", "https://"])
def test_what_is_no_address_of_the_web_is_refused_without_being_shown(set_settings: Set, address: str) -> None:
    set_settings("alerts", webhook_url=address)
    with pytest.raises(SettingsError, match=r"\[alerts\] webhook_url = …: expected a URL") as error:
        load(AlertSettings)
    assert "hunter2" not in str(error.value)
