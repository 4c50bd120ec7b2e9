"""Who may use the front end: a token, or mutual TLS, which the server checks itself."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from models.errors import SettingsError
from pipeline.api.limits import BAD_REQUEST, UNAUTHORIZED, Headers, RequestError
from pipeline.api.served_hosts import is_loopback, list_served_hosts

if TYPE_CHECKING:
    from tasks.settings.serving import ApiSettings


class Authentication:
    """Checks who sends a request: its token, if [api] token is set, and the name by which it reaches the front end."""

    def __init__(self, settings: ApiSettings) -> None:
        self._expected = f"Bearer {settings.token}".encode() if settings.token else b""
        hosts = list_served_hosts(settings)
        self._hosts = None if "*" in hosts else frozenset(host.lower().encode() for host in hosts)

    def check_token(self, authorization: bytes) -> None:
        """Checks the header `authorization` of a request; empty if it has none.

        Raises:
            RequestError: it is not the token.
        """
        if self._expected and not hmac.compare_digest(authorization, self._expected):
            raise RequestError(UNAUTHORIZED, "expected the header Authorization: Bearer TOKEN with [api] token")

    def check_headers(self, headers: Headers, needs_token: bool = True) -> None:
        """Checks the headers of a request, with lower-case names.

        Args:
            headers: of the request.
            needs_token: whether it needs the token.

        Raises:
            RequestError: they do not contain the token, or the host is not one of those that are served.
        """
        host = authorization = b""
        for name, value in headers:
            if name == b"host":
                host = value
            elif name == b"authorization":
                authorization = value
        if self._hosts is not None and _without_port(host).lower() not in self._hosts:
            raise RequestError(BAD_REQUEST, "the header Host has a name that is not served; [api] hosts lists names")
        if needs_token:
            self.check_token(authorization)


def _without_port(host: bytes) -> bytes:
    return host if host.endswith(b"]") else host.rpartition(b":")[0] or host


def require_protection(settings: ApiSettings) -> None:
    """Checks that only this machine can send requests, or that they are authenticated, or that anybody may.

    Raises:
        SettingsError: none of these is the case.
    """
    if settings.token or settings.tls_client_ca or settings.allow_anyone or is_loopback(settings.host):
        return
    raise SettingsError(
        f"[api] host = {settings.host}: other machines could send requests. Expected a token (SPAMSCORE_API_TOKEN), or "
        "mutual TLS ([api] tls_certificate, tls_key, tls_client_ca), or [api] allow_anyone = true."
    )
