"""Sends alerts by mail and webhook when a night fails, drifts, will be late, or has recovered; each alert once.

A night with too many rejected messages has an alert of its own. Open alerts and undelivered messages are stored in
`artifacts/alerts/`, not in the database, because an unreachable database is itself a reason for an alert. If a delivery
fails, a warning is logged, the run continues, and the next run tries again.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import re
import socket
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models.errors import ArtifactError
from tasks.artifacts.folders import lock_folder, read_json, write_json
from tasks.artifacts.locations import artifacts_folder
from tasks.settings.loading import SMTP_PASSWORD_VARIABLE, load, read_secret
from tasks.settings.operation import AlertSettings

log = logging.getLogger("spamscore")

FAILURE, REJECTED, DRIFT, DEADLINE = "failure", "rejected", "drift", "deadline"
KINDS = (FAILURE, REJECTED, DRIFT, DEADLINE)
MAIL, WEBHOOK = "mail", "webhook"
_TITLES = {
    FAILURE: "failed",
    REJECTED: "is not published: too many messages were rejected",
    DRIFT: "drifted",
    DEADLINE: "will be late",
}
_MAX_UNDELIVERED = 100  # messages; the oldest are dropped
_RETRY_SECONDS = 0.5  # pause before the second attempt, doubled before each further attempt


@dataclass
class Message:
    """One message about an alert, and the channels that have not delivered it yet.

    The field names are keys of `alerts.json` and of the webhook's JSON.

    Attributes:
        kind: one of `KINDS`.
        state: ``open`` or ``recovered``.
        date: date of the batch, as ISO text.
        said: one line: what happened and what to do.
        since: when the alert was opened, as ISO text in UTC.
        to: channels that have not delivered it yet.
    """

    kind: str
    state: str
    date: str
    said: str
    since: str
    to: list[str]

    @property
    def title(self) -> str:
        """The subject line."""
        state = _TITLES[self.kind] if self.state == "open" else "has recovered"
        return f"spamscore on {socket.gethostname()}: the night of {self.date} {state}"


@dataclass
class Alerts:
    """The state that is stored between runs: open alerts by kind and date, and undelivered messages."""

    open: dict[str, dict[str, str]] = field(default_factory=dict)
    undelivered: list[Message] = field(default_factory=list)

    def dates(self, kind: str) -> list[str]:
        """Returns the dates with an open alert of a kind, as ISO text."""
        return [key.removeprefix(f"{kind} ") for key in self.open if key.startswith(f"{kind} ")]


def raise_alert(kind: str, date: datetime.date, text: str) -> None:
    """Opens an alert and sends it, unless it is already open. Retries undelivered messages in either case."""
    with _update_alerts() as alerts:
        key = f"{kind} {date}"
        if key not in alerts.open:
            since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            alerts.open[key] = {"since": since, "said": text}
            alerts.undelivered.append(Message(kind, "open", str(date), text, since, configured_channels()))
        _deliver(alerts)


def recover(kind: str, dates: Collection[str], text: str) -> None:
    """Closes the open alerts of a kind for the given dates and sends recoveries. Ignores dates without an alert."""
    with _update_alerts() as alerts:
        for date in [open_date for open_date in alerts.dates(kind) if open_date in dates]:
            since = alerts.open.pop(f"{kind} {date}")["since"]
            alerts.undelivered.append(Message(kind, "recovered", date, text, since, configured_channels()))
        _deliver(alerts)


def read_alerts() -> Alerts:
    """Reads the stored alerts."""
    return _read(_path())


def configured_channels() -> list[str]:
    """Returns the channels that are set up in [alerts]."""
    settings = load(AlertSettings)
    return [MAIL] * bool(settings.mail_to) + [WEBHOOK] * bool(settings.webhook_url)


def _path() -> Path:
    return artifacts_folder() / "alerts" / "alerts.json"


@contextlib.contextmanager
def _update_alerts() -> Iterator[Alerts]:
    """Yields the stored alerts and writes them back at the end. A failed write is only logged."""
    path = _path()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(path.parent))
        except OSError as error:
            log.warning("%s: %s; the next run may send alerts again", path.parent, error.strerror)
        alerts = _read(path)
        yield alerts
        try:
            write_json(path, asdict(alerts))
        except OSError as error:
            log.warning("%s: %s; the next run may send alerts again", path, error.strerror)


def _read(path: Path) -> Alerts:
    if not path.is_file():
        return Alerts()
    try:
        content = read_json(path)
        return Alerts(content["open"], [Message(**fields) for fields in content["undelivered"]])
    except (ArtifactError, KeyError, TypeError) as error:
        log.warning("%s: cannot be read (%s): alerts that were already sent may be sent again", path, error)
        return Alerts()


def _deliver(alerts: Alerts) -> None:
    """Sends undelivered messages, oldest first. Messages that fail stay undelivered."""
    settings, senders = load(AlertSettings), {MAIL: send_mail, WEBHOOK: send_webhook}
    for message in alerts.undelivered:
        message.to = [channel for channel in message.to if not _send(channel, senders[channel], message, settings)]
    alerts.undelivered = [message for message in alerts.undelivered if message.to][-_MAX_UNDELIVERED:]


def _send(
    channel: str, send: Callable[[Message, AlertSettings], None], message: Message, settings: AlertSettings
) -> bool:
    """Sends a message by one channel, with as many attempts as [alerts] allows. Returns whether it is done."""
    if channel not in configured_channels():
        return True  # the channel is no longer set up
    reason = ""
    for attempt in range(settings.attempts):
        if attempt:
            time.sleep(_RETRY_SECONDS * 2 ** (attempt - 1))
        try:
            send(message, settings)
        except Exception as error:  # any error of a server or library: it must not change the result of the night
            reason = _reason(error)
        else:
            return True
    log.warning(
        "%s alert not delivered after %d attempts (%s): %s. The next run tries again.",
        channel, settings.attempts, reason, message.title,
    )  # fmt: skip
    return False


def _reason(error: Exception) -> str:
    """Returns the reason of a failure without the address: the address of a webhook is a secret."""
    response = getattr(error, "response", None)
    if (status := getattr(response, "status_code", None)) is not None:
        return f"it answered {status}"
    detail = getattr(error, "strerror", None) or ""
    return f"{type(error).__name__}{f': {detail}' if detail else ''}"


def send_webhook(message: Message, settings: AlertSettings) -> None:
    """Sends a message as JSON. Chat services display the key ``text``.

    Raises:
        requests.RequestException: the message was not accepted.
    """
    import requests

    content: dict[str, Any] = {
        **{key: value for key, value in asdict(message).items() if key != "to"},
        "host": socket.gethostname(),
        "text": f"{message.title}\n{message.said}",
    }
    # requests would follow a redirect with a GET without the message.
    response = requests.post(settings.webhook_url, json=content, timeout=settings.timeout, allow_redirects=False)
    response.raise_for_status()
    if response.is_redirect:
        raise requests.TooManyRedirects(response=response)


def send_mail(message: Message, settings: AlertSettings) -> None:
    """Mails a message through the server in Luigi's [smtp], from the sender in its [email].

    Raises:
        OSError: the server cannot be reached.
        smtplib.SMTPException: the server refused the message.
    """
    import smtplib
    import ssl
    from email.message import EmailMessage

    from luigi.notifications import email, smtp

    with warnings.catch_warnings(action="ignore"):  # Luigi warns about its own defaults
        mail, server = EmailMessage(), smtp()
    mail["Subject"], mail["From"], mail["To"] = _one_line(message.title), email().sender, settings.mail_to
    mail.set_content(f"{message.said}\n\nOpen since {message.since}. What to do: docs/operations.md\n")
    connect = smtplib.SMTP_SSL if server.ssl else smtplib.SMTP
    with connect(server.host, server.port, server.local_hostname, timeout=settings.timeout) as connection:
        if not server.ssl and not server.no_tls and connection.has_extn("starttls"):
            connection.starttls(context=ssl.create_default_context())
        if server.username and (password := read_secret(SMTP_PASSWORD_VARIABLE) or server.password):
            connection.login(server.username, password)
        connection.send_message(mail)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def mask_webhook_url(url: str) -> str:
    """Masks the address of a webhook: what follows the host may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"
