"""Tests that what a new user meets first is one line with the way out: missing rights, limits, a wrong name."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
import sqlalchemy as sa
from chain import environment
from other_user import readable_folder, run_without_write_permission
from published_batches import DATE, publish
from spamscore_command import SPAMSCORE, get_error, get_output, get_rows
from sqlalchemy.engine import URL

from models.errors import DatabaseError
from tasks.database.driver_errors import find_advice
from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings

ROOT = Path(__file__).resolve().parents[3]
SCORES = {"m-1": 0.998, "m-2": 0.25}


def render(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def open_with(url: URL, credentials: str = "") -> str:
    """Returns the error of opening a database, after checking that it is one line without the credentials."""
    with pytest.raises(DatabaseError) as caught:
        open_database(DatabaseSettings(render(url), 5))
    text = str(caught.value)
    assert "\n" not in text
    assert (credentials or str(url.password)) not in text
    return text


@pytest.fixture
def published(postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> URL:
    """A PostgreSQL database with one published batch; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    engine = open_database(DatabaseSettings(postgresql_url))
    publish(engine, SCORES)
    engine.dispose()
    return sa.make_url(postgresql_url)


@contextlib.contextmanager
def reading(database: URL, monkeypatch: pytest.MonkeyPatch, *relations: str) -> Iterator[URL]:
    """Sets the database of the commands, with a role that may only read these relations."""
    grants = [f"GRANT SELECT ON {relation} TO {{role}}" for relation in relations]
    with servers.temporary_role(database, *grants) as url:
        monkeypatch.setenv("SPAMSCORE_DATABASE_URL", render(url))
        yield url


