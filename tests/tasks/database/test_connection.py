"""What holds of the way into a database, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Engine

from models.errors import DatabaseError, SettingsError
from tasks.database.connection import connect, connection_kept, masked, reading, retried, writing
from tasks.database.migrations import SCHEMA_REVISION, VERSION_TABLE
from tasks.database.schema import has_schema, open_database, schema_revision
from tasks.settings.storage import DatabaseSettings

SECRET = "s3cr3t"


def settings(url: str, connect_timeout: int = 5) -> DatabaseSettings:
    return DatabaseSettings(url=url, connect_timeout=connect_timeout)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///scores.db", "sqlite:///scores.db"),
        (f"postgresql://me:{SECRET}@host:5432/scores", "postgresql://me:***@host:5432/scores"),
        (f"postgresql://host/scores?user=me&password={SECRET}", "postgresql://host/scores?password=***&user=me"),
        (f"mysql://host/scores?ssl_key_password={SECRET}", "mysql://host/scores?ssl_key_password=***"),
        (f"postgresql://me:{SECRET}@host:port/scores", "postgresql://…"),
        (SECRET, "…"),
        ("", "…"),
    ],
)
def test_a_masked_address_shows_all_but_passwords(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "expected a SQLAlchemy URL"),
        (SECRET, "expected a SQLAlchemy URL"),
        (f"postgresql://me:{SECRET}/x@host:port/scores", "it cannot be read"),
        (f"postgresql://me:a@{SECRET}@host/scores", "must be written %40"),
        (f"nosuch://me:{SECRET}@host/scores", "SQLAlchemy knows no nosuch"),
        (f"postgresql+nosuch://me:{SECRET}@host/scores", "SQLAlchemy knows no postgresql+nosuch"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_by_the_setting_that_holds_it(url: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        connect(settings(url))
    assert "[database] url" in str(refused.value)
    assert "SPAMSCORE_DATABASE_URL" in str(refused.value)
    assert reason in str(refused.value)
    assert SECRET not in str(refused.value)


def test_an_address_of_another_section_is_refused_by_its_name() -> None:
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
def test_a_server_that_does_not_answer_is_named_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        connect(settings(url))
    assert "cannot be reached" in str(refused.value)
    assert "me:***@" in str(refused.value)
    assert "SPAMSCORE_DATABASE_URL" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_a_wrong_password_is_said_and_not_shown(server: str, request: pytest.FixtureRequest) -> None:
    url = sa.make_url(request.getfixturevalue(server)).set(password=SECRET)
    with pytest.raises(DatabaseError) as refused:
        open_database(settings(url.render_as_string(hide_password=False)))
    assert "spamscore" in str(refused.value)
    assert any(said in str(refused.value) for said in ("password authentication failed", "Access denied"))
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "module", "install"),
    [
        ("postgresql://host/scores", "psycopg", 'pip install "spamscore[postgresql]"'),
        ("postgresql://host/scores", "pgpq", 'pip install "spamscore[postgresql]"'),
        ("mysql://host/scores", "pymysql", 'pip install "spamscore[mysql]"'),
        ("mariadb://host/scores", "pymysql", 'pip install "spamscore[mysql]"'),
        ("postgresql+psycopg2://host/scores", "psycopg2", 'pip install "spamscore[postgresql]"'),
    ],
)
def test_a_driver_that_is_not_installed_is_named_with_how_to_install_it(
    url: str, module: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatabaseError) as refused:
        connect(settings(url))
    assert install in str(refused.value)
    assert module in str(refused.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=r"no such folder: .*missing.*\[database\] url"):
        connect(settings(f"sqlite:///{tmp_path}/missing/scores.db"))


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    Path(tmp_path, "scores.db").write_text("these are no scores, " * 100)
    with pytest.raises(DatabaseError, match=r"scores\.db: cannot be reached: file is not a database"):
        connect(settings(f"sqlite:///{tmp_path}/scores.db"))


def test_asking_sqlite_makes_no_file(sqlite_url: str, tmp_path: Path) -> None:
    assert not has_schema(connect(settings(sqlite_url)))
    assert list(tmp_path.iterdir()) == []


def test_asking_makes_no_tables(database_url: str) -> None:
    engine = connect(settings(database_url))
    assert not has_schema(engine)
    assert sa.inspect(engine).get_table_names() == []


def test_opening_makes_the_schema_and_opening_again_changes_nothing(database_url: str) -> None:
    for _ in range(2):
        engine = open_database(settings(database_url))
        assert has_schema(engine)
        with reading(engine) as connection:
            assert schema_revision(connection) == SCHEMA_REVISION


def test_a_current_schema_is_opened_and_asked_without_alembic_luigi_or_pandas(engine: Engine) -> None:
    script = (
        "import sys; from types import SimpleNamespace\n"
        "from tasks.database.connection import open_database, has_schema\n"
        "import tasks.database.batches, tasks.database.ledger, datetime\n"
        "engine = open_database(SimpleNamespace(url=sys.argv[1], connect_timeout=5)); assert has_schema(engine)\n"
        "assert tasks.database.batches.dates_done(engine, {datetime.date(2026, 1, 31): 'none'}) == set()\n"
        "heavy = {'alembic', 'luigi', 'pandas', 'numpy', 'tensorflow'} & set(sys.modules); assert not heavy, heavy"
    )
    run([script, engine.url.render_as_string(hide_password=False)])


def test_processes_that_open_an_empty_database_at_once_all_succeed(database_url: str) -> None:
    script = (
        "import sys; from types import SimpleNamespace\n"
        "from tasks.database.connection import open_database, has_schema\n"
        "import alembic.command\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "assert has_schema(open_database(SimpleNamespace(url=sys.argv[1], connect_timeout=20)))"
    )
    command = [sys.executable, "-c", script, database_url]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    assert [one.stdout.readline() for one in started if one.stdout] == ["ready\n"] * 4
    for one in started:
        assert one.stdin
        one.stdin.write("\n")
        one.stdin.flush()
    assert [(one.communicate(timeout=60)[1][-800:], one.returncode) for one in started] == [("", 0)] * 4


@pytest.mark.parametrize("question", [has_schema, lambda engine: open_database(settings(full_url(engine)))])
def test_a_newer_schema_is_refused_and_left_alone(engine: Engine, question: object) -> None:
    with writing(engine) as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(DatabaseError) as refused:
        question(engine)  # type: ignore[operator]
    assert "version 9999" in str(refused.value)
    assert SCHEMA_REVISION in str(refused.value)
    assert "newer spamscore" in str(refused.value)
    with reading(engine) as connection:
        assert schema_revision(connection) == "9999"


def test_mysql_as_a_name_for_mariadb_makes_the_same_tables(mariadb_url: str) -> None:
    engine = open_database(settings(mariadb_url.replace("mariadb+pymysql", "mysql")))
    with reading(engine) as connection:
        made = connection.exec_driver_sql("SHOW CREATE TABLE spam_scores").one()[1]
    assert "utf8mb4_nopad_bin" in made


def test_a_transaction_that_an_error_leaves_leaves_nothing(engine: Engine) -> None:
    make_numbers(engine)
    with pytest.raises(sa.exc.IntegrityError), writing(engine) as connection:
        change_until_refused(connection)
    assert numbers(engine) == [(1, 0), (2, 0)]


def change_until_refused(connection: sa.Connection) -> None:
    connection.exec_driver_sql("INSERT INTO numbers VALUES (3, 0)")
    connection.exec_driver_sql("UPDATE numbers SET times = 7")
    connection.exec_driver_sql("INSERT INTO numbers VALUES (3, 0)")


def test_a_broken_rule_surfaces_as_integrity_error_and_anything_else_as_ours(engine: Engine) -> None:
    make_numbers(engine)
    with pytest.raises(sa.exc.IntegrityError), writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO numbers VALUES (1, 0)")
    with pytest.raises(DatabaseError, match="no_such_table") as refused, reading(engine) as connection:
        connection.exec_driver_sql("SELECT * FROM no_such_table")
    assert "a secret" not in str(refused.value)


def test_foreign_keys_hold(engine: Engine) -> None:
    with pytest.raises(sa.exc.IntegrityError), writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO rejected_messages VALUES (99, 1, 'a', 'empty text', NULL)")


def test_transactions_that_read_before_they_write_do_not_lose_an_update_on_sqlite(sqlite_url: str) -> None:
    engine = open_database(settings(sqlite_url))
    make_numbers(engine)
    in_threads(2, lambda _: [add_one(engine) for _ in range(25)])
    assert numbers(engine)[0] == (1, 50)


def add_one(engine: Engine) -> None:
    with writing(engine) as connection:
        times = connection.exec_driver_sql("SELECT times FROM numbers WHERE number = 1").scalar_one()
        connection.exec_driver_sql(f"UPDATE numbers SET times = {times + 1} WHERE number = 1")


@pytest.mark.parametrize("server", ["postgresql_url", "mariadb_url"])
def test_a_deadlock_is_tried_again_until_both_are_done(server: str, request: pytest.FixtureRequest) -> None:
    engine = open_database(settings(request.getfixturevalue(server)))
    make_numbers(engine)
    both_hold_one, tries = threading.Barrier(2, timeout=10), []

    def work(first: int, connection: sa.Connection) -> None:
        tries.append(first)
        connection.exec_driver_sql(f"UPDATE numbers SET times = times + 1 WHERE number = {first}")
        if len(tries) <= 2:
            both_hold_one.wait()
        connection.exec_driver_sql(f"UPDATE numbers SET times = times + 1 WHERE number = {3 - first}")

    in_threads(2, lambda place: retried(engine, lambda connection: work(place + 1, connection)))
    assert numbers(engine) == [(1, 2), (2, 2)]
    assert len(tries) == 3


def test_a_session_that_the_server_ends_is_replaced_and_the_work_done(postgresql_url: str) -> None:
    engine = open_database(settings(postgresql_url))
    make_numbers(engine)
    tries = []

    def work(connection: sa.Connection) -> None:
        connection.exec_driver_sql("UPDATE numbers SET times = times + 1 WHERE number = 1")
        tries.append(1)
        if len(tries) == 1:
            end_session(engine, connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        connection.exec_driver_sql("SELECT 1")

    retried(engine, work)
    assert numbers(engine)[0] == (1, 1)
    assert len(tries) == 2


def fail_in(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE numbers SET times = 7")
        raise KeyError


def session(engine: Engine) -> int:
    with reading(engine) as connection:
        if engine.dialect.name == "sqlite":
            return id(connection.connection.dbapi_connection)
        asked = "pg_backend_pid" if engine.dialect.name == "postgresql" else "connection_id"
        return connection.exec_driver_sql(f"SELECT {asked}()").scalar_one()


def test_one_connection_is_kept_from_transaction_to_transaction_and_closed_at_the_end(database_url: str) -> None:
    engine = open_database(settings(database_url))
    make_numbers(engine)
    with connection_kept(engine) as kept:
        sessions = {session(kept) for _ in range(3)}
        with pytest.raises(KeyError):
            fail_in(kept)
        assert numbers(kept) == [(1, 0), (2, 0)]
        with writing(kept) as connection:
            connection.exec_driver_sql("UPDATE numbers SET times = 1 WHERE number = 2")
        assert {session(kept)} == sessions
        assert numbers(engine) == [(1, 0), (2, 1)]
        with reading(kept), reading(kept):  # one more is opened where two are wanted at once
            pass
    assert kept.pool.checkedin() == 0
    if engine.dialect.name == "sqlite":
        assert not Path(f"{engine.url.database}-wal").exists()


def test_a_kept_session_that_the_server_ends_between_transactions_is_replaced(postgresql_url: str) -> None:
    engine = open_database(settings(postgresql_url))
    make_numbers(engine)
    with connection_kept(engine) as kept:
        first = session(kept)
        end_session(engine, first)
        assert session(kept) != first
        end_session(engine, session(kept))
        with writing(kept) as connection:
            connection.exec_driver_sql("UPDATE numbers SET times = 1 WHERE number = 1")
    assert numbers(engine)[0] == (1, 1)


def test_a_rule_that_mysql_checks_is_told_on_a_kept_connection_as_elsewhere(mariadb_url: str) -> None:
    engine = open_database(settings(mariadb_url))
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE positive (number INTEGER CHECK (number > 0))")
    with connection_kept(engine) as kept, pytest.raises(exc.IntegrityError), writing(kept) as connection:
        connection.exec_driver_sql("INSERT INTO positive VALUES (-1)")


def end_session(engine: Engine, session: int) -> None:
    with reading(engine) as other:
        other.exec_driver_sql(f"SELECT pg_terminate_backend({session}, 5000)")


def make_numbers(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (number INTEGER PRIMARY KEY, times INTEGER)")
        connection.exec_driver_sql("INSERT INTO numbers VALUES (1, 0), (2, 0)")


def numbers(engine: Engine) -> list[tuple[int, int]]:
    with reading(engine) as connection:
        return [tuple(row) for row in connection.exec_driver_sql("SELECT * FROM numbers ORDER BY number")]


def full_url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def in_threads(count: int, work: object) -> None:
    errors: list[BaseException] = []

    def caught(place: int) -> None:
        try:
            work(place)  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=caught, args=[place]) for place in range(count)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert errors == []


def run(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, timeout=60)
    assert (done.stderr, done.returncode) == ("", 0)
