"""Tests connections, transactions and retries on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import contextlib
import datetime
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import servers
import sqlalchemy as sa
from published_batches import DATE, publish
from sqlalchemy import exc
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool

from models.errors import DatabaseError, SettingsError
from tasks.database.batches import stream_scores
from tasks.database.connection import (
    connect,
    persistent_connection,
    read_transaction,
    run_with_retries,
    write_transaction,
)
from tasks.database.migrations import SCHEMA_REVISION, VERSION_TABLE
from tasks.database.schema import has_schema, open_database, schema_revision
from tasks.settings.storage import DatabaseSettings

SECRET = "s3cr3t"


def settings(url: str, connect_timeout: int = 5) -> DatabaseSettings:
    return DatabaseSettings(url=url, connect_timeout=connect_timeout)


def test_the_error_for_a_url_of_another_section_names_that_section() -> None:
    with pytest.raises(SettingsError, match=r"\[corpus\] url.*SPAMSCORE_CORPUS_URL"):
        connect(settings("postgresql://host:port/scores"), section="corpus")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/scores",
        f"mysql://me:{SECRET}@127.0.0.1:1/scores",
        f"mariadb://me:{SECRET}@127.0.0.1:1/scores",
        f"postgresql://me:{SECRET}@/scores?host=/nowhere",
    ],
)
def test_the_error_for_an_unreachable_server_masks_the_password(url: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        connect(settings(url))
    assert "cannot be reached" in str(caught.value)
    assert "me:***@" in str(caught.value)
    assert "SPAMSCORE_DATABASE_URL" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_a_wrong_password_is_reported_and_not_shown(server: str, request: pytest.FixtureRequest) -> None:
    url = sa.make_url(request.getfixturevalue(server)).set(password=SECRET)
    with pytest.raises(DatabaseError) as caught:
        open_database(settings(url.render_as_string(hide_password=False)))
    assert "spamscore" in str(caught.value)
    assert any(reason in str(caught.value) for reason in ("password authentication failed", "Access denied"))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "module", "install"),
    [
        ("postgresql://host/scores", "psycopg", 'pip install "spamscore[postgresql]"'),
        ("postgresql://host/scores", "pgpq", 'pip install "spamscore[postgresql]"'),
        ("mysql://host/scores", "pymysql", 'pip install "spamscore[mysql]"'),
        ("mariadb://host/scores", "pymysql", 'pip install "spamscore[mysql]"'),
        ("oracle+oracledb://host/scores", "oracledb", "pip install oracledb"),
    ],
)
def test_the_error_for_a_missing_driver_says_how_to_install_it(
    url: str, module: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatabaseError) as caught:
        connect(settings(url))
    assert install in str(caught.value)
    assert module in str(caught.value)


def test_the_error_for_a_missing_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"no such folder: .*missing.*\[database\] url"):
        connect(settings(f"sqlite:///{tmp_path}/missing/scores.db"))


def test_the_error_for_a_file_that_is_not_a_database_names_it(tmp_path: Path) -> None:
    Path(tmp_path, "scores.db").write_text("these are no scores, " * 100)
    with pytest.raises(DatabaseError, match=r"scores\.db: cannot be reached: file is not a database"):
        connect(settings(f"sqlite:///{tmp_path}/scores.db"))


def test_reading_creates_no_sqlite_file(sqlite_url: str, tmp_path: Path) -> None:
    assert not has_schema(connect(settings(sqlite_url)))
    assert list(tmp_path.iterdir()) == []


def test_reading_creates_no_tables(database_url: str) -> None:
    engine = connect(settings(database_url))
    assert not has_schema(engine)
    assert sa.inspect(engine).get_table_names() == []


def test_opening_creates_the_schema_and_opening_again_changes_nothing(database_url: str) -> None:
    for _ in range(2):
        engine = open_database(settings(database_url))
        assert has_schema(engine)
        with read_transaction(engine) as connection:
            assert schema_revision(connection) == SCHEMA_REVISION


def test_a_current_schema_is_opened_and_queried_without_heavy_imports(engine: Engine) -> None:
    script = (
        "import sys; from types import SimpleNamespace\n"
        "from tasks.database.schema import open_database, has_schema\n"
        "import tasks.database.batches, tasks.database.ledger, datetime\n"
        "engine = open_database(SimpleNamespace(url=sys.argv[1], connect_timeout=5)); assert has_schema(engine)\n"
        "assert tasks.database.batches.find_completed_dates(engine, {datetime.date(2026, 1, 31): 'none'}) == set()\n"
        "heavy = {'alembic', 'luigi', 'pandas', 'numpy', 'tensorflow'} & set(sys.modules); assert not heavy, heavy"
    )
    run([script, engine.url.render_as_string(hide_password=False)])


def test_concurrent_processes_can_all_open_an_empty_database(database_url: str) -> None:
    servers.open_from_processes(database_url)


@pytest.mark.parametrize("call", [has_schema, lambda engine: open_database(settings(full_url(engine)))])
def test_a_newer_schema_is_rejected_and_left_unchanged(engine: Engine, call: object) -> None:
    with write_transaction(engine) as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(DatabaseError) as caught:
        call(engine)  # type: ignore[operator]
    assert "version 9999" in str(caught.value)
    assert SCHEMA_REVISION in str(caught.value)
    assert "newer spamscore" in str(caught.value)
    with read_transaction(engine) as connection:
        assert schema_revision(connection) == "9999"


def test_a_mysql_url_for_mariadb_creates_the_same_tables(mariadb_url: str) -> None:
    engine = open_database(settings(mariadb_url.replace("mariadb+pymysql", "mysql")))
    with read_transaction(engine) as connection:
        statement = connection.exec_driver_sql("SHOW CREATE TABLE spam_scores").one()[1]
    assert "utf8mb4_nopad_bin" in statement


@pytest.mark.parametrize("option", ["", "?charset=utf8", "?charset=latin1"])
@pytest.mark.parametrize("default", ["latin1", "utf8mb4"])
def test_emoji_in_ids_are_stored_whatever_character_set_the_url_names(
    mariadb_server: sa.URL, option: str, default: str
) -> None:
    with servers.temporary_database(mariadb_server, options=f"CHARACTER SET {default}") as url:
        engine = open_database(settings(url.render_as_string(hide_password=False) + option))
        publish(engine, {"id 😀": 0.75})
        with sa.create_engine(url.set(query={"charset": "utf8mb4"}), poolclass=NullPool).connect() as connection:
            assert connection.exec_driver_sql("SELECT message_id FROM published_scores").scalar_one() == "id 😀"
        assert [row.message_id for row in stream_scores(engine, DATE)] == ["id 😀"]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_postgresql_database_that_is_not_utf_8_stores_what_it_can(postgresql_server: sa.URL, encoding: str) -> None:
    options = f"TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    with servers.temporary_database(postgresql_server, options=options) as url:
        engine = open_database(settings(url.render_as_string(hide_password=False) + "&client_encoding=latin1"))
        publish(engine, {"café": 0.75})
        assert [row.message_id for row in stream_scores(engine, DATE)] == ["café"]
        if encoding == "LATIN1":
            with pytest.raises(DatabaseError, match="use one that was created with ENCODING 'UTF8'"):
                publish(engine, {"id 😀": 0.75})


def test_times_are_read_from_a_server_with_another_date_format(postgresql_url: str) -> None:
    engine = open_database(settings(postgresql_url))
    with write_transaction(engine) as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {engine.url.database} SET datestyle = 'German, DMY'")
    publish(engine, {"a": 0.75})
    with persistent_connection(engine) as persistent:
        assert [row.scored_at.tzinfo for row in stream_scores(persistent, DATE)] == [datetime.UTC]


def test_a_password_may_have_any_character_on_mariadb(mariadb_url: str) -> None:
    url = sa.make_url(mariadb_url)
    with servers.admin_connection(url.update_query_dict({"charset": "utf8mb4"})) as connection:
        connection.exec_driver_sql("CREATE USER polyglot@'127.0.0.1' IDENTIFIED BY 'pässwörd €'")
        try:
            connection.exec_driver_sql(f"GRANT ALL ON {url.database}.* TO polyglot@'127.0.0.1'")
            assert not has_schema(connect(settings(full_url(url.set(username="polyglot", password="pässwörd €")))))
        finally:
            connection.exec_driver_sql("DROP USER polyglot@'127.0.0.1'")


def test_a_text_that_is_too_long_is_not_truncated_on_mariadb(mariadb_url: str) -> None:
    engine = open_database(settings(f"{mariadb_url}?init_command=SET%20sql_mode%3D%27%27"))
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE words (word VARCHAR(3))")
    for opened in (contextlib.nullcontext(engine), persistent_connection(engine)):
        with (
            opened as target,
            pytest.raises(DatabaseError, match="Data too long"),
            write_transaction(target) as connection,
        ):
            connection.exec_driver_sql("INSERT INTO words VALUES ('four')")


def test_an_error_rolls_the_transaction_back(engine: Engine) -> None:
    create_numbers(engine)
    with pytest.raises(sa.exc.IntegrityError), write_transaction(engine) as connection:
        change_until_rejected(connection)
    assert numbers(engine) == [(1, 0), (2, 0)]


def change_until_rejected(connection: sa.Connection) -> None:
    connection.exec_driver_sql("INSERT INTO numbers VALUES (3, 0)")
    connection.exec_driver_sql("UPDATE numbers SET times = 7")
    connection.exec_driver_sql("INSERT INTO numbers VALUES (3, 0)")


def test_a_violated_constraint_is_an_integrity_error_and_any_other_error_a_database_error(engine: Engine) -> None:
    create_numbers(engine)
    with pytest.raises(sa.exc.IntegrityError), write_transaction(engine) as connection:
        connection.exec_driver_sql("INSERT INTO numbers VALUES (1, 0)")
    with pytest.raises(DatabaseError, match="no_such_table") as caught, read_transaction(engine) as connection:
        connection.exec_driver_sql("SELECT * FROM no_such_table")
    assert "a secret" not in str(caught.value)


def test_foreign_keys_are_enforced(engine: Engine) -> None:
    with pytest.raises(sa.exc.IntegrityError), write_transaction(engine) as connection:
        connection.exec_driver_sql("INSERT INTO rejected_messages VALUES (99, 1, 'a', 'empty text', NULL)")


def test_concurrent_read_and_write_transactions_lose_no_update_on_sqlite(sqlite_url: str) -> None:
    engine = open_database(settings(sqlite_url))
    create_numbers(engine)
    in_threads(2, lambda _: [add_one(engine) for _ in range(25)])
    assert numbers(engine)[0] == (1, 50)


def add_one(engine: Engine) -> None:
    with write_transaction(engine) as connection:
        times = connection.exec_driver_sql("SELECT times FROM numbers WHERE number = 1").scalar_one()
        connection.exec_driver_sql(f"UPDATE numbers SET times = {times + 1} WHERE number = 1")


@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_a_deadlock_is_retried_until_both_transactions_succeed(server: str, request: pytest.FixtureRequest) -> None:
    engine = open_database(settings(request.getfixturevalue(server)))
    create_numbers(engine)
    both_hold_a_lock, tries = threading.Barrier(2, timeout=10), []

    def work(first: int, connection: sa.Connection) -> None:
        tries.append(first)
        connection.exec_driver_sql(f"UPDATE numbers SET times = times + 1 WHERE number = {first}")
        if len(tries) <= 2:
            both_hold_a_lock.wait()
        connection.exec_driver_sql(f"UPDATE numbers SET times = times + 1 WHERE number = {3 - first}")

    in_threads(2, lambda index: run_with_retries(engine, lambda connection: work(index + 1, connection)))
    assert numbers(engine) == [(1, 2), (2, 2)]
    assert len(tries) == 3


def test_a_transaction_is_retried_when_the_server_ends_the_session(postgresql_url: str) -> None:
    engine = open_database(settings(postgresql_url))
    create_numbers(engine)
    tries = []

    def work(connection: sa.Connection) -> None:
        connection.exec_driver_sql("UPDATE numbers SET times = times + 1 WHERE number = 1")
        tries.append(1)
        if len(tries) == 1:
            end_session(engine, connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        connection.exec_driver_sql("SELECT 1")

    run_with_retries(engine, work)
    assert numbers(engine)[0] == (1, 1)
    assert len(tries) == 2


def fail_in(engine: Engine) -> None:
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE numbers SET times = 7")
        raise KeyError


def session(engine: Engine) -> int:
    with read_transaction(engine) as connection:
        if engine.dialect.name == "sqlite":
            return id(connection.connection.dbapi_connection)
        function = "pg_backend_pid" if engine.dialect.name == "postgresql" else "connection_id"
        return connection.exec_driver_sql(f"SELECT {function}()").scalar_one()


def test_a_persistent_connection_is_reused_and_closed_at_the_end(database_url: str) -> None:
    engine = open_database(settings(database_url))
    create_numbers(engine)
    with persistent_connection(engine) as persistent:
        sessions = {session(persistent) for _ in range(3)}
        with pytest.raises(KeyError):
            fail_in(persistent)
        assert numbers(persistent) == [(1, 0), (2, 0)]
        with write_transaction(persistent) as connection:
            connection.exec_driver_sql("UPDATE numbers SET times = 1 WHERE number = 2")
        assert {session(persistent)} == sessions
        assert numbers(engine) == [(1, 0), (2, 1)]
        with (
            read_transaction(persistent),
            read_transaction(persistent),
        ):  # a second connection is opened when two are needed
            pass
    assert persistent.pool.checkedin() == 0
    if engine.dialect.name == "sqlite":
        assert not Path(f"{engine.url.database}-wal").exists()


def test_a_persistent_session_that_the_server_ends_is_replaced(postgresql_url: str) -> None:
    engine = open_database(settings(postgresql_url))
    create_numbers(engine)
    with persistent_connection(engine) as persistent:
        first = session(persistent)
        end_session(engine, first)
        assert session(persistent) != first
        end_session(engine, session(persistent))
        with write_transaction(persistent) as connection:
            connection.exec_driver_sql("UPDATE numbers SET times = 1 WHERE number = 1")
    assert numbers(engine)[0] == (1, 1)


def test_a_violated_mysql_check_is_an_integrity_error_on_a_persistent_connection(mariadb_url: str) -> None:
    engine = open_database(settings(mariadb_url))
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE positive (number INTEGER CHECK (number > 0))")
    with (
        persistent_connection(engine) as persistent,
        pytest.raises(exc.IntegrityError),
        write_transaction(persistent) as connection,
    ):
        connection.exec_driver_sql("INSERT INTO positive VALUES (-1)")


def end_session(engine: Engine, session: int) -> None:
    with read_transaction(engine) as other:
        other.exec_driver_sql(f"SELECT pg_terminate_backend({session}, 5000)")


def create_numbers(engine: Engine) -> None:
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (number INTEGER PRIMARY KEY, times INTEGER)")
        connection.exec_driver_sql("INSERT INTO numbers VALUES (1, 0), (2, 0)")


def numbers(engine: Engine) -> list[tuple[int, int]]:
    with read_transaction(engine) as connection:
        return [tuple(row) for row in connection.exec_driver_sql("SELECT * FROM numbers ORDER BY number")]


def full_url(place: Engine | sa.URL) -> str:
    return (place.url if isinstance(place, Engine) else place).render_as_string(hide_password=False)


def in_threads(count: int, work: object) -> None:
    errors: list[BaseException] = []

    def run_work(index: int) -> None:
        try:
            work(index)  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run_work, args=[index]) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def run(arguments: list[str]) -> None:
    result = subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, timeout=60)
    assert (result.stderr, result.returncode) == ("", 0)