def test_a_role_that_may_only_read_the_view_reads_the_scores(published: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    with reading(published, monkeypatch, "published_scores"):
        rows = get_rows("scores", str(DATE))
        assert rows == [["0.998000", "true", "m-1"], ["0.250000", "false", "m-2"]]
        assert get_output("scores", str(DATE), "--csv").count("\n") == 3
        assert get_output("scores", str(DATE), "--json").count('"message_id"') == 2
        assert len(get_rows("scores", str(DATE), "--flagged")) == 1
        assert get_output("scores", str(DATE), "--flagged", "--order", "message_id", "--plain") != ""


def test_a_user_of_mariadb_who_may_only_read_the_view_reads_the_scores(
    mariadb_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = open_database(DatabaseSettings(mariadb_url))
    publish(engine, SCORES)
    url = sa.make_url(mariadb_url)
    with servers.admin_connection(url) as connection:
        connection.exec_driver_sql("CREATE USER viewer@'127.0.0.1' IDENTIFIED BY 'r'")
        try:
            connection.exec_driver_sql(f"GRANT SELECT ON {url.database}.published_scores TO viewer@'127.0.0.1'")
            monkeypatch.setenv("SPAMSCORE_DATABASE_URL", render(url.set(username="viewer", password="r")))
            assert [row[2] for row in get_rows("scores", str(DATE))] == ["m-1", "m-2"]
            assert "Grant it: GRANT SELECT ON score_batches TO viewer." in get_error(35, "batches")
        finally:
            connection.exec_driver_sql("DROP USER viewer@'127.0.0.1'")


def test_no_flagged_message_is_no_error_for_a_role_that_may_only_read_the_view(
    published: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_database(DatabaseSettings(render(published)))
    publish(engine, {"m-1": 0.1})
    engine.dispose()
    with reading(published, monkeypatch, "published_scores"):
        assert get_output("scores", str(DATE), "--flagged") == ""


@pytest.mark.parametrize(
    ("arguments", "table"),
    [
        (["batches"], "score_batches"),
        (["summary", str(DATE)], "score_batches"),
        (["summary"], "score_batches"),
        (["verify", str(DATE)], "score_batches"),
        (["scores", "2020-01-01"], "score_batches"),
        (["labels"], "labels"),
    ],
)
def test_a_command_that_needs_more_than_the_view_names_the_table_and_the_grant(
    published: URL, monkeypatch: pytest.MonkeyPatch, arguments: list[str], table: str
) -> None:
    with reading(published, monkeypatch, "published_scores") as url:
        error = get_error(35, *arguments)
        assert f"permission denied for table {table}. Grant it: GRANT SELECT ON {table} TO {url.username}." in error
        assert str(url.password) not in error


def test_a_role_with_the_right_to_one_more_table_runs_its_command(
    published: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading(published, monkeypatch, "published_scores", "score_batches"):
        assert get_rows("batches")[0][1:3] == [str(DATE), "published"]
        assert "there is no published batch for 2020-01-01" in get_error(1, "scores", "2020-01-01")


def test_a_wrong_database_name_is_reported(postgresql_url: str, mariadb_url: str) -> None:
    url = sa.make_url(postgresql_url).set(database="no_such")
    assert 'database "no_such" does not exist. Create the database, or correct its name in the URL.' in open_with(url)
    url = sa.make_url(mariadb_url).set(database="no_such")
    assert "Unknown database 'no_such'. Create the database, or correct its name in the URL." in open_with(url)


def test_a_role_that_may_not_create_tables_is_reported(postgresql_url: str) -> None:
    with servers.temporary_role(sa.make_url(postgresql_url)) as url:
        error = open_with(url)
    assert "permission denied for schema public" in error
    assert f"Grant it: GRANT USAGE, CREATE ON SCHEMA public TO {url.username}." in error


def test_a_read_only_database_is_reported(postgresql_url: str) -> None:
    url = sa.make_url(postgresql_url)
    with servers.admin_connection(url) as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {url.database} SET default_transaction_read_only = on")
    assert "read-only, as a replica is: connect to the primary server." in open_with(url)


def test_a_limit_of_connections_is_reported(postgresql_url: str) -> None:
    with servers.temporary_role(sa.make_url(postgresql_url), "ALTER ROLE {role} CONNECTION LIMIT 0") as url:
        error = open_with(url)
    assert "too many connections for role" in error
    assert "Run again later, or raise the limit of connections of the server or the role." in error


def test_a_user_without_rights_is_reported_on_mariadb(mariadb_url: str) -> None:
    url = sa.make_url(mariadb_url)
    with servers.admin_connection(url) as connection:
        connection.exec_driver_sql("CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'r'")
        try:
            assert "to database" in (error := open_with(url.set(username="reader", password="r"), "reader:r@"))
            assert "Grant the user ALL PRIVILEGES on the database." in error
            connection.exec_driver_sql(f"GRANT SELECT ON {url.database}.* TO reader@'127.0.0.1'")
            error = open_with(url.set(username="reader", password="r"), "reader:r@")
            assert "CREATE command denied" in error
            assert "Grant the user ALL PRIVILEGES on the database." in error
        finally:
            connection.exec_driver_sql("DROP USER reader@'127.0.0.1'")


@pytest.mark.parametrize(
    ("url", "text", "advice"),
    [
        ("postgresql", 'could not extend file "base/5/1": No space left on device', "Free disk space"),
        ("sqlite", "database or disk is full", "Free disk space"),
        ("mysql", "The table 'spam_scores' is full", "Free disk space"),
        ("postgresql", 'no pg_hba.conf entry for host "10.0.0.7", user "u", no encryption', "add ?sslmode=require"),
        ("mysql", "Connections using insecure transport are prohibited while --require_secure_", "add ?ssl_ca="),
        ("mysql", "Access denied for user 'u'@'h' (using password: YES)", "asks for TLS gives the same answer"),
        ("mysql", "The MySQL server is running with the --read-only option so it cannot", "the primary server"),
        ("mysql", "Too many connections", "raise the limit of connections"),
        ("postgresql", "FATAL: sorry, too many clients already", "raise the limit of connections"),
        ("postgresql", "FATAL: remaining connection slots are reserved", "raise the limit of connections"),
        ("postgresql", "unsupported startup parameter: options", "PgBouncer's ignore_startup_parameters"),
        ("postgresql", "the table was renamed", ""),
    ],
)
def test_a_message_of_a_server_has_its_way_out(url: str, text: str, advice: str) -> None:
    error = sa.exc.OperationalError("SELECT 1", None, Exception(1, text))
    found = find_advice(error, sa.make_url(f"{url}:///scores.db"))
    assert advice in found
    assert bool(advice) == bool(found)


def test_a_reader_without_write_permission_is_told_how_to_read_the_scores() -> None:
    with readable_folder() as folder:
        engine = open_database(DatabaseSettings(f"sqlite:///{folder}/spamscore.db"))
        publish(engine, SCORES)
        engine.dispose()
        done = run_without_write_permission(folder, str(SPAMSCORE), "batches", cwd=folder, env=environment())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (35, "", 1)
    assert f"this user may not write to {folder}. Grant write permission on the folder; or run" in done.stderr


def test_a_file_that_its_user_may_not_read_is_reported() -> None:
    with readable_folder() as folder:
        path = folder / "spamscore.db"
        open_database(DatabaseSettings(f"sqlite:///{path}")).dispose()
        path.chmod(0o000)
        done = run_without_write_permission(folder, str(SPAMSCORE), "batches", cwd=folder, env=environment())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (35, "", 1)
    assert "This user may not read spamscore.db: grant read permission" in done.stderr


def test_a_folder_that_its_user_may_not_enter_is_reported() -> None:
    with readable_folder() as folder:
        (folder / "private").mkdir(mode=0o700)
        (folder / "private").chmod(0o000)
        variables = environment(SPAMSCORE_DATABASE_URL="sqlite:///private/spamscore.db")
        done = run_without_write_permission(folder, str(SPAMSCORE), "batches", cwd=folder, env=variables)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (35, "", 1)
    assert "no such folder: private, or this user may not enter it." in done.stderr


def test_a_folder_in_place_of_a_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="is a folder: correct the URL"):
        open_database(DatabaseSettings(f"sqlite:///{tmp_path}"))


def test_a_file_that_its_user_may_only_read_is_reported_on_writing() -> None:
    with readable_folder() as folder:
        path = folder / "empty.db"
        path.touch(0o444)
        script = "import sys; from types import SimpleNamespace; from tasks.database.schema import open_database\n"
        script += "try: open_database(SimpleNamespace(url=sys.argv[1], connect_timeout=1))\n"
        script += "except Exception as error: print(error)"
        url = f"sqlite:///{path}"
        done = run_without_write_permission(folder, sys.executable, "-c", script, url, cwd=ROOT)
    assert "This user may not write to" in done.stdout
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
