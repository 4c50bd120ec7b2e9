"""Masks passwords in URLs and in the error messages of drivers.

A password is replaced only where a reader could not guess it from the words around it. A short or ordinary password,
such as ``pass``, would otherwise turn "permission denied" into "***" at a place that gives it away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

MASK = "***"
_SECRET_NAME = r"pass|secret|token|api_?key|credential|signature|scram"  # noqa: S105 - parts of names, not a secret
_SECRET_KEY = re.compile(_SECRET_NAME, re.IGNORECASE)
# The two places where a text holds a credential: user:password@ in a URL, and key=value of a connection string.
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)\S*@")
_KEY_VALUE = re.compile(rf"(\b\w*(?:{_SECRET_NAME})\w*=)(?:'(?:[^'\\]|\\.)*'|[^\s&'\"]+)", re.IGNORECASE)


def mask_password(url: str | URL) -> str:
    """Returns a URL with its password, and secrets in its query, as ``***``; a URL that cannot be parsed as ``…``."""
    import sqlalchemy as sa
    from sqlalchemy import exc

    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):
        parsed = None
    if parsed is None or is_misread(parsed):
        scheme = re.match(r"[\w+]+://", str(url))
        return f"{scheme[0] if scheme else ''}…"
    masked = parsed.update_query_dict({key: MASK for key in parsed.query if _SECRET_KEY.search(key)})
    return masked.render_as_string(hide_password=True).replace("%2A%2A%2A", MASK)


def is_misread(url: URL) -> bool:
    """Returns whether a part of the user or password was taken for the host or database, because of an @ or a slash."""
    return "@" in (url.host or "") or (not url.drivername.startswith("sqlite") and "@" in (url.database or ""))


def find_secrets(url: URL) -> list[str]:
    """Returns the passwords and other secrets of a URL, without those that it shows elsewhere, as user or database."""
    shown = {url.username, url.host, url.database}
    values = [url.password, *(value for key, value in url.query.items() if _SECRET_KEY.search(key))]
    texts = [part for value in values if value for part in ([value] if isinstance(value, str) else value)]
    return [text for text in texts if text not in shown]


def mask_credentials(text: str, secrets: Iterable[str] = ()) -> str:
    """Masks the credentials in a text.

    Masked are passwords in URLs and in key=value pairs. A known secret is masked anywhere, also percent-encoded, if it
    is not likely to be a word or number of the text itself.

    Args:
        text: the message of a driver or library.
        secrets: known secrets, from `find_secrets`.
    """
    for secret in filter(_is_distinctive, secrets):
        for form in sorted(set(_forms(secret)), key=len, reverse=True):
            text = text.replace(form, MASK)
    return _KEY_VALUE.sub(rf"\1{MASK}", _URL_PASSWORD.sub(rf"\1{MASK}@", text))


def _forms(secret: str) -> Iterator[str]:
    """Yields a secret as it may be written: plain, percent-encoded, and with whitespace or quotes escaped."""
    escaped = secret.replace("\\", r"\\").replace("'", r"\'")
    yield from (secret, " ".join(secret.split()), quote(secret), quote(secret, safe=""), quote_plus(secret), escaped)


def _is_distinctive(secret: str) -> bool:
    """Returns whether a secret is unlikely to occur in a message by chance: long, or of mixed characters."""
    kinds = {"letter" if char.isalpha() else "digit" if char.isdigit() else "sign" for char in secret.strip()}
    return len(secret.strip()) >= 16 or (len(secret.strip()) >= 8 and len(kinds) > 1)
