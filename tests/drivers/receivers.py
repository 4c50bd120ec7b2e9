"""Runs receivers of notifications on loopback: a web server and a mail server that record what they receive."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from servers import free_port


@dataclass
class Web:
    """A web server, the requests that it received, and the status that it answers."""

    url: str = ""
    status: int = 200
    received: list[tuple[str, bytes]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    logins: list[str | None] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)  # a server that hangs waits for it

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.received]


@contextlib.contextmanager
def web_server(hangs: bool = False) -> Iterator[Web]:
    """Starts a web server; with `hangs` it answers only after `release` is set."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hangs:
                web.release.wait()
            web.received.append((self.path, body))
            web.methods.append(self.command)
            web.logins.append(self.headers["Authorization"])
            self.send_response(web.status)
            if web.status == 302:
                self.send_header("Location", web.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    web.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield web
    finally:
        web.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Mailbox:
    """A mail server: its port, the mails that it accepted and their recipients.

    With `refuses` it accepts none; with a `password` only after a login with it.
    """

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    refuses: bool = False
    password: str = ""

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refuses or (self.password and not session.authenticated):
            return "554 not today"
        content = envelope.content
        assert isinstance(content, bytes)
        mail = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.recipients.append(list(envelope.rcpt_tos))
        return "250 taken"


@contextlib.contextmanager
def mail_server(password: str = "") -> Iterator[Mailbox]:
    """Starts a mail server. With a password, it accepts mails only after a login with it."""
    mailbox = Mailbox(port=free_port(), password=password)

    def accepts_login(_server: SMTP, _session: Session, _envelope: Envelope, _name: str, login: Any) -> AuthResult:
        return AuthResult(success=login.password.decode() == password)

    controller = Controller(
        mailbox, hostname="127.0.0.1", port=mailbox.port, authenticator=accepts_login, auth_require_tls=False
    )
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
