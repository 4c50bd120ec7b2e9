"""Disturbs batches on a Spark cluster at certain moments, and compares what is left with the batch of a local run.

A trigger in PostgreSQL holds the transactions that commit the later chunks of a batch until the test opens a gate. So
the test can strike executors in the middle of a commit, with some chunks committed and others not.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
from chain import (
    DATE,
    LUIGI,
    SMALL,
    CommandResult,
    Settings,
    environment,
    kill_group_on_exit,
    luigi,
    merge_settings,
    write_settings,
)
from drill.baseline import write_inbox
from drill.outcome import Outcome, collect_outcome, compare_outcomes
from drill.reader import Reader, Row, read_published_rows
from eventually import eventually
from servers import PostgresqlServer, admin_connection, temporary_database
from spark_cluster import QUICK_JAVA, SparkCluster
from sqlalchemy.engine import URL

from tasks.database.schema import open_database
from tasks.settings.storage import DatabaseSettings

CHUNK_SIZE = 10  # messages
CHUNKS, FIRST_HELD_CHUNK = 133, 40
_TEMPLATE = "spark_drill"  # the database that those of the batches are copies of
_GATE = 20260131  # key of the advisory lock that the trigger waits for
_TRIGGER = f"""
CREATE FUNCTION wait_for_gate() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared({_GATE}); RETURN NULL; END $$;
CREATE TRIGGER gate AFTER INSERT ON batch_chunks FOR EACH ROW WHEN (NEW.chunk_number >= {FIRST_HELD_CHUNK})
    EXECUTE FUNCTION wait_for_gate()
