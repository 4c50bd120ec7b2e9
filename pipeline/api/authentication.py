"""Who may use the front end: a token, or mutual TLS, which the server checks itself."""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING

from models.errors import SettingsError
from pipeline.api.limits import UNAUTHORIZED, Headers, RequestError

if TYPE_CHECKING:
    from tasks.settings.serving import ApiSettings


class Authentication:
    """Checks the token of requests, if [api] token is set."""

    def __init__(self, settings: ApiSettings) -> None:
        self._expected = f"Bearer {settings.token}".encode() if settings.token else b""

    def check(self, authorization: bytes) -> None:
        """Checks the header `authorization` of a request; empty if it has none.

        Raises:
            RequestError: it is not the token.
        """
        if self._expected and not hmac.compare_digest(authorization, self._expected):
            raise RequestError(UNAUTHORIZED, "expected the header Authorization: Bearer TOKEN with [api] token")

    def check_headers(self, headers: Headers) -> None:
        """Checks the headers of a request, with lower-case names.

        Raises:
            RequestError: they do not contain the token.
        """
        if self._expected:
            self.check(next((value for name, value in headers if name == b"authorization"), b""))


def require_protection(settings: ApiSettings) -> None:
    """Checks that only this machine can send requests, or that they are authenticated, or that anybody may.

    Raises:
        SettingsError: none of these is the case.
    """
    if settings.token or settings.tls_client_ca or settings.allow_anyone or _is_loopback(settings.host):
        return
    raise SettingsError(
        f"[api] host = {settings.host}: other machines could send requests. Expected a token (SPAMSCORE_API_TOKEN), or "
        "mutual TLS ([api] tls_certificate, tls_key, tls_client_ca), or [api] allow_anyone = true."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
