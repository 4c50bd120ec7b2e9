"""Tests that runs through PgBouncer in transaction mode work: locks, migrations, cursors, and a whole batch.

PgBouncer gives a session of the server to another client after each transaction. What a session keeps, such as a lock
or a prepared statement, is then found in another session or not at all.
"""

from __future__ import annotations

import contextlib
import datetime
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import sqlalchemy as sa
from chain import SMALL, luigi, merge_settings, write_settings
from eventually import eventually
from missing import skip_or_fail
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

from models.errors import AlreadyRunningError, DatabaseError
from tasks.database.batch_lock import hold_batch_lock
from tasks.database.batches import find_published_batch, stream_scores
from tasks.database.connection import connect, persistent_connection, read_transaction
from tasks.database.schema import has_schema, open_database
from tasks.settings.storage import DatabaseSettings

DATE = datetime.date(2026, 1, 31)
HOLD = """
import sys
from datetime import date
from types import SimpleNamespace
from tasks.database.batch_lock import hold_batch_lock
from tasks.database.schema import open_database
engine = open_database(SimpleNamespace(url=sys.argv[1], connect_timeout=10))
with hold_batch_lock(engine, date(2026, 1, 31), False, print):
    print("held", flush=True)
    sys.stdin.readline()
"""


def render(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@contextlib.contextmanager
def start_pooler(database: str, **options: str) -> Iterator[URL]:
    if not servers.is_pgbouncer_installed():
        message = "skipped: pgbouncer not installed (apt-get install pgbouncer)"
        skip_or_fail(message)
    with servers.pgbouncer(sa.make_url(database), **options) as url:
        yield url


@pytest.fixture
def pooled(postgresql_url: str) -> Iterator[URL]:
    """The URL of an empty database behind PgBouncer, with a pool of four sessions."""
    with start_pooler(postgresql_url) as url:
        yield url


@pytest.fixture
def engine(pooled: URL) -> Iterator[Engine]:
    """The same database with all tables."""
    engine = open_database(DatabaseSettings(render(pooled)))
    yield engine
    engine.dispose()


def connect_plainly(url: URL | str) -> sa.Connection:
    return sa.create_engine(url, poolclass=NullPool, connect_args={"prepare_threshold": None}).connect()


@contextlib.contextmanager
def other_clients(pooled: URL, count: int = 3) -> Iterator[None]:
    """Runs clients that begin and end transactions, so that the sessions of the pool change hands."""
    ended, errors = threading.Event(), []

    def run() -> None:
        with contextlib.closing(connect_plainly(pooled)) as client:
            while not ended.wait(0.005):
                try:
                    client.exec_driver_sql("SELECT pg_sleep(0.005)")
                    client.rollback()
                except sa.exc.SQLAlchemyError as error:
                    errors.append(error)
                    return

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert errors == []


@contextlib.contextmanager
def occupied_session(pooled: URL) -> Iterator[None]:
    """Occupies the session that the pool would give to the next client."""
    with connect_plainly(pooled) as client:
        client.exec_driver_sql("SELECT 1")
        yield


@contextlib.contextmanager
def holder(pooled: URL) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of the date."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", HOLD, render(pooled)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate("\n")


def ignore(*_: Any) -> None:
    """Ignores the progress of a wait."""


def count_advisory_locks(database: str) -> int:
    with connect_plainly(database) as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").scalar_one())


def test_two_runs_exclude_each_other(engine: Engine, pooled: URL) -> None:
    with other_clients(pooled), holder(pooled):
        for _ in range(8):  # as many attempts as there are sessions, and more
            with (
                pytest.raises(AlreadyRunningError),
                hold_batch_lock(engine, DATE, wait=False, on_progress=ignore),
            ):
                pytest.fail("both runs hold the lock")


def finish(run: subprocess.Popen[str]) -> None:
    assert run.stdin is not None
    run.stdin.write("\n")
    run.stdin.flush()


@pytest.mark.parametrize("end", [subprocess.Popen.kill, finish], ids=["killed", "ended"])
def test_no_lock_outlives_its_run(
    engine: Engine, pooled: URL, postgresql_url: str, end: Callable[[subprocess.Popen[str]], Any]
) -> None:
    with other_clients(pooled), holder(pooled) as run:
        assert count_advisory_locks(postgresql_url) == 1
        end(run)
        run.wait()
        eventually(lambda: count_advisory_locks(postgresql_url) == 0)
        with hold_batch_lock(engine, DATE, wait=False, on_progress=ignore):
            pass


def test_runs_that_wait_occupy_no_session(engine: Engine, pooled: URL) -> None:
    waiting, reports = [], []

    def wait() -> None:
        with hold_batch_lock(engine, DATE, wait=True, on_progress=lambda *report: reports.append(report)):
            pass

    with holder(pooled):
        waiting = [threading.Thread(target=wait) for _ in range(6)]  # more than the pool has sessions
        for thread in waiting:
            thread.start()
        eventually(lambda: len(reports) >= 12)
        with read_transaction(engine) as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    for thread in waiting:
        thread.join()


def test_concurrent_processes_can_all_open_an_empty_database(postgresql_url: str) -> None:
    with start_pooler(postgresql_url, default_pool_size="9") as pooled, other_clients(pooled):
        servers.open_from_processes(render(pooled))
        assert has_schema(connect(DatabaseSettings(render(pooled))))
    eventually(lambda: count_advisory_locks(postgresql_url) == 0)


def test_a_statement_runs_in_any_session(engine: Engine, pooled: URL) -> None:
    with persistent_connection(engine) as persistent:
        for number in range(12):
            with occupied_session(pooled) if number % 2 else contextlib.nullcontext():
                assert find_published_batch(persistent, DATE) is None


def test_a_batch_is_scored_from_and_into_a_pooled_database(trained: Path, pooled: URL, postgresql_url: str) -> None:
    with connect_plainly(postgresql_url) as connection:
        connection.exec_driver_sql("CREATE TABLE inbox (id integer PRIMARY KEY, body text, sent timestamptz)")
        connection.exec_driver_sql(
            "INSERT INTO inbox SELECT n, 'win a prize ' || n, '2026-01-31 12:00+00' FROM generate_series(1, 3000) n"
        )
        connection.commit()
    query = "SELECT id AS message_id, body AS text FROM inbox WHERE sent >= :start AND sent < :end"
    write_settings(
        trained,
        merge_settings(SMALL, {"messages": {"source": "sql", "query": query}, "scoring": {"chunk_size": "200"}}),
    )
    with other_clients(pooled):
        done = luigi(trained, "ScoreBatch", "--date", str(DATE), SPAMSCORE_DATABASE_URL=render(pooled))
    assert done.code == 0, done.output
    engine = connect(DatabaseSettings(render(pooled)))
    batch = find_published_batch(engine, DATE)
    assert batch is not None
    assert (batch.messages_read, batch.scored) == (3000, 3000)
    assert sum(1 for _ in stream_scores(engine, DATE)) == 3000
    assert count_advisory_locks(postgresql_url) == 0


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"default_pool_size": "1", "query_wait_timeout": "2"}, "raise default_pool_size, a run needs two at a time"),
        ({"pool_mode": "statement"}, "Set pool_mode = transaction or session in PgBouncer"),
    ],
)
def test_a_pool_that_cannot_serve_a_run_is_reported(postgresql_url: str, options: dict[str, str], advice: str) -> None:
    with start_pooler(postgresql_url, **options) as pooled, pytest.raises(DatabaseError) as caught:
        open_database(DatabaseSettings(render(pooled)))
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_that_the_pooler_refuses_is_reported(pooled: URL) -> None:
    url = pooled.update_query_dict({"options": "-c search_path=sms"})
    with pytest.raises(DatabaseError, match="name it in PgBouncer's ignore_startup_parameters"):
        connect(DatabaseSettings(render(url)))
