"""Who is told that a night failed, drifted, is late, or is well again: by mail and by webhook, once each.

What is open, and what could not be delivered yet, is kept in `artifacts/alerts/`, not in the database: one that is away
is a thing to be told. An alert that does not get through is said on the console, harms nothing, and is tried again by
the next run.
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
from tasks.settings.loading import load
from tasks.settings.operation import AlertSettings

log = logging.getLogger("spamscore")

FAILURE, DRIFT, DEADLINE = "failure", "drift", "deadline"
KINDS = (FAILURE, DRIFT, DEADLINE)
MAIL, WEBHOOK = "mail", "webhook"
_TITLES = {FAILURE: "failed", DRIFT: "drifted", DEADLINE: "will be late"}
_MOST_KEPT = 100  # undelivered messages; the oldest are given up
_PAUSE = 0.5  # seconds before the second attempt, doubled before each further one


@dataclass
class Message:
    """What somebody is to be told, and by which channels not yet.

    Attributes:
        kind: one of `KINDS`.
        state: ``open`` or ``recovered``.
        date: of the batch, as ISO text.
        said: one line that says what happened and what to do.
        since: when the alert was opened, ISO text in UTC.
        to: channels that have not taken it.
    """

    kind: str
    state: str
    date: str
    said: str
    since: str
    to: list[str]

    @property
    def title(self) -> str:
        """A subject line."""
        how = _TITLES[self.kind] if self.state == "open" else "is well again"
        return f"spamscore on {socket.gethostname()}: the night of {self.date} {how}"


@dataclass
class Alerts:
    """What is kept between runs: open alerts by kind and date, and messages that were not delivered."""

    open: dict[str, dict[str, str]] = field(default_factory=dict)
    undelivered: list[Message] = field(default_factory=list)

    def dates(self, kind: str) -> list[str]:
        """The dates with an open alert of a kind, as ISO text."""
        return [key.removeprefix(f"{kind} ") for key in self.open if key.startswith(f"{kind} ")]


def raise_alert(kind: str, date: datetime.date, said: str) -> None:
    """Opens an alert and tells it, unless it is open already; what is undelivered is tried again in any case."""
    with _kept() as alerts:
        key = f"{kind} {date}"
        if key not in alerts.open:
            since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            alerts.open[key] = {"since": since, "said": said}
            alerts.undelivered.append(Message(kind, "open", str(date), said, since, channels()))
        _deliver(alerts)


def recover(kind: str, dates: Collection[str], said: str) -> None:
    """Closes the open alerts of some dates and tells that they are; those that are not open are none."""
    with _kept() as alerts:
        for date in [one for one in alerts.dates(kind) if one in dates]:
            since = alerts.open.pop(f"{kind} {date}")["since"]
            alerts.undelivered.append(Message(kind, "recovered", date, said, since, channels()))
        _deliver(alerts)


def known_alerts() -> Alerts:
    """What is kept now."""
    return _read(_path())


def channels() -> list[str]:
    """The channels that [alerts] sets up."""
    settings = load(AlertSettings)
    return [MAIL] * bool(settings.mail_to) + [WEBHOOK] * bool(settings.webhook_url)


def _path() -> Path:
    return artifacts_folder() / "alerts" / "alerts.json"


@contextlib.contextmanager
def _kept() -> Iterator[Alerts]:
    """What is kept, written back at the end; where the disk refuses that, it is only said."""
    path = _path()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(path.parent))
        except OSError as error:
            log.warning("%s: %s; alerts may be told again by the next run", path.parent, error.strerror)
        alerts = _read(path)
        yield alerts
        try:
            write_json(path, asdict(alerts))
        except OSError as error:
            log.warning("%s: %s; alerts may be told again by the next run", path, error.strerror)


def _read(path: Path) -> Alerts:
    if not path.is_file():
        return Alerts()
    try:
        content = read_json(path)
        return Alerts(content["open"], [Message(**one) for one in content["undelivered"]])
    except (ArtifactError, KeyError, TypeError) as error:
        log.warning("%s: cannot be read (%s), so what was told before is not known", path, error)
        return Alerts()


def _deliver(alerts: Alerts) -> None:
    """Tells what was not told yet, the oldest first; keeps what does not get through."""
    settings, senders = load(AlertSettings), {MAIL: send_mail, WEBHOOK: send_webhook}
    for message in alerts.undelivered:
        message.to = [one for one in message.to if not _sent(one, senders[one], message, settings)]
    alerts.undelivered = [message for message in alerts.undelivered if message.to][-_MOST_KEPT:]


def _sent(
    channel: str, send: Callable[[Message, AlertSettings], None], message: Message, settings: AlertSettings
) -> bool:
    """Whether a channel took a message, after as many attempts as [alerts] allows."""
    if channel not in channels():
        return True  # set up no more
    reason = ""
    for attempt in range(settings.attempts):
        if attempt:
            time.sleep(_PAUSE * 2 ** (attempt - 1))
        try:
            send(message, settings)
        except Exception as error:  # whatever a server or library does: the night must not suffer from it
            reason = _reason(error)
        else:
            return True
    log.warning(
        "%s alert not delivered after %d attempts (%s): %s. The next run tries again.",
        channel, settings.attempts, reason, message.title,
    )  # fmt: skip
    return False


def _reason(error: Exception) -> str:
    """What went wrong, without an address: that of a webhook is a secret."""
    response = getattr(error, "response", None)
    if (status := getattr(response, "status_code", None)) is not None:
        return f"it answered {status}"
    said = getattr(error, "strerror", None) or ""
    return f"{type(error).__name__}{f': {said}' if said else ''}"


def send_webhook(message: Message, settings: AlertSettings) -> None:
    """Sends a message as JSON; chats that take ``text`` show that.

    Raises:
        requests.RequestException: it was not taken.
    """
    import requests

    content: dict[str, Any] = {
        **{key: value for key, value in asdict(message).items() if key != "to"},
        "host": socket.gethostname(),
        "text": f"{message.title}\n{message.said}",
    }
    # A redirect would be followed by a GET without the message.
    answer = requests.post(settings.webhook_url, json=content, timeout=settings.timeout, allow_redirects=False)
    answer.raise_for_status()
    if answer.is_redirect:
        raise requests.TooManyRedirects(response=answer)


def send_mail(message: Message, settings: AlertSettings) -> None:
    """Mails a message by the server of Luigi's [smtp], from the sender of its [email].

    Raises:
        OSError: the server cannot be reached.
        smtplib.SMTPException: it refused.
    """
    import smtplib
    import ssl
    from email.message import EmailMessage

    from luigi.notifications import email, smtp

    with warnings.catch_warnings(action="ignore"):  # Luigi's, of its own defaults
        mail, server = EmailMessage(), smtp()
    mail["Subject"], mail["From"], mail["To"] = _one_line(message.title), email().sender, settings.mail_to
    mail.set_content(f"{message.said}\n\nOpen since {message.since}. What to do: docs/operations.md\n")
    connect = smtplib.SMTP_SSL if server.ssl else smtplib.SMTP
    with connect(server.host, server.port, server.local_hostname, timeout=settings.timeout) as connection:
        if not server.ssl and not server.no_tls and connection.has_extn("starttls"):
            connection.starttls(context=ssl.create_default_context())
        if server.username and server.password:
            connection.login(server.username, server.password)
        connection.send_message(mail)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def masked_webhook(url: str) -> str:
    """An address of the web fit to be shown: what comes after the host may be a secret."""
    parts = urlsplit(url)
    where = f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
    return f"{parts.scheme}://{where}/…"
