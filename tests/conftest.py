"""The real databases that tests run against, SQLite in a folder of the test's own and the servers of `servers`; and a
folder in which the whole chain ran.

A server starts when the first test asks for it, and ends with the session; each test has a database of its own on it.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import servers
from chain import DATE, SMALL, Done, luigi_cold, write_settings
from sqlalchemy.engine import URL, Engine

# In tests, and in the commands they start, compiled loops look whether each place is inside its array; what is compiled
# so is kept apart from what is not. Numba reads both as it is imported.
os.environ["NUMBA_BOUNDSCHECK"] = "1"
os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "numba")

with warnings.catch_warnings():
    # Luigi warns as it is imported unless a luigi.cfg sets [core] autoload_range, and here a warning is an error.
    warnings.filterwarnings("ignore", "(?s).*autoload", DeprecationWarning)
    import luigi  # noqa: F401
    from luigi.configuration import LuigiConfigParser
    from luigi.task_register import Register

from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings


def pytest_configure() -> None:
    """Times no example, for the first may compile.

    Takes ^C, for the commands that are interrupted: what a script starts in the background is told to ignore it.
    """
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take a minute and more, the longest first: one that comes last would keep one worker waiting for the other.
LONGEST = (
    "test_nightly_chain.py", "test_training.py", "test_drill.py", "test_security.py", "test_bad_messages.py",
    "test_nightly.py", "test_quality.py", "test_command_line.py", "test_bad_artifacts.py", "test_labelling.py",
    "test_bad_corpora.py", "test_distribution.py", "test_reports.py", "test_export.py", "test_ledger.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda one: places.get(one.path.name, len(LONGEST)))


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
    with servers.database_on(postgresql_server) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def mariadb_url(mariadb_server: URL) -> Iterator[str]:
    with servers.database_on(mariadb_server) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[URL]:
    """PostgreSQL 18 on a Unix socket; `spamscore` is its user with a password, `postgres` needs none."""
    with servers.postgresql() as server:
        yield server.url


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[URL]:
    """MariaDB on a loopback port; `spamscore` is its user with a password."""
    if missing := servers.missing_for_mariadb():
        message = f"MariaDB is left out, for {' and '.join(missing)} are not here: apt-get install mariadb-server"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with servers.mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def _chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A folder in which the whole chain ran once, for all workers of this pytest, and what it said."""
    of_worker = tmp_path_factory.getbasetemp()
    folder = (of_worker.parent if "PYTEST_XDIST_WORKER" in os.environ else of_worker) / "chain"
    said = folder.with_name("chain.log")
    with open(folder.with_name("chain.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            folder.mkdir(exist_ok=True)  # the chain may have failed in another worker
            write_settings(folder, SMALL)
            done = luigi_cold(folder, "ScoreBatch", "--date", DATE)
            assert done.code == 0, done.output
            said.write_text(done.output, encoding="utf-8")
    return folder, Done(0, said.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(_chain: tuple[Path, Done], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A copy of the folder in which the whole chain ran once, and what it said."""
    return Path(shutil.copytree(_chain[0], tmp_path_factory.mktemp("finished"), dirs_exist_ok=True)), _chain[1]


@pytest.fixture(scope="module")
def trained(_chain: tuple[Path, Done], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another copy, in which a model is in service and nothing is extracted or scored."""
    without = shutil.ignore_patterns("spamscore.db*", "snapshots", "receipts")
    return Path(shutil.copytree(_chain[0], tmp_path_factory.mktemp("trained"), dirs_exist_ok=True, ignore=without))
