"""Locks a batch date, so that only one run at a time scores it.

The lock is released when the process ends, however it ends. It only saves work: if a run loses the lock because its
connection is cut, the ledger still prevents duplicate rows.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from models.errors import AlreadyRunningError, SettingsError
from tasks.database.connection import begin_lasting_transaction, read_transaction
from tasks.database.tables import is_mysql
from tasks.database.urls import sqlite_path
from tasks.settings.masking import mask_password

log = logging.getLogger("spamscore")

_POSTGRESQL_KEY = 0x5BA3_5C0F  # first half of the key; the date is the second
_POLL_SECONDS = 1.0


@contextlib.contextmanager
def hold_batch_lock(
    engine: Engine, date: datetime.date, wait: bool, on_progress: Callable[[float, float, str], None]
) -> Iterator[None]:
    """Holds the lock of a date while the ``with`` block runs. Every run that writes to the database takes it.

    Args:
        engine: an open database.
        date: date of the batch.
        wait: whether to wait while another run holds the lock.
        on_progress: called about once a second while waiting, with 0, 1 and a status line; an exception it raises ends
            the wait.

    Raises:
        AlreadyRunningError: another run holds the lock, and `wait` is false.
        DatabaseError: the database reported an error, or the connection was lost.
    """
    with contextlib.ExitStack() as stack:
        acquire = _create_lock(engine, date, stack)
        if not acquire() and not wait:
            raise AlreadyRunningError(
                f"{mask_password(engine.url)}: another run is scoring the messages of {date}, and [run] when_running = "
                "leave. Nothing needs to be done: that run publishes the batch. Set it to wait to wait for that run."
            )
        if not acquire():
            log.info("another run is scoring the messages of %s; waiting for it to end", date)
        while not acquire():
            on_progress(0, 1, f"waiting for another run of {date} to end")
            time.sleep(_POLL_SECONDS)
        yield


def _create_lock(engine: Engine, date: datetime.date, stack: contextlib.ExitStack) -> Callable[[], bool]:
    """Returns a function that tries to take the lock and returns whether it is held. The stack releases it."""
    name = engine.dialect.name
    if name == "sqlite":
        try_lock = _file_lock(engine, date, stack)
    elif name == "postgresql":
        try_lock = _postgresql_lock(_open_lock_connection(engine, stack), date)
    elif is_mysql(engine.dialect):
        connection = _open_lock_connection(engine, stack)
        try_lock = _mysql_lock(connection.execution_options(isolation_level="AUTOCOMMIT"), date)
    else:
        raise SettingsError(f"[database] url = {mask_password(engine.url)}: there is no lock for {name}.")
    acquired = False

    def acquire() -> bool:
        nonlocal acquired
        acquired = acquired or try_lock()
        return acquired

    return acquire


def _file_lock(engine: Engine, date: datetime.date, stack: contextlib.ExitStack) -> Callable[[], bool]:
    """Locks one byte per date in a lock file beside the database file."""
    path = sqlite_path(engine.url)
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    stack.callback(os.close, handle)

    def try_lock() -> bool:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, date.toordinal())
        except BlockingIOError:
            return False
        return True

    return try_lock


def _postgresql_lock(connection: Connection, date: datetime.date) -> Callable[[], bool]:
    # Without bound parameters: a statement that has some keeps its snapshot, which delays vacuum, until the next one.
    statement = f"SELECT pg_try_advisory_xact_lock({_POSTGRESQL_KEY}, {date.toordinal()})"

    def try_lock() -> bool:
        begin_lasting_transaction(connection)
        acquired = bool(connection.exec_driver_sql(statement).scalar())
        if not acquired:
            connection.rollback()  # a run that waits does not occupy a session of a connection pooler
        return acquired

    return try_lock


def _mysql_lock(connection: Connection, date: datetime.date) -> Callable[[], bool]:
    # Lock names are shared by all databases of the server and have up to 64 characters.
    name = f"{date}.spamscore.{connection.engine.url.database}"[:64]
    return lambda: connection.scalar(sa.select(sa.func.get_lock(name, 0))) == 1


def _open_lock_connection(engine: Engine, stack: contextlib.ExitStack) -> Connection:
    """Returns a connection that owns the lock."""
    connection = stack.enter_context(read_transaction(engine))
    # Closed without a message to the server, which may be gone; the lock ends with the connection either way.
    stack.callback(connection.invalidate)
    return connection
