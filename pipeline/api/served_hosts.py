"""Decides under which names the front end answers.

DNS rebinding: a page of another site may resolve its own name to 127.0.0.1, to read a server on loopback through the
browser. The browser then sends that name as Host.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.settings.serving import ApiSettings

_LOOPBACK_NAMES = ["127.0.0.1", "localhost", "[::1]"]
_ANY = ["*"]


def list_served_hosts(settings: ApiSettings) -> list[str]:
    """Returns the names that a request may have as its Host, without the port; * stands for any.

    On loopback these are the names of loopback, and those of [api] hosts. Elsewhere they are those of [api] hosts, or
    any if there are none: there a request needs a token or a certificate, which the browser keeps for another name.
    """
    named = [name.strip() for name in settings.hosts.split(",") if name.strip()]
    if is_loopback(settings.host):
        return [*_LOOPBACK_NAMES, settings.host, *named]
    return named or _ANY


def is_loopback(host: str) -> bool:
    """Returns whether an address to listen on can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
