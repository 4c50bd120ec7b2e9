"""Checks the settings of [corpus] and [messages] that hold a small language: date formats, time zones and paths."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

from models.errors import SettingsError

DATE_FORMATS = ("iso", "epoch_seconds", "epoch_milliseconds")
LOCAL = "local"
# {date} or {date:FORMAT} of a path, and anything else in braces.
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# What fsspec reads here. The extras of setup.py install the packages.
SCHEMES = ("s3", "s3a", "gs", "hdfs", "abfs", "abfss")

# What may stand between :// and the first slash: the part before an @ is a container, as Azure writes it, or a user.
_AZURE = re.compile(r"[\w$-]+(@[\w.-]+)?", re.ASCII)
_BUCKET = re.compile(r"[\w.-]+|arn:[\w:./-]+", re.ASCII)
_HOST = re.compile(r"([\w.-]+(:\d+)?)?", re.ASCII)
_PLACES = {"abfs": _AZURE, "abfss": _AZURE, "hdfs": _HOST, "file": re.compile("")}
_SIGNED = re.compile(r"[?&](\w*(sig|signature|token|secret|credential|key|password)\w*|X-\w+-[\w-]+)=", re.IGNORECASE)
_PROBE = datetime.datetime(2026, 1, 31, 13, 14, 15, tzinfo=datetime.UTC)
_MAX_SUGGESTIONS = 3


def check_date_format(date_format: str) -> None:
    """Checks that [messages] date_format is a known word, or a format of strptime that gives a whole date.

    Raises:
        SettingsError: it is neither.
    """
    if date_format in DATE_FORMATS:
        return
    reason = ""
    try:
        # A format that keeps year, month and day reads the date that it wrote.
        if "%" in date_format and _parse_probe(date_format).date() == _PROBE.date():
            return
        reason = " A date needs year, month and day." if "%" in date_format else ""
    except (ValueError, re.error) as error:
        reason = f" Python says: {error}."
    raise SettingsError(
        f"[messages] date_format = {date_format}: expected {', '.join(DATE_FORMATS)}, or a format of Python's strptime "
        f"such as %d/%m/%Y or %Y-%m-%d %H:%M:%S.{reason}"
    )


def _parse_probe(date_format: str) -> datetime.datetime:
    return datetime.datetime.strptime(_PROBE.strftime(date_format), date_format)


def check_time_zone(name: str) -> None:
    """Checks that [messages] timezone is local or a name of the IANA time zone database.

    Raises:
        SettingsError: it is neither; suggests similar names.
    """
    if name == LOCAL:
        return
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise SettingsError(
            f"[messages] timezone = {name}: expected {LOCAL}, or the name of a time zone such as Europe/Berlin or UTC"
            f"{_suggest_zones(name)}"
        ) from None


def _suggest_zones(name: str) -> str:
    import difflib
    import zoneinfo

    zones = {zone.casefold(): zone for zone in zoneinfo.available_timezones()}
    matches = difflib.get_close_matches(name.strip().casefold(), zones, n=_MAX_SUGGESTIONS)
    return f"; did you mean {' or '.join(zones[match] for match in matches)}?" if matches else "."


def check_path(section: str, path: str) -> None:
    """Checks that a path is one on this machine or an address that is read, and that it has only known placeholders.

    Raises:
        SettingsError: it is another address, has credentials, or has a placeholder that is not known.
    """
    check_address(f"[{section}] path", path, SCHEMES)
    for match in PLACEHOLDER.finditer(path):
        if section == "messages":
            format_placeholder(match[1], _PROBE.date())
        else:
            raise SettingsError(
                f"[{section}] path = {path}: {match[0]} is not known here: labelled messages belong to no date. "
                "Write * or ? for the part of the name that differs."
            )


def check_address(setting: str, path: str, schemes: Sequence[str]) -> None:
    """Checks that an address has one of the schemes, and no user, password or signature. A path is no address.

    Raises:
        SettingsError: it has another scheme, or credentials. The message does not repeat them.
    """
    match = ADDRESS.match(path)
    if match is None:
        return
    scheme, place = match[1], path[match.end() :].partition("/")[0]
    if scheme not in schemes:
        known = ", ".join(f"{name}://" for name in schemes)
        raise SettingsError(
            f"{setting} = {scheme}://…: expected a path on this machine or an address with one of {known}. Mount the "
            f"storage, or copy the file before the run, and set {setting} to the copy."
        )
    if not _PLACES.get(scheme, _BUCKET).fullmatch(PLACEHOLDER.sub("x", place)) or _SIGNED.search(path):
        raise SettingsError(
            f"{setting} = {scheme}://…: expected an address such as {_EXAMPLES.get(scheme, 's3://bucket/messages.csv')}"
            ", without a user, password or signature: credentials come from the environment or from the files of the "
            "cloud's own tools."
        )


_EXAMPLES = {
    "gs": "gs://bucket/messages.csv",
    "hdfs": "hdfs://host:8020/messages.csv",
    "abfs": "abfs://container@account.dfs.core.windows.net/messages.csv",
    "abfss": "abfss://container@account.dfs.core.windows.net/messages.csv",
    "file": "file:///mnt/shared",
}


def format_placeholder(placeholder: str, date: datetime.date) -> str:
    """Returns the text that replaces a placeholder of [messages] path: ``date``, or ``date:`` and a strftime format.

    Raises:
        SettingsError: the placeholder is not known, or its format has no or an unknown directive.
    """
    name, colon, date_format = placeholder.partition(":")
    if placeholder == "date":
        return date.isoformat()
    text = date.strftime(date_format)
    # The C library copies a directive that it does not know.
    if name == "date" and colon and "%" in date_format and "%" not in text:
        return text
    raise SettingsError(
        f"[messages] path: {{{placeholder}}}: expected {{date}} for {_PROBE:%Y-%m-%d}, or {{date:FORMAT}} with a "
        f"strftime format, such as {{date:%Y%m%d}} for {_PROBE:%Y%m%d} or {{date:%Y/%m/%d}} for {_PROBE:%Y/%m/%d}."
    )
