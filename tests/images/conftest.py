"""Fixtures: the images, databases on PostgreSQL behind its socket, and a night in a container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from chain import DATE, SMALL, CommandResult, write_settings
from container_engine import UID, Engine, SocketDatabase, container_engine, find_missing_programs, give, socket_database
from missing import skip_or_fail
from servers import PostgresqlServer


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """podman, with the images of the night and of luigid."""
    if missing := find_missing_programs():
        message = f"no images can be built: missing {', '.join(missing)}"
        skip_or_fail(message)
    with container_engine() as engine:
        engine.build("batch", "luigid")
        yield engine


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresqlServer]:
    with servers.postgresql() as server:
        yield server


@pytest.fixture
def database(server: PostgresqlServer) -> Iterator[SocketDatabase]:
    with socket_database(server.url) as database:
        yield database


@pytest.fixture(scope="session")
def night_database(server: PostgresqlServer) -> Iterator[SocketDatabase]:
    """The database of `night`."""
    with socket_database(server.url) as database:
        yield database


@pytest.fixture(scope="session")
def night(
    engine: Engine, night_database: SocketDatabase, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CommandResult]:
    """A working folder in which a container ran the whole chain with a small network, and the output."""
    folder = tmp_path_factory.mktemp("night")
    write_settings(folder, {**SMALL, "training": {**SMALL["training"], "processes": "2"}})
    options = (*night_database.options, *give(folder, UID))
    return folder, engine.run("spamscore", "ScoreBatch", "--date", DATE, options=options)
