"""Describes the errors of database drivers in one line, with the way out, and tells which are worth a retry."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sqlalchemy import exc
from sqlalchemy.engine import URL

from tasks.database.urls import sqlite_path
from tasks.settings.masking import find_secrets, mask_credentials

# Errors worth a retry: a deadlock, a lock timeout, a server that restarts.
_RETRYABLE_STATES = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03"})
_RETRYABLE_MYSQL_CODES = frozenset({1020, 1205, 1213, 2002, 2003, 2006, 2013})
_DENIED_STATE = "42501"
_DENIED_MYSQL_CODES = frozenset({1142, 1143})  # on a table, on a column
# What libpq and psycopg say about a connection option before they ask the server.
_OPTION_ERROR = re.compile(r"\b(?:invalid|bad|weak) [\w ]*(?:value|number|option|sslmode)\b")

# The way out for messages of the servers, of PgBouncer and of SQLite.
_ADVICE = (
    (r'database "[^"]*" does not exist|Unknown database', "Create the database, or correct its name in the URL"),
    (r"permission denied for schema (\S+)", "Grant it: GRANT USAGE, CREATE ON SCHEMA {} TO {user}"),
    (
        r"(SELECT|INSERT|UPDATE|DELETE) command denied .* table \S*[`'](\w+)[`']",
        "Grant it: GRANT {} ON {} TO {user}",
    ),
    (r"Access denied .* to database|CREATE command denied", "Grant the user ALL PRIVILEGES on the database"),
    (
        r"Access denied .*using password",
        "Correct user and password; a server that asks for TLS gives the same answer: then add ?ssl_ca=<CA file>",
    ),
    (
        r"read-only transaction|--read-only option|read_only option",
        "The server or the user is read-only, as a replica is: connect to the primary server",
    ),
    (
        r"too many (?:clients|connections)|connection slots|Too many connections",
        "Run again later, or raise the limit of connections of the server or the role",
    ),
    (r"no encryption|SSL off", "The server asks for TLS: add ?sslmode=require to the URL, or sslmode=verify-full"),
    (
        r"secure.transport",
        "The server asks for TLS: add ?ssl_ca=<file of the CA certificate> to the URL, or ?ssl_check_hostname=false",
    ),
    (
        r"No space left on device|is full\b",
        "Free disk space on the database's machine and run again; committed rows are safe",
    ),
    (
        r"query_wait_timeout|no more connections allowed",
        "PgBouncer has no free server connection: raise default_pool_size, a run needs two at a time",
    ),
    (
        r"unsupported startup parameter",
        "PgBouncer refuses an option of the URL: remove it, or name it in PgBouncer's ignore_startup_parameters",
    ),
    (r"statement pooling", "Set pool_mode = transaction or session in PgBouncer, or use the port of the server itself"),
    (
        r"has no equivalent in encoding|for character set",
        "The database cannot store every character: use one that was created with ENCODING 'UTF8'",
    ),
)


def describe_error(error: BaseException, url: URL) -> str:
    """Returns the message of the driver's error on one line, without credentials."""
    driver_error = getattr(error, "orig", None) or error
    text = str(driver_error.args[-1]) if driver_error.args else type(driver_error).__name__
    return " ".join(mask_credentials(text, find_secrets(url)).split()).rstrip(".")


def find_advice(error: BaseException, url: URL) -> str:
    """Returns one sentence with the way out of an error, or an empty text if none is known."""
    text = describe_error(error, url)
    path = sqlite_path(url) if url.get_backend_name() == "sqlite" else None
    if path is not None and re.search("unable to open|readonly database", text):
        return _explain_sqlite_permission(path)
    if match := re.search(r"permission denied for (?:table|view|sequence|relation|materialized view) (\S+)", text):
        return f"Grant it: GRANT {_find_privilege(error)} ON {match[1]} TO {url.username}"
    for pattern, advice in _ADVICE:
        if match := re.search(pattern, text):
            return advice.format(*match.groups(), user=url.username)
    return ""


def _find_privilege(error: BaseException) -> str:
    """Returns the privilege that a statement needs, by its first word."""
    words = (getattr(error, "statement", None) or "").split(maxsplit=1)
    word = words[0].upper() if words else ""
    return word if word in ("SELECT", "INSERT", "UPDATE", "DELETE") else "ALL"


def _explain_sqlite_permission(path: Path) -> str:
    """Returns which permission on a SQLite file or its folder is missing, or an empty text if none is."""
    if path.is_dir():
        return f"{path} is a folder: correct the URL, which names the file"
    if not os.access(path, os.R_OK):
        return f"This user may not read {path}: grant read permission on it and its folder"
    if not os.access(path.parent, os.W_OK) and _is_in_wal_mode(path):
        return (
            f"The file is in WAL mode, in which a reader too creates files in its folder, and this user may not write "
            f"to {path.parent.absolute()}. Grant write permission on the folder; or run, as the owner, sqlite3 {path} "
            "'PRAGMA journal_mode=DELETE'; or read a copy of the file in another folder"
        )
    return f"This user may not write to {path} or its folder: grant write permission on both"


def _is_in_wal_mode(path: Path) -> bool:
    # Bytes 18 and 19 of the header: https://www.sqlite.org/fileformat.html
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\x02\x02"


def is_option_error(error: exc.SQLAlchemyError) -> bool:
    """Returns whether PostgreSQL's driver refused an option of the URL, not the server the connection."""
    driver_error = getattr(error, "orig", None)
    has_state = getattr(driver_error, "sqlstate", None) is not None
    return hasattr(driver_error, "sqlstate") and not has_state and bool(_OPTION_ERROR.search(str(driver_error)))


def is_denied(error: BaseException | None) -> bool:
    """Returns whether the user lacks the right to read or write a table."""
    state, code = _state_and_code(error)
    return state == _DENIED_STATE or code in _DENIED_MYSQL_CODES


def is_retryable(error: exc.DBAPIError) -> bool:
    """Returns whether the same transaction may succeed if it is run again."""
    state, code = _state_and_code(error)
    # A psycopg error without a state comes from the connection, not from the server.
    is_lost = isinstance(error, exc.OperationalError) and hasattr(error.orig, "sqlstate") and state is None
    return error.connection_invalidated or is_lost or state in _RETRYABLE_STATES or code in _RETRYABLE_MYSQL_CODES


def _state_and_code(error: BaseException | None) -> tuple[Any, Any]:
    """Returns the SQLSTATE of PostgreSQL's driver and the error code of MySQL's; None for what an error lacks."""
    driver_error = getattr(error, "orig", None)
    arguments = getattr(driver_error, "args", None)
    return getattr(driver_error, "sqlstate", None), arguments[0] if arguments else None
