"""Alerts: each is sent once, and a failed delivery does not harm the run."""

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
from tasks.monitoring.alerts import DRIFT, FAILURE, mask_webhook_url, raise_alert, read_alerts, recover
from tasks.settings.loading import load
from tasks.settings.operation import AlertSettings

DATE, NEXT = datetime.date(2026, 1, 31), datetime.date(2026, 2, 1)
SECRET = "/hooks/T0/hunter2"

Set = Callable[..., None]


@pytest.fixture(autouse=True)
def short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_RETRY_SECONDS", 0.001)


@pytest.fixture
def web(set_settings: Set, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    with web_server() as server:
        monkeypatch.setenv("SPAMSCORE_ALERTS_WEBHOOK_URL", server.url + SECRET)
        yield server


@pytest.fixture
def mailbox(set_settings: Set) -> Iterator[Mailbox]:
    with mail_server() as server:
        set_settings("alerts", mail_to="a@example.org, b@example.org")
        set_settings("smtp", host="127.0.0.1", port=str(server.port))
        set_settings("email", sender="spamscore@example.org")
        yield server


@pytest.mark.parametrize("source", ["file", "variable", "luigi.cfg"])
def test_the_password_of_the_mail_server_can_be_given_by_a_file(
    set_settings: Set, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    if source == "file":
        (tmp_path / "secret").write_text("hunter2\n", encoding="utf-8")
        monkeypatch.setenv("SPAMSCORE_SMTP_PASSWORD_FILE", str(tmp_path / "secret"))
    elif source == "variable":
        monkeypatch.setenv("SPAMSCORE_SMTP_PASSWORD", "hunter2")
    with mail_server(password="hunter2") as server:
        set_settings("alerts", mail_to="a@example.org")
        set_settings("smtp", host="127.0.0.1", port=str(server.port), username="me", no_tls="true",
                     password="hunter2" if source == "luigi.cfg" else "another")  # fmt: skip
        raise_alert(FAILURE, DATE, "no such file")
    assert len(server.mails) == 1


def test_an_alert_that_stays_open_for_ten_runs_is_sent_once_and_so_is_its_recovery(web: Web, mailbox: Mailbox) -> None:
    for run in range(10):
        raise_alert(FAILURE, DATE, f"no such file, run {run}: \u2026")
    for _ in range(10):
        recover(FAILURE, [str(DATE)], "its scores are published")
    assert [(message["kind"], message["state"], message["date"]) for message in web.messages] == [
        ("failure", "open", "2026-01-31"), ("failure", "recovered", "2026-01-31"),
    ]  # fmt: skip
    assert web.received[0][0] == SECRET
    assert "the night of 2026-01-31 failed\nno such file, run 0: \u2026" in web.messages[0]["text"]
    assert web.messages[1]["since"] == web.messages[0]["since"]
    first, second = mailbox.mails
    assert first["Subject"].endswith("the night of 2026-01-31 failed")
    assert first.get_content().startswith("no such file, run 0: \u2026\r\n")
    assert second["Subject"].endswith("the night of 2026-01-31 has recovered")
    assert mailbox.recipients[0] == ["a@example.org", "b@example.org"]
    assert first["From"] == "spamscore@example.org"


def test_each_date_and_each_kind_has_its_own_alert(web: Web) -> None:
    for kind, date in [(FAILURE, DATE), (FAILURE, NEXT), (DRIFT, DATE)]:
        raise_alert(kind, date, "why")
    recover(FAILURE, [str(DATE), "2026-03-01"], "well")
    assert [(message["kind"], message["date"], message["state"]) for message in web.messages] == [
        ("failure", "2026-01-31", "open"), ("failure", "2026-02-01", "open"), ("drift", "2026-01-31", "open"),
        ("failure", "2026-01-31", "recovered"),
    ]  # fmt: skip
    assert (read_alerts().dates(FAILURE), read_alerts().dates(DRIFT)) == (["2026-02-01"], ["2026-01-31"])


def test_undelivered_alerts_are_logged_and_delivered_in_order_by_a_later_run(
    web: Web, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    web.status, mailbox.refuses = 500, True
    with caplog.at_level(logging.WARNING, "spamscore"):
        raise_alert(FAILURE, DATE, "why")
    assert len(web.received) == 3
    assert "webhook alert not delivered after 3 attempts (it answered 500)" in caplog.text
    assert "mail alert not delivered after 3 attempts (SMTPDataError)" in caplog.text
    assert "hunter2" not in caplog.text
    assert [message.to for message in read_alerts().undelivered] == [["mail", "webhook"]]
    web.status, mailbox.refuses = 204, False
    recover(FAILURE, [str(DATE)], "well")
    assert [message["state"] for message in web.messages[3:]] == ["open", "recovered"]
    assert len(mailbox.mails) == 2
    assert read_alerts().undelivered == []


def test_a_webhook_that_hangs_is_given_up_after_the_timeout(
    set_settings: Set, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with web_server(hangs=True) as web:
        set_settings("alerts", timeout="1", attempts="1")
        monkeypatch.setenv("SPAMSCORE_ALERTS_WEBHOOK_URL", web.url + SECRET)
        raise_alert(FAILURE, DATE, "why")
    assert "after 1 attempts (ReadTimeout)" in caplog.text


UNREACHABLE = [("connection refused", "http://127.0.0.1:9"), ("no such host", "http://nowhere.invalid")]


@pytest.mark.parametrize("address", [row[1] for row in UNREACHABLE], ids=[row[0] for row in UNREACHABLE])
def test_an_unreachable_webhook_is_logged_without_its_address(
    set_settings: Set, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    monkeypatch.setenv("SPAMSCORE_ALERTS_WEBHOOK_URL", address + SECRET)
    raise_alert(FAILURE, DATE, "why")
    assert "(ConnectionError)" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_redirect_of_a_webhook_is_not_followed(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    web.status = 302
    raise_alert(FAILURE, DATE, "why")
    assert "(it answered 302)" in caplog.text


def test_open_alerts_are_stored_without_any_channel(set_settings: Set) -> None:
    raise_alert(FAILURE, DATE, "why")
    assert read_alerts().dates(FAILURE) == ["2026-01-31"]
    assert read_alerts().undelivered == []


def test_a_channel_that_is_no_longer_set_up_is_not_tried(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.status = 500
    raise_alert(FAILURE, DATE, "why")
    monkeypatch.delenv("SPAMSCORE_ALERTS_WEBHOOK_URL")
    raise_alert(FAILURE, DATE, "why")
    assert read_alerts().undelivered == []


def test_an_alert_is_sent_even_if_it_cannot_be_stored(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    Path("artifacts").write_text("a file where the folder should be", encoding="utf-8")
    raise_alert(FAILURE, DATE, "why")
    assert len(web.messages) == 1
    assert "the next run may send alerts again" in caplog.text


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"open": {}, "undelivered": [{"colour": 1}]}'])
def test_an_unreadable_file_is_replaced(web: Web, caplog: pytest.LogCaptureFixture, content: str) -> None:
    path = Path("artifacts/alerts/alerts.json")
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    raise_alert(FAILURE, DATE, "why")
    assert "alerts that were already sent may be sent again" in caplog.text
    assert len(web.messages) == 1
    assert list(json.loads(path.read_text(encoding="utf-8"))["open"]) == ["failure 2026-01-31"]


MASKED = [
    ("https://hooks.example.org/services/T0/hunter2", "https://hooks.example.org/…"),
    ("http://user:hunter2@10.0.0.1:8080/x?token=hunter2", "http://10.0.0.1:8080/…"),
    ("http://user:hunter2@10.0.0.1:port/x", "http://10.0.0.1:port/…"),
]


@pytest.mark.parametrize(("address", "shown"), MASKED, ids=["path", "password", "port"])
def test_a_masked_webhook_shows_only_the_host(address: str, shown: str) -> None:
    assert mask_webhook_url(address) == shown


@pytest.mark.parametrize("address", ["hooks.example.org/hunter2", "ftp://hunter2", "https://"])
def test_an_invalid_webhook_address_is_refused_without_being_shown(set_settings: Set, address: str) -> None:
    set_settings("alerts", webhook_url=address)
    with pytest.raises(SettingsError, match=r"\[alerts\] webhook_url = …: expected a URL") as error:
        load(AlertSettings)
    assert "hunter2" not in str(error.value)
