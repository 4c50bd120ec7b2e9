from __future__ import annotations

import datetime
import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from models.errors import AlreadyRunningError
from tasks.database.batch_lock import hold_batch_lock
from tasks.database.tables import is_mysql

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

    def let_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def nothing(*_: Any) -> None:
    """Watches a wait that has nothing to say."""


def test_a_date_that_another_run_scores_is_left_to_it_when_told_so(engine: Engine) -> None:
    with (
        Holder(engine),
        pytest.raises(AlreadyRunningError, match="another run is scoring the messages of 2026-01-31"),
        hold_batch_lock(engine, DATE, wait=False, on_progress=nothing),
    ):
        pytest.fail("both hold it")
    with hold_batch_lock(engine, DATE, wait=False, on_progress=nothing):
        pass


def test_another_date_is_scored_meanwhile(engine: Engine) -> None:
    with (
        Holder(engine, DATE - datetime.timedelta(days=1)),
        hold_batch_lock(engine, DATE, wait=False, on_progress=nothing),
    ):
        pass


def test_a_run_that_waits_says_so_and_goes_on_when_the_other_has_ended(engine: Engine) -> None:
    told = []
    with Holder(engine) as holder:

        def watch(done: float, total: float, status: str) -> None:
            told.append((done, total, status))
            holder.let_go()

        with hold_batch_lock(engine, DATE, wait=True, on_progress=watch):
            pass
    assert set(told) == {(0, 1, "waiting for another run of 2026-01-31 to end")}


def test_the_lock_goes_with_the_run_that_was_killed(engine: Engine) -> None:
    with Holder(engine) as holder:
        holder.process.kill()
        holder.process.wait()
        # A server notices that a client is gone a moment later.
        with hold_batch_lock(engine, DATE, wait=True, on_progress=nothing):
            pass


def test_waiting_ends_by_what_the_watch_raises(engine: Engine) -> None:
    def ended(*_: Any) -> None:
        raise KeyboardInterrupt

    with (
        Holder(engine),
        pytest.raises(KeyboardInterrupt),
        hold_batch_lock(engine, DATE, wait=True, on_progress=ended),
    ):
        pytest.fail("both hold it")


def test_an_error_in_the_work_is_not_hidden_and_gives_the_lock_back(engine: Engine) -> None:
    with pytest.raises(sa.exc.IntegrityError), hold_batch_lock(engine, DATE, wait=False, on_progress=nothing):
        raise sa.exc.IntegrityError("insert", None, ValueError("twice"))
    with hold_batch_lock(engine, DATE, wait=False, on_progress=nothing):
        pass


@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
def test_a_connection_that_is_cut_does_not_fail_the_work_it_kept_alone(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with hold_batch_lock(engine, DATE, wait=False, on_progress=nothing):
        cut_all_others(engine)
    assert not caplog.records
    with hold_batch_lock(engine, DATE, wait=True, on_progress=nothing):
        pass


def cut_all_others(engine: Engine) -> None:
    with engine.connect() as connection:
        if is_mysql(engine.dialect):
            own = connection.scalar(sa.select(sa.func.connection_id()))
            others = sa.text("SELECT id FROM information_schema.processlist WHERE db = DATABASE()")
            for other in set(connection.scalars(others)) - {own}:
                connection.exec_driver_sql(f"KILL {other}")
        else:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
