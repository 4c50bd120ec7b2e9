"""Tests that a URL with a fault is refused in one line before a connection is opened, without its password."""

from __future__ import annotations

from pathlib import Path

import pytest
from spamscore_command import get_error

from models.errors import DatabaseError, SettingsError
from tasks.database.connection import connect
from tasks.settings.storage import DatabaseSettings

SECRET = "s3cr3t"
NOWHERE = f"me:{SECRET}@127.0.0.1:1/scores"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "expected a SQLAlchemy URL"),
        (SECRET, "expected a SQLAlchemy URL"),
        (f"postgresql://me:{SECRET}/x@host:port/scores", "it cannot be parsed"),
        (f"postgresql://me:a@{SECRET}@host/scores", "must be written %40"),
        (f"postgresql://domain/me:{SECRET}@host/scores", "must be written %40 or %2F"),
        (f"nosuch://me:{SECRET}@host/scores", "SQLAlchemy knows no nosuch"),
        ("sqlite://", "in-memory database"),
        ("sqlite:///:memory:", "in-memory database"),
        ("sqlite:///file:x?mode=memory&uri=true", "in-memory database"),
        ("sqlite://scores.db", "write sqlite:/// before the path"),
    ],
)
def test_the_error_for_an_invalid_url_names_the_setting_without_the_password(url: str, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connect(DatabaseSettings(url))
    assert "[database] url" in str(caught.value)
    assert "SPAMSCORE_DATABASE_URL" in str(caught.value)
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("postgresql+psycopg2", "the driver psycopg2 is not supported. Write postgresql://, which uses psycopg"),
        ("postgresql+asyncpg", "the driver asyncpg is not supported. Write postgresql://, which uses psycopg"),
        ("postgresql+pg8000", "the driver pg8000 is not supported. Write postgresql://, which uses psycopg"),
        ("postgres+psycopg2", "Write postgresql://, which uses psycopg"),
        ("mysql+mysqldb", "the driver mysqldb is not supported. Write mysql://, which uses pymysql"),
        ("mariadb+mariadbconnector", "Write mariadb://, which uses pymysql"),
        ("sqlite+aiosqlite", "the driver aiosqlite is not supported. Write sqlite://, which uses pysqlite"),
    ],
)
def test_another_driver_is_refused_and_the_supported_one_is_named(url: str, advice: str) -> None:
    with pytest.raises(SettingsError) as caught:
        connect(DatabaseSettings(f"{url}://{NOWHERE}"))
    assert advice in str(caught.value)
    assert "pip install" not in str(caught.value)
    assert SECRET not in str(caught.value)


OPTIONS = [
    ("mysql", "ssl-mode=REQUIRED", "no such option: ssl-mode. For TLS: ssl_ca=<file of the CA certificate>, or ssl_ch"),
    ("mysql", "ssl=true", "no such option: ssl. For TLS: ssl_ca="),
    ("mariadb", "useSSL=false", "no such option: useSSL. For TLS: ssl_ca="),
    ("mysql", "ssl_disabled=false", "no such option: ssl_disabled"),
    ("mysql", "conect_timeout=3", "no such option: conect_timeout; did you mean connect_timeout? Options are bind_add"),
    ("mysql", "foo=1", "no such option: foo. Options are bind_address, charset,"),
    ("mysql", "connect_timeout=soon", "invalid literal for int() with base 10: 'soon'"),
    ("mysql", "read_timeout=0", "read_timeout should be > 0"),
    ("mysql", "ssl_ca=/no/such/ca.pem", "ssl_ca = /no/such/ca.pem: no such file"),
    ("mysql", "ssl_ca=luigi.cfg", "its driver refuses an option"),
    ("mysql", "connect_timeout=1&connect_timeout=2", "the option connect_timeout is given 2 times"),
    ("postgresql", "foo=1", "no such option: foo. Options are the connection parameters of libpq"),
    ("postgresql", "ssl=true", "no such option: ssl. For TLS: sslmode=verify-full, or sslmode=require"),
    ("postgresql", "ssl_mode=require", "no such option: ssl_mode. For TLS: sslmode=verify-full"),
    ("postgresql", "aplication_name=x", "did you mean application_name?"),
    ("postgresql", "prepare_threshold=5", "no such option: prepare_threshold"),
    ("postgresql", "sslmode=bogus", 'invalid sslmode value: "bogus"'),
    ("postgresql", "connect_timeout=soon", "bad value for connect_timeout: 'soon'"),
    ("postgresql", "target_session_attrs=x", 'invalid target_session_attrs value: "x"'),
    ("sqlite", "foo=1", "no such option: foo. Options are cached_statements, timeout, uri"),
    ("sqlite", "mode=ro", "no such option: mode"),
    ("sqlite", "timeout=long", "could not convert string to float: 'long'"),
]


@pytest.mark.parametrize(("backend", "option", "reason"), OPTIONS)
def test_the_error_for_an_option_names_it_and_what_there_is(
    backend: str, option: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("luigi.cfg").write_text("not a certificate")
    place = "/scores.db" if backend == "sqlite" else NOWHERE
    with pytest.raises(SettingsError) as caught:
        connect(DatabaseSettings(f"{backend}://{place}?{option}", 1), section="messages")
    assert str(caught.value).startswith(f"[messages] url = {backend}")
    assert reason in str(caught.value)
    assert "SPAMSCORE_MESSAGES_URL" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert not Path("scores.db").exists()


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        ("postgresql", "sslmode=prefer&connect_timeout=1&options=-c%20search_path%3Dsms&host=/nowhere&port=1"),
        ("mysql", "connect_timeout=1&charset=utf8&ssl_check_hostname=false&init_command=SELECT%201"),
        ("mariadb", "connect_timeout=1&collation=utf8mb4_bin"),
    ],
)
def test_options_of_the_driver_are_accepted(backend: str, options: str) -> None:
    with pytest.raises(DatabaseError, match="cannot be reached"):
        connect(DatabaseSettings(f"{backend}://{NOWHERE}?{options}"))


def test_a_uri_of_sqlite_may_have_the_options_of_its_files(tmp_path: Path) -> None:
    url = f"sqlite:///file:{tmp_path}/scores.db?mode=rwc&cache=private&timeout=1&uri=true"
    with connect(DatabaseSettings(url)).connect() as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (number INTEGER)")
    assert Path(tmp_path, "scores.db").exists()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"mysql://{NOWHERE}?ssl-mode=REQUIRED", "no such option: ssl-mode"),
        (f"postgresql://{NOWHERE}?sslmode=bogus", "invalid sslmode value"),
        (f"postgresql+psycopg2://{NOWHERE}", "the driver psycopg2 is not supported"),
    ],
)
def test_a_command_ends_with_the_exit_code_of_a_bad_setting(
    url: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPAMSCORE_DATABASE_URL", url)
    error = get_error(2, "batches")
    assert reason in error
    assert SECRET not in error
