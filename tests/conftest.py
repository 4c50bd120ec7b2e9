"""Fixtures: databases on SQLite, PostgreSQL and MariaDB, settings of one test, and a folder in which the chain has run.

A database server starts when the first test needs it and runs until the session ends. Each test has its own database.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import object_store as object_stores
import pytest
import servers
from chain import DATE, SMALL, CommandResult, luigi_cold, write_settings
from missing import skip_or_fail
from object_store import ObjectStore
from sqlalchemy.engine import URL, Engine

# In tests, and in the commands that they start, compiled loops check array bounds. Code compiled with these checks has
# a cache of its own. Numba reads both variables when it is imported.
os.environ["NUMBA_BOUNDSCHECK"] = "1"
os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "numba")

with warnings.catch_warnings():
    # On import Luigi warns if no luigi.cfg sets [core] autoload_range, and a warning is an error in tests.
    warnings.filterwarnings("ignore", "(?s).*autoload", DeprecationWarning)
    import luigi  # noqa: F401
    from luigi.configuration import LuigiConfigParser
    from luigi.task_register import Register

from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings


def pytest_configure() -> None:
    """Disables Hypothesis' deadline, because the first example may compile, and enables ^C.

    Tests interrupt commands with ^C, but a script starts its background processes with SIGINT ignored.
    """
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take a minute or more, longest first: a long file at the end would leave the other workers idle.
LONGEST = (
    "test_commands.py", "test_nightly_chain.py", "test_engine.py", "test_distribution.py",
    "test_rejected_messages.py", "test_side_by_side.py", "test_spark_drill.py", "test_machines.py", "test_loop.py",
    "test_drill.py", "test_replicas.py", "test_security.py", "test_bad_messages.py", "test_nightly.py",
    "test_one_version_everywhere.py", "test_quality.py", "test_bad_artifacts.py", "test_labelling.py",
    "test_bad_corpora.py", "test_reports.py", "test_kubernetes_processes.py", "test_export.py", "test_ledger.py",
    "test_selftest.py", "test_gpu.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(LONGEST)))


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database; the test runs on each kind of database."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database with all tables; the test runs on each kind of database."""
    with open_engine(database_url) as engine:
        yield engine


@contextlib.contextmanager
def open_engine(url: str) -> Iterator[Engine]:
    engine = open_database(DatabaseSettings(url=url))
    yield engine
    engine.dispose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/scores.db"


@pytest.fixture
def set_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets settings for one test, in a temporary working folder: `set_settings("corpus", source="file")`."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SPAMSCORE_")]:
        monkeypatch.delenv(name)
    parser: Any = LuigiConfigParser.instance()
    before = copy.deepcopy(parser._sections)
    Register.clear_instance_cache()
    # Importing `pipeline` sets this to true; here tasks run in the process of the test.
    parser.set("worker", "force_multiprocessing", "false")

    def set_values(section: str, **values: str) -> None:
        for key, value in values.items():
            parser.set(section, key, value)

    yield set_values
    parser._sections = before
    Register.clear_instance_cache()


@pytest.fixture
def machine_in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone of this machine is that of Tokyo."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def postgresql_url(postgresql_server: URL) -> Iterator[str]:
    with servers.temporary_database(postgresql_server) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def mariadb_url(mariadb_server: URL) -> Iterator[str]:
    with servers.temporary_database(mariadb_server) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[URL]:
    """The URL of PostgreSQL 18 on a Unix socket, with the user `spamscore`, who has a password."""
    with servers.postgresql() as server:
        yield server.url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[URL]:
    """The URL of MariaDB on a loopback port, with the user `spamscore`, who has a password."""
    if missing := servers.find_missing_mariadb_programs():
        message = f"skipped: {' and '.join(missing)} not installed (apt-get install mariadb-server)"
        skip_or_fail(message)
    with servers.mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """A server that speaks S3, on loopback, with the bucket ``bucket``."""
    with object_stores.object_store() as store:
        store.create_bucket("bucket")
        yield store


@pytest.fixture
def s3(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The S3 server, with the variables with which this process finds it. Its failures end with the test."""
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    object_store.heal()
    yield object_store
    object_store.heal()


@pytest.fixture(scope="session")
def _chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CommandResult]:
    """A folder in which the whole chain ran once, shared by all workers of this session, and the result of the run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "chain"
    output = folder.with_name("chain.log")
    with open(folder.with_name("chain.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not output.exists():
            folder.mkdir(exist_ok=True)  # the chain may have failed in another worker
            write_settings(folder, SMALL)
            done = luigi_cold(folder, "ScoreBatch", "--date", DATE)
            assert done.code == 0, done.output
            output.write_text(done.output, encoding="utf-8")
    return folder, CommandResult(0, output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(
    _chain: tuple[Path, CommandResult], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CommandResult]:
    """A copy of the folder in which the whole chain ran once, and the result of that run."""
    return Path(shutil.copytree(_chain[0], tmp_path_factory.mktemp("finished"), dirs_exist_ok=True)), _chain[1]


@pytest.fixture(scope="module")
def trained(_chain: tuple[Path, CommandResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which a model is in service, but no messages are extracted or scored."""
    without = shutil.ignore_patterns("spamscore.db*", "snapshots", "receipts")
    return Path(shutil.copytree(_chain[0], tmp_path_factory.mktemp("trained"), dirs_exist_ok=True, ignore=without))