"""
_OF_DATABASE = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
_COUNT_HELD = f"SELECT count(*) FROM pg_locks WHERE {_OF_DATABASE} AND objid = {_GATE} AND NOT granted"
# The driver holds the lock of the date in a transaction that is idle all the time.
_COUNT_TRANSACTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'spamscore'"
    " AND state != 'idle' AND query NOT LIKE '%%pg_try_advisory%%'"
)
_COUNT_CHUNKS = "SELECT count(*) FROM batch_chunks"
_STACK_TRACE = re.compile(r"^\s+at [\w.$]+\(|Traceback|^\s*Caused by|^Exception", re.MULTILINE)


def make_settings() -> Settings:
    """Returns the settings of the local run."""
    messages = {"source": "file", "path": "inbox.csv"}
    return merge_settings(SMALL, {"messages": messages, "scoring": {"chunk_size": str(CHUNK_SIZE)}})


def create_template(server: URL) -> None:
    """Creates a database with the tables and the trigger."""
    with admin_connection(server) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {_TEMPLATE}")
    url = server.set(database=_TEMPLATE)
    open_database(DatabaseSettings(url=url.render_as_string(hide_password=False))).dispose()
    with admin_connection(url) as connection:
        connection.exec_driver_sql(_TRIGGER)


class SparkDrill:
    """A cluster, a database server, and the outcome of a local run, which that of each batch must equal."""

    def __init__(self, folder: Path, trained: Path, cluster: SparkCluster, server: PostgresqlServer) -> None:
        self.cluster, self.server, self._folder = cluster, server, folder
        self._extracted = Path(shutil.copytree(trained, folder / "extracted"))
        write_inbox(self._extracted / "inbox.csv")
        write_settings(self._extracted, make_settings())
        create_template(server.url)
        (folder / "tmp").mkdir()
        with self._database() as url:
            text = url.render_as_string(hide_password=False)
            local = luigi(self._extracted, "ScoreBatch", "--date", DATE, SPAMSCORE_DATABASE_URL=text)
            assert local.code == 0, local.output
            self.outcome = read_outcome(url, self._extracted, folder / "tmp")
        shutil.rmtree(self._extracted / "artifacts" / "receipts")

    @contextlib.contextmanager
    def open_batch(self, options: str = "", **spark: str) -> Iterator[SparkBatch]:
        """Creates a folder with the messages and the model, and an empty database with a reader; deletes them."""
        with (
            tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as name,
            self._database() as url,
            Reader(url, [], self.outcome.rows) as reader,
        ):
            shutil.copytree(self._extracted, Path(name, "work"))
            Path(name, "tmp").mkdir()
            with contextlib.closing(SparkBatch(Path(name), url, reader, self)) as batch:
                batch.configure(options, **spark)
                yield batch

    def _database(self) -> contextlib.AbstractContextManager[URL]:
        return temporary_database(self.server.url, _TEMPLATE)


def read_outcome(url: URL, folder: Path, temporary: Path) -> Outcome:
    """Reads what runs left in a database, a working folder and a folder for temporary files."""
    with admin_connection(url) as connection:
        return collect_outcome(connection, folder / "artifacts", temporary)


class SparkRun:
    """A run of the command in progress."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process, self._output = process, output

    def read_output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def require_running(self) -> None:
        assert self.process.poll() is None, f"the run ended early:\n{self.read_output()}"

    def find_java(self) -> list[psutil.Process]:
        """Returns the JVM of the run."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in children if process.name() == "java"]

    def kill(self) -> None:
        """Kills Luigi and the process of its task, but not the JVM that this process has started."""
        java = self.find_java()
        for process in psutil.Process(self.process.pid).children(recursive=True):
            if process not in java:
                process.kill()
        self.process.kill()
        self.process.wait()


class SparkBatch:
    """A batch that is scored on the cluster, in a folder and a database of its own.

    Attributes:
        folder: working folder of the runs.
        url: URL of the database.
    """

    def __init__(self, base: Path, url: URL, reader: Reader, drill: SparkDrill) -> None:
        self.folder, self.url = base / "work", url
        self._base, self._reader, self._drill, self.cluster = base, reader, drill, drill.cluster
        self._gate, self._runs = contextlib.ExitStack(), 0
        self._started = contextlib.ExitStack()

    def configure(self, options: str = "", **spark: str) -> None:
        """Sets values of [spark] for the following runs."""
        values = {"master": self.cluster.url, "memory": "1536", "options": options, **spark}
        settings = {"scoring": {"engine": "spark"}, "spark": values}
        write_settings(self.folder, merge_settings(make_settings(), settings))

    def close(self) -> None:
        """Ends everything that was started."""
        self._gate.close()
        self._started.close()

    def start(self, **variables: str) -> SparkRun:
        """Starts the command in a process group of its own."""
        self._runs += 1
        output = self._base / f"output-{self._runs}"
        variables |= {
            **QUICK_JAVA, "SPAMSCORE_DATABASE_URL": self.url.render_as_string(hide_password=False),
            "TMPDIR": f"{self._base}/tmp",
        }  # fmt: skip
        with output.open("wb") as file:
            process = subprocess.Popen(
                [LUIGI, "--module", "pipeline", "ScoreBatch", "--date", DATE], cwd=self.folder, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True, env=environment(**variables),
            )  # fmt: skip
        self._started.enter_context(kill_group_on_exit(process))
        return SparkRun(process, output)

    def finish(self, run: SparkRun) -> CommandResult:
        """Waits for the end of a run. Its JVM ends with it, and so does its application."""
        java: list[psutil.Process] = []
        while run.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                java = run.find_java() or java
            time.sleep(0.1)
        assert not [process for process in java if process.is_running()]
        eventually(self.cluster.state, lambda state: state["activeapps"] == [])
        return CommandResult(run.process.returncode, run.read_output())

    def run(self) -> CommandResult:
        """Runs the command."""
        return self.finish(self.start())

    def start_held(self, **variables: str) -> SparkRun:
        """Starts the command, and waits until some chunks are committed and each executor commits another one."""
        self.close_gate()
        run = self.start(**variables)
        self.wait_for_held(run)
        return run

    def close_gate(self) -> None:
        """Holds all transactions that commit a chunk from the first held one on."""
        connection = self._gate.enter_context(admin_connection(self.url))
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({_GATE})")

    def open_gate(self) -> None:
        """Lets the held transactions go on."""
        self._gate.close()

    def wait_for_held(self, run: SparkRun) -> None:
        """Waits until the trigger holds a transaction of each executor."""
        with admin_connection(self.url) as connection:
            eventually(
                lambda: connection.exec_driver_sql(_COUNT_HELD).scalar_one(),
                lambda held: held == len(self.cluster.workers), run.require_running, run.read_output,
            )  # fmt: skip

    @contextlib.contextmanager
    def stopped_between_commits(self) -> Iterator[list[psutil.Process]]:
        """Opens the gate, and stops the Python processes of executors, each within a chunk that it has not committed.

        They continue at the end of the block.
        """
        workers = self.cluster.find_python_workers()
        with admin_connection(self.url) as connection:
            self.open_gate()
            while True:
                send(workers, signal.SIGSTOP)
                if connection.exec_driver_sql(_COUNT_TRANSACTIONS).scalar_one() == 0:
                    break
                send(workers, signal.SIGCONT)
            assert connection.exec_driver_sql(_COUNT_CHUNKS).scalar_one() < CHUNKS
        yield workers
        send(workers, signal.SIGCONT)

    def require_result(self, result: CommandResult) -> None:
        """Checks that a run succeeded, and that the batch is that of the local run."""
        assert result.code == 0, result.output
        self.require_outcome()

    def require_outcome(self) -> None:
        """Checks that the batch is that of the local run, and that the reader never saw a part of it."""
        outcome = read_outcome(self.url, self.folder, self._base / "tmp")
        verdict = compare_outcomes(outcome, self._drill.outcome, self._reader)
        assert verdict.good, verdict

    def read_rows(self) -> list[Row]:
        """Returns the published rows."""
        with admin_connection(self.url) as connection:
            return read_published_rows(connection)

    def require_one_line(self, result: CommandResult, pattern: str) -> None:
        """Checks that a run failed with one line for the user, without a stack trace, and published nothing."""
        assert result.code not in (0, 124), result.output
        assert re.search(pattern, result.last_line), result.output
        assert not _STACK_TRACE.search(result.output), result.output
        assert sum(line.startswith("spamscore: ") for line in result.output.splitlines()) == 1, result.output
        assert self._reader.wrong_readings == []


def send(processes: Sequence[psutil.Process], number: int) -> None:
    """Sends a signal to processes that may have ended."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
