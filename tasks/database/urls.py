"""Parses the URL of a database, and checks its driver and options before a connection is opened."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL

from models.errors import SettingsError
from tasks.settings.masking import is_misread, mask_password

_EXAMPLE = "postgresql://user:password@host:5432/spamscore"
_ALIASES = {"postgres": "postgresql"}
# The one driver for each of these databases: the writer, the character set and the reading of dates rely on it.
_DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}

# SQLite has one writer at a time. Other writers wait up to this long for the lock.
_SQLITE_BUSY_SECONDS = 60

_FILE_OPTIONS = frozenset({"ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "read_default_file"})
# PyMySQL has more, but a URL can give them only as text, which it misreads: ssl_disabled=false would disable TLS.
_MYSQL_OPTIONS = _FILE_OPTIONS | {
    "bind_address", "charset", "client_flag", "collation", "connect_timeout", "init_command", "local_infile",
    "password", "program_name", "read_default_group", "read_timeout", "ssl_check_hostname", "ssl_cipher",
    "unix_socket", "user", "write_timeout",
}  # fmt: skip
_SQLITE_OPTIONS = frozenset({"cached_statements", "timeout", "uri"})
_SQLITE_FILE_OPTIONS = frozenset({"cache", "immutable", "mode", "modeof", "nolock", "psow", "vfs"})  # with uri=true
_TLS_ADVICE = {
    "postgresql": "For TLS: sslmode=verify-full, or sslmode=require, which does not check the server's certificate.",
    "pymysql": "For TLS: ssl_ca=<file of the CA certificate>, or ssl_check_hostname=false, which does not check the "
    "server's certificate.",
}


def parse_url(text: str, section: str) -> URL:
    """Parses a URL and completes its driver.

    Args:
        text: the SQLAlchemy URL.
        section: the section of luigi.cfg that it is from, for error messages.

    Raises:
        SettingsError: the URL cannot be parsed, or names a driver that is not supported.
    """
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):
        raise invalid_url_error(text, section, "it cannot be parsed") from None
    backend, _, driver = url.drivername.partition("+")
    backend = _ALIASES.get(backend, backend)
    supported = _DRIVERS.get(backend)
    if is_misread(url):
        reason = "its user or password contains a character such as @ or /, which must be written %40 or %2F"
        raise invalid_url_error("…", section, reason)
    if supported and driver not in ("", supported):
        raise invalid_url_error(
            text, section, f"the driver {driver} is not supported. Write {backend}://, which uses {supported}"
        )
    if backend == "sqlite":
        _check_sqlite_url(url, text, section)
        return url
    return url.set(drivername=f"{backend}+{supported}") if supported else url


def _check_sqlite_url(url: URL, text: str, section: str) -> None:
    if url.host or url.username or url.port:
        raise invalid_url_error(text, section, "a SQLite URL has no host: write sqlite:/// before the path")
    if sqlite_path(url) is None:
        raise invalid_url_error(text, section, "an in-memory database is lost when the run ends")


def sqlite_path(url: URL) -> Path | None:
    """Returns the path of a SQLite file, or None for an in-memory database."""
    name = (url.database or "").removeprefix("file:")
    return None if name in ("", ":memory:") or url.query.get("mode") == "memory" else Path(name)


def invalid_url_error(text: str, section: str, reason: str) -> SettingsError:
    """Returns the error for a URL that cannot be used; its text shows the URL with the password masked."""
    return SettingsError(
        f"[{section}] url = {mask_password(text)}: {reason}. Expected a SQLAlchemy URL such as {_EXAMPLE} or "
        f"sqlite:///spamscore.db, with characters such as @ : / in a password written %40 %3A %2F. {url_hint(section)}"
    )


def url_hint(section: str) -> str:
    """Returns the sentence that says where to set the URL of a section."""
    return (
        f"Set [{section}] url in luigi.cfg, or the environment variable SPAMSCORE_{section.upper()}_URL, which is the "
        "place for a password."
    )


def check_options(url: URL, section: str) -> None:
    """Checks the options in the query of a URL: a driver answers an unknown one with a TypeError, or ignores it.

    Raises:
        SettingsError: an option is unknown to the driver, is given twice, or names a file that does not exist.
        ModuleNotFoundError: the driver is not installed.
    """
    known = _known_options(url)
    for name, value in url.query.items() if known else ():
        if name not in known:
            raise option_error(url, section, f"no such option: {name}{_suggest(url, name, known)}")
        if not isinstance(value, str) and name not in ("host", "port"):
            raise option_error(url, section, f"the option {name} is given {len(value)} times")
        if name in _FILE_OPTIONS and not Path(str(value)).expanduser().exists():
            raise option_error(url, section, f"{name} = {value}: no such file")


def _known_options(url: URL) -> frozenset[str]:
    """Returns the options that a URL may have; empty for a database whose driver is not known here."""
    driver = _DRIVERS.get(url.get_backend_name())
    if driver == "psycopg":
        from psycopg import pq

        return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())
    if driver == "pysqlite":
        is_uri = str(url.query.get("uri", "")).lower() in ("true", "1", "yes", "on", "y", "t")
        return _SQLITE_OPTIONS | (_SQLITE_FILE_OPTIONS if is_uri else frozenset())
    return _MYSQL_OPTIONS if driver == "pymysql" else frozenset()


def _suggest(url: URL, name: str, known: Iterable[str]) -> str:
    """Returns the end of a sentence and the options that may have been meant."""
    backend = url.get_backend_name()
    if ("ssl" in name.lower() or "tls" in name.lower()) and backend != "sqlite":
        return f". {_TLS_ADVICE.get(backend, _TLS_ADVICE['pymysql'])} {_list_options(backend, known)}"
    matches = difflib.get_close_matches(name.lower(), sorted(known), n=1)
    suggestion = f"; did you mean {matches[0]}?" if matches else "."
    return f"{suggestion} {_list_options(backend, known)}"


def _list_options(backend: str, known: Iterable[str]) -> str:
    if backend == "postgresql":  # too many for one line
        return "Options are the connection parameters of libpq, such as sslmode, sslrootcert, connect_timeout, options"
    return f"Options are {', '.join(sorted(known))}"


def option_error(url: URL, section: str, reason: str) -> SettingsError:
    """Returns the error for an option of a URL; its text shows the URL with the password masked."""
    return SettingsError(f"[{section}] url = {mask_password(url)}: {reason}. {url_hint(section)}")


def connect_arguments(url: URL, timeout: int) -> dict[str, Any]:
    """Returns the arguments for the driver, without the defaults that the URL replaces.

    The character set is always the full Unicode one, whatever the URL says: with ``charset=utf8``, which has no emoji,
    MySQL would replace each by a question mark.
    """
    backend = url.get_backend_name()
    defaults: dict[str, Any] = {"connect_timeout": timeout}
    fixed: dict[str, Any] = {}
    if backend == "sqlite":
        defaults = {"timeout": _SQLITE_BUSY_SECONDS}
    elif backend == "postgresql":
        defaults["application_name"] = "spamscore"
        # A connection pooler may run the next transaction in another session, which lacks the prepared statement.
        fixed = {"client_encoding": "utf8", "prepare_threshold": None}
    elif backend in ("mysql", "mariadb"):
        fixed = {"charset": "utf8mb4"}
        if password := url.password or url.query.get("password"):  # PyMySQL would encode it in Latin-1
            fixed["password"] = str(password).encode()
    else:
        defaults = {}
    return {key: value for key, value in defaults.items() if key not in url.query} | fixed
