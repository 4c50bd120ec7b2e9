"""Refuses requests that a page of another site causes in the browser of a person who uses the front end."""

from __future__ import annotations

import hmac

from starlette.requests import Request

from pipeline.api.pages.sessions import Session

CSRF_FIELD, CSRF_HEADER = "csrf_token", "X-CSRF-Token"


def comes_from_own_page(request: Request) -> bool:
    """Returns whether the browser says that a page of this server caused the request.

    Browsers send Sec-Fetch-Site over HTTPS and on loopback, and Origin with every POST. A request must have one of
    them, and what it has must be right. Another port of this host is another origin. The scheme is not compared,
    because a proxy may decrypt TLS.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None and origin is None:
        return False
    same_host = origin is None or origin.partition("://")[2] == request.headers.get("host")
    return same_host and site in (None, "same-origin")


def has_csrf_token(session: Session, token: str) -> bool:
    """Returns whether a request repeats the token of its session: another site cannot read it."""
    return hmac.compare_digest(token.encode("utf-8", "replace"), session.csrf_token.encode())
