"""Tests the lock of a batch date: only one run holds it, and it is released however that run ends."""

from __future__ import annotations

import datetime
import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from models.errors import AlreadyRunningError
from tasks.database.batch_lock import hold_batch_lock
from tasks.database.schema import open_database
from tasks.database.tables import is_mysql
from tasks.settings.storage import DatabaseSettings

DATE = datetime.date(2026, 1, 31)
HOLD = """
import sys
from datetime import date
from types import SimpleNamespace
from tasks.database.batch_lock import hold_batch_lock
from tasks.database.schema import open_database
engine = open_database(SimpleNamespace(url=sys.argv[1], connect_timeout=5))
with hold_batch_lock(engine, date.fromisoformat(sys.argv[2]), False, print):
    print("held", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """Another process that holds the lock of a date."""

    def __init__(self, engine: Engine, date: datetime.date = DATE) -> None:
        command = [sys.executable, "-c", HOLD, engine.url.render_as_string(hide_password=False), date.isoformat()]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate("\n")

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def ignore(*_: Any) -> None:
    """Ignores the progress of a wait."""


def test_a_locked_date_is_an_error_without_wait(engine: Engine) -> None:
    with (
        Holder(engine),
        pytest.raises(AlreadyRunningError, match="another run is scoring the messages of 2026-01-31"),
        hold_batch_lock(engine, DATE, wait=False, on_progress=ignore),
    ):
        pytest.fail("both runs hold the lock")
    with hold_batch_lock(engine, DATE, wait=False, on_progress=ignore):
        pass


def test_another_date_can_be_locked_at_the_same_time(engine: Engine) -> None:
    with (
        Holder(engine, DATE - datetime.timedelta(days=1)),
        hold_batch_lock(engine, DATE, wait=False, on_progress=ignore),
    ):
        pass


def test_a_waiting_run_reports_it_and_continues_when_the_other_ends(engine: Engine) -> None:
    reports = []
    with Holder(engine) as holder:

        def on_progress(done: float, total: float, status: str) -> None:
            reports.append((done, total, status))
            holder.release()

        with hold_batch_lock(engine, DATE, wait=True, on_progress=on_progress):
            pass
    assert set(reports) == {(0, 1, "waiting for another run of 2026-01-31 to end")}


def test_the_lock_of_a_killed_run_is_released(engine: Engine) -> None:
    with Holder(engine) as holder:
        holder.process.kill()
        holder.process.wait()
        # A server notices only after a moment that a client is gone.
        with hold_batch_lock(engine, DATE, wait=True, on_progress=ignore):
            pass


def test_an_exception_of_the_callback_ends_the_wait(engine: Engine) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with (
        Holder(engine),
        pytest.raises(KeyboardInterrupt),
        hold_batch_lock(engine, DATE, wait=True, on_progress=interrupt),
    ):
        pytest.fail("both runs hold the lock")


def test_an_error_in_the_block_is_raised_and_releases_the_lock(engine: Engine) -> None:
    with pytest.raises(sa.exc.IntegrityError), hold_batch_lock(engine, DATE, wait=False, on_progress=ignore):
        raise sa.exc.IntegrityError("insert", None, ValueError("twice"))
    with hold_batch_lock(engine, DATE, wait=False, on_progress=ignore):
        pass


@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
def test_a_lost_lock_connection_does_not_fail_the_run(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with hold_batch_lock(engine, DATE, wait=False, on_progress=ignore):
        kill_other_connections(engine)
    assert not caplog.records
    with hold_batch_lock(engine, DATE, wait=True, on_progress=ignore):
        pass


def kill_other_connections(engine: Engine) -> None:
    with engine.connect() as connection:
        if is_mysql(engine.dialect):
            own = connection.scalar(sa.select(sa.func.connection_id()))
            session_ids = sa.text("SELECT id FROM information_schema.processlist WHERE db = DATABASE()")
            for session_id in set(connection.scalars(session_ids)) - {own}:
                connection.exec_driver_sql(f"KILL {session_id}")
        else:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


def test_the_lock_outlasts_the_timeouts_of_an_idle_session(postgresql_url: str) -> None:
    engine = open_database(DatabaseSettings(postgresql_url))
    for name in ("idle_in_transaction_session_timeout", "transaction_timeout"):
        set_default(engine, name, "500ms")
    with hold_batch_lock(engine, DATE, wait=False, on_progress=ignore):
        # In a database without these timeouts.
        with sa.create_engine(engine.url.set(database="postgres"), poolclass=NullPool).connect() as connection:
            connection.exec_driver_sql("SELECT pg_sleep(1)")
        with (
            pytest.raises(AlreadyRunningError),
            hold_batch_lock(engine, DATE, wait=False, on_progress=ignore),
        ):
            pytest.fail("the first run has lost the lock")


def test_the_lock_does_not_delay_the_vacuum_of_postgresql(postgresql_url: str) -> None:
    engine = open_database(DatabaseSettings(postgresql_url))
    set_default(engine, "default_transaction_isolation", "repeatable read")
    with hold_batch_lock(engine, DATE, wait=False, on_progress=ignore), engine.connect() as connection:
        sessions = connection.exec_driver_sql(
            "SELECT state, backend_xmin, backend_xid FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).all()
    assert [tuple(session) for session in sessions] == [("idle in transaction", None, None)]


def set_default(engine: Engine, name: str, value: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {engine.url.database} SET {name} = '{value}'")
