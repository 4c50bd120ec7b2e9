"""Keeps a browser signed in by a signed cookie, which holds the name of the person and a token against forged requests.

The server stores nothing. The key of the signature is derived from [api] token: every replica with the same token
accepts the cookie, and a new token ends all sessions. Without a token the key is random, and a restart ends them.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

COOKIE = "spamscore_session"
# The browser refuses a cookie with this prefix that is not for TLS, or that another host of the domain sets.
_TLS_PREFIX = "__Host-"


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

    def read(self, request: Request) -> Session | None:
        """Returns the session of a request, or None if it has none, or one that is forged or too old."""
        for name in _cookie_names(request):
            with contextlib.suppress(BadSignature):
                return Session(**self._serializer.loads(request.cookies.get(name, ""), max_age=self._seconds))
        return None

    def start(self) -> Session:
        """Returns a new session. `write` sends it to the browser."""
        return Session(secrets.token_urlsafe(24))

    def write(self, session: Session, request: Request, response: Response) -> None:
        """Sets the cookie: scripts cannot read it, and requests that another site causes do not carry it."""
        over_tls = _is_over_tls(request)
        response.set_cookie(
            _cookie_names(request)[not over_tls], self._serializer.dumps(asdict(session)), max_age=self._seconds,
            secure=over_tls, httponly=True, samesite="strict",
        )  # fmt: skip

    def end(self, request: Request, response: Response) -> None:
        """Deletes the cookie."""
        for name in _cookie_names(request):
            response.delete_cookie(name, secure=name.startswith(_TLS_PREFIX), httponly=True, samesite="strict")


def _cookie_names(request: Request) -> tuple[str, str]:
    """Returns the names of the cookie with and without TLS, for each port: browsers send a cookie to all ports."""
    name = f"{COOKIE}_{request.url.port}" if request.url.port else COOKIE
    return _TLS_PREFIX + name, name


def _is_over_tls(request: Request) -> bool:
    """Returns whether the browser uses TLS, also if a proxy decrypts it: then the browser names https as the origin."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
