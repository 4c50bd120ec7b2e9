"""One run of a date at a time: the lock that a run holds while it scores, which goes with the run, however it ends.

The lock only saves work: a run that loses it, when its connection is cut, is still kept from doubling a row by the
ledger.
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
from tasks.database.connection import mask_password, read_transaction, sqlite_path
from tasks.database.tables import is_mysql

log = logging.getLogger("spamscore")

_POSTGRESQL_KEY = 0x5BA3_5C0F  # the date is the other half of the key
_SECONDS_BETWEEN = 1.0


@contextlib.contextmanager
def hold_batch_lock(
    engine: Engine, date: datetime.date, wait: bool, watch: Callable[[float, float, str], None]
) -> Iterator[None]:
    """Holds the lock of a date on a database, for every run that writes to it.

    Args:
        engine: an open database.
        date: of the batch.
        wait: for the run that holds the lock, if there is one.
        watch: told that 0 of 1 is done and a line of status, about once a second, while waiting; what it raises ends
            the waiting.

    Raises:
        AlreadyRunningError: another run holds it, and `wait` is false.
        DatabaseError: the database refused, or was lost.
    """
    with contextlib.ExitStack() as stack:
        taken = _lock(engine, date, stack)
        if not taken() and not wait:
            raise AlreadyRunningError(
                f"{mask_password(engine.url)}: another run is scoring the messages of {date}, and [run] when_running = leave. "
                "Nothing is to be done: it publishes the batch. Or set it to wait."
            )
        if not taken():
            log.info("another run is scoring the messages of %s; waiting for it to end", date)
        while not taken():
            watch(0, 1, f"waiting for another run of {date} to end")
            time.sleep(_SECONDS_BETWEEN)
        yield


def _lock(engine: Engine, date: datetime.date, stack: contextlib.ExitStack) -> Callable[[], bool]:
    """Asks for the lock at each call until it is taken; it is held until the stack unwinds."""
    name = engine.dialect.name
    if name == "sqlite":
        ask = _file_lock(engine, date, stack)
    elif name == "postgresql":
        ask = _postgresql_lock(_own_connection(engine, stack), date)
    elif is_mysql(engine.dialect):
        ask = _mysql_lock(_own_connection(engine, stack), date)
    else:
        raise SettingsError(f"[database] url = {mask_password(engine.url)}: there is no lock for {name}.")
    held = False

    def taken() -> bool:
        nonlocal held
        held = held or ask()
        return held

    return taken


def _file_lock(engine: Engine, date: datetime.date, stack: contextlib.ExitStack) -> Callable[[], bool]:
    """One byte for each date, of a file beside SQLite's."""
    path = sqlite_path(engine.url)
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    stack.callback(os.close, handle)

    def ask() -> bool:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, date.toordinal())
        except BlockingIOError:
            return False
        return True

    return ask


def _postgresql_lock(connection: Connection, date: datetime.date) -> Callable[[], bool]:
    ask = sa.select(sa.func.pg_try_advisory_lock(_POSTGRESQL_KEY, date.toordinal()))
    return lambda: bool(connection.scalar(ask))


def _mysql_lock(connection: Connection, date: datetime.date) -> Callable[[], bool]:
    # The server's locks have one name each for all its databases, of 64 characters at most.
    name = f"{date}.spamscore.{connection.engine.url.database}"[:64]
    return lambda: connection.scalar(sa.select(sa.func.get_lock(name, 0))) == 1


def _own_connection(engine: Engine, stack: contextlib.ExitStack) -> Connection:
    """A connection whose end is the lock's. It is in no transaction, for that would hold up the database's cleaning."""
    connection = stack.enter_context(read_transaction(engine)).execution_options(isolation_level="AUTOCOMMIT")
    # Closed without a word to the server: there may be none any more, and then the lock is gone with the connection.
    stack.callback(connection.invalidate)
    return connection
