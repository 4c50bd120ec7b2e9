"""Keeps a browser signed in by a signed cookie, which holds the name of the person and a token against forged requests.

The server stores nothing. The key of the signature is derived from [api] token: every replica with the same token
accepts the cookie, and a new token ends all sessions. Without a token the key is random, and a restart ends them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

COOKIE = "spamscore_session"


@dataclass(frozen=True)
class Session:
    """The content of the cookie.

    Attributes:
        csrf_token: random text that a request must repeat to change something.
        person: the name under which labels are stored; empty until the person gives one.
    """

    csrf_token: str
    person: str = ""


class Sessions:
    """Starts, reads and ends sessions.

    Args:
        token: [api] token; if it is empty, nobody has to sign in.
        hours: lifetime of a session.
    """

    def __init__(self, token: str, hours: int) -> None:
        self._token = token.encode()
        self._seconds = hours * 3600
        key = hashlib.sha256(b"session key " + self._token).digest() if token else secrets.token_bytes(32)
        signer = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
        self._serializer = URLSafeTimedSerializer(key, salt=COOKIE, signer_kwargs=signer)

    @property
    def needs_token(self) -> bool:
        """Whether a person must sign in with the token."""
        return bool(self._token)

    def accepts(self, token: str) -> bool:
        """Returns whether a token is the right one, in a time that does not depend on where they differ."""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)

    def is_signed_in(self, request: Request) -> bool:
        """Returns whether a request has a valid session, or needs none because no token is set."""
        return not self.needs_token or self.read(request) is not None

    def read(self, request: Request) -> Session | None:
        """Returns the session of a request, or None if it has none, or one that is forged or too old."""
        cookie = request.cookies.get(_cookie_name(request), "")
        try:
            return Session(**self._serializer.loads(cookie, max_age=self._seconds))
        except BadSignature:
            return None

    def start(self) -> Session:
        """Returns a new session. `write` sends it to the browser."""
        return Session(secrets.token_urlsafe(24))

    def write(self, session: Session, request: Request, response: Response) -> None:
        """Sets the cookie: scripts cannot read it, and requests that another site causes do not carry it."""
        response.set_cookie(
            _cookie_name(request), self._serializer.dumps(asdict(session)), max_age=self._seconds,
            secure=request.url.scheme == "https", httponly=True, samesite="strict",
        )  # fmt: skip

    def end(self, request: Request, response: Response) -> None:
        """Deletes the cookie."""
        response.delete_cookie(
            _cookie_name(request), secure=request.url.scheme == "https", httponly=True, samesite="strict"
        )


def _cookie_name(request: Request) -> str:
    """Returns a name for each port: browsers send a cookie to all ports of a host.

    With TLS, the prefix __Host- makes the browser refuse a cookie of this name that another host of the domain sets.
    """
    name = f"{COOKIE}_{request.url.port}" if request.url.port else COOKIE
    return f"__Host-{name}" if request.url.scheme == "https" else name
