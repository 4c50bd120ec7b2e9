"""The engine that scores on a Spark cluster: hands out the chunks, watches the ledger, and reports what was committed.

No message passes through the driver: executors read their chunks from the snapshot and commit them to the database.
The driver learns from the ledger what is done, so that it does not matter which executor committed a chunk, or how
often Spark ran a task.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import models.errors
from models.errors import ClusterError, DatabaseError, SettingsError, SpamscoreError
from models.settings import DeviceSettings
from models.trained_model.description import DESCRIPTION, read_description
from tasks.artifacts.folders import read_seal, verify_file
from tasks.artifacts.shared import put_folder, shared_address
from tasks.database.batches import count_committed
from tasks.database.ledger import find_committed_chunks
from tasks.scheduler.termination import terminate_if_requested
from tasks.scoring.batch import BatchWork, CommittedMessages
from tasks.scoring.overlap import StageSeconds
from tasks.scoring.spark.context import SparkConnection, describe_failure, open_context, read_message
from tasks.scoring.spark.executor import DATABASE_URL, ArtifactReference, ExecutorJob, ModelReference, score_part
from tasks.scoring.spark.software import describe_software
from tasks.settings.loading import FILE_SUFFIX, load
from tasks.settings.operation import ConsoleSettings
from tasks.settings.scoring import ScoringSettings
from tasks.settings.spark import SparkSettings
from tasks.settings.storage import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from tasks.scheduler.progress import ProgressReport

log = logging.getLogger("spamscore")

_CHUNKS_PER_TASK = 20  # a task has its start and its end; so many chunks make them small beside it
_POLL_SECONDS = 0.5
_KEPT = "Committed chunks are kept: run the same command again."
_PACKAGE_ADVICE = (
    "Install this project for the Python of the executors, name another one in [spark] python, or send one in [spark] "
    "archive."
)
_MEMORY_ADVICE = (
    "Its memory was probably too small: raise [spark] memory, and spark.executor.pyspark.memory if [spark] options has "
    f"it. {_KEPT}"
)
# What Python, Spark and the cluster managers say of an executor that has too little memory, or was killed for it. An
# ImportError is a library that cannot be loaded, although the executor has the packages of the driver.
_MEMORY_ERROR = re.compile(
    r"\bImportError|MemoryError|Cannot allocate memory|OutOfMemory|OOMKilled|memory limits|\b137\b"
    r"|worker exited unexpectedly"
)
# The last line of the traceback of an executor: the module of the error, its class and its message.
_EXECUTOR_ERROR = re.compile(r"^(?:([a-z_][\w.]*)\.)?([A-Z]\w*(?:Error|Exception)): (.*)$", re.MULTILINE)


class SparkEngine:
    """Scores chunks in the executors of a Spark application, which is started when the first date needs it.

    Args:
        training: the folder of the training.
        checkpoint: the checkpoint whose weights are loaded; None for the final weights of the training.
        progress: the report of the task: links Spark's web page, and says whether the task is paused.

    Raises:
        SettingsError: the database is a SQLite file, which only this machine can write.
    """

    def __init__(self, training: Path, checkpoint: str | None, progress: ProgressReport) -> None:
        self._settings, self._database_settings = load(SparkSettings), load(DatabaseSettings)
        self._training, self._checkpoint, self._progress = training, checkpoint, progress
        self._require_shared_database()

    def _require_shared_database(self) -> None:
        if self._database_settings.url.startswith("sqlite") and not self._settings.is_local:
            raise SettingsError(
                f"[database] url: a SQLite file cannot be written by several machines. With [spark] master = "
                f"{self._settings.master}, expected a database server, such as postgresql://…; or set [scoring] engine "
                "= local."
            )

    @property
    def devices(self) -> str:
        """The number of executors and their cores."""
        return f"spark: executors: {self._settings.executor_count}, cores: {self._settings.executor_cores}"

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint that executors read the weights from."""
        return self._checkpoint or str(read_description(verify_file(self._training, DESCRIPTION))["checkpoint"])

    def close(self) -> None:
        """Stops the application, if a date needed one."""
        connection = self.__dict__.pop("_connection", None)
        if connection is not None:
            connection.close()

    @cached_property
    def _connection(self) -> SparkConnection:
        environment: dict[str, str] = {}
        if self._settings.database_url == "driver":
            # Empty, because an executor that inherits the file's variable would have two values.
            environment |= {DATABASE_URL: self._database_settings.url, DATABASE_URL + FILE_SUFFIX: ""}
        started = time.monotonic()
        connection = open_context(self._settings, "spamscore ScoreBatch", environment)
        log.info(
            "Spark application %s on %s started in %.0f s",
            connection.context.applicationId, self._settings.master, time.monotonic() - started,
        )  # fmt: skip
        if connection.context.uiWebUrl:
            self._progress.link(connection.context.uiWebUrl)
        return connection

    def score_chunks(self, database: Engine, work: BatchWork, seconds: StageSeconds) -> Generator[CommittedMessages]:
        """Has executors score and commit chunks; see `tasks.scoring.batch.ScoringEngine`.

        Raises:
            SpamscoreError: an executor failed with this error, also when Spark ran its task again.
            ClusterError: the cluster failed, or no chunk was committed for [spark] timeout.
        """
        job, ledger = self._make_job(work), _LedgerWatch(database, work.batch_id)
        left = list(work.chunk_numbers)
        try:
            while left:
                with _RunningJob(self._connection, job, left, self._settings.executor_count, self._progress) as running:
                    yield from self._watch(running, ledger)
                    for part in running.results():
                        for stage, value in part.items():
                            seconds.add(stage, value)
                if not running.was_paused:
                    return
                committed = find_committed_chunks(database, work.batch_id)
                left = [number for number in left if number not in committed]
        except ClusterError:
            self.close()  # the next date of the run gets a new application
            raise

    def _watch(self, running: _RunningJob, ledger: _LedgerWatch) -> Generator[CommittedMessages]:
        """Yields what executors commit, until the job has ended."""
        advanced = time.monotonic()
        while True:
            ended = running.wait(_POLL_SECONDS)  # before the ledger is read, so that nothing is missed at the end
            terminate_if_requested()
            try:
                committed = ledger.read_new()
            except DatabaseError:
                if ended:
                    raise
                # Perhaps a restart: executors retry their commits. If they give up, the job ends.
                committed = CommittedMessages(0, 0)
            if committed.messages:
                advanced = time.monotonic()
            elif not ended and time.monotonic() - advanced > self._settings.timeout:
                raise self._stall_error()
            # A pause blocks the report and cancels the job, so the next turn finds the job ended, and takes the pause
            # for no stall.
            yield committed
            if ended:
                return

    def _stall_error(self) -> ClusterError:
        return ClusterError(
            f"[spark] master = {self._settings.master}: no chunk was committed for {self._settings.timeout} s "
            f"([spark] timeout). Are there executors with {self._settings.executor_cores} free cores and "
            f"{self._settings.memory} MiB, and do they reach this machine and the database? Spark's page: "
            f"{self._connection.context.uiWebUrl}. {_KEPT}"
        )

    def _make_job(self, work: BatchWork) -> ExecutorJob:
        model = ModelReference(
            training=_share(self._training),
            checkpoint=self._checkpoint,
            devices=dataclasses.replace(load(DeviceSettings), threads=self._settings.executor_cores),
            batch_size=load(ScoringSettings).batch_size,
            tensorflow_log=load(ConsoleSettings).tensorflow_log,
        )
        return ExecutorJob(
            work=dataclasses.replace(work, chunk_numbers=()),
            snapshot=_share(work.snapshot),
            model=model,
            queue=load(ScoringSettings).queue,
            connect_timeout=self._database_settings.connect_timeout,
            transaction_timeout=self._settings.timeout // 2,  # so that the chunk is free before this run gives up
        )


def _share(folder: Path) -> ArtifactReference:
    """Returns a reference to a folder of artifacts, after uploading it if [artifacts] shared is set."""
    address = shared_address(folder)
    if address:
        put_folder(folder, address)
    return ArtifactReference(folder.resolve(), address, read_seal(folder))


def split_evenly(chunk_numbers: Sequence[int], executors: int) -> list[list[int]]:
    """Splits chunks into parts, one for each task: large ones first, and small ones at the end.

    The last parts have one chunk, so that executors end at about the same time (guided self-scheduling,
    Polychronopoulos and Kuck 1987).
    """
    parts, start = [], 0
    while start < len(chunk_numbers):
        size = min(_CHUNKS_PER_TASK, max(1, (len(chunk_numbers) - start) // (2 * executors)))
        parts.append(list(chunk_numbers[start : start + size]))
        start += size
    return parts


class _LedgerWatch:
    """Tells what was committed to a batch since the last call."""

    def __init__(self, database: Engine, batch_id: int) -> None:
        self._database, self._batch_id = database, batch_id
        self._last = count_committed(database, batch_id)

    def read_new(self) -> CommittedMessages:
        """Returns the messages committed since the last call."""
        now = count_committed(self._database, self._batch_id)
        new = CommittedMessages(now[0] - self._last[0], now[1] - self._last[1])
        self._last = now
        return new


class _RunningJob:
    """A Spark job that scores chunks, run in a thread. A pause of the task cancels it; so does the end of the block."""

    def __init__(
        self,
        connection: SparkConnection,
        job: ExecutorJob,
        chunk_numbers: Sequence[int],
        executors: int,
        progress: ProgressReport,
    ) -> None:
        self._connection, self._progress = connection, progress
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="spark")
        self._group = f"spamscore-{id(self)}"
        self._ended, self._paused = threading.Event(), False
        parts = split_evenly(chunk_numbers, executors)
        self._future: Future[list[dict[str, float]]] = self._pool.submit(self._run, job, parts)
        self._future.add_done_callback(lambda _: self._ended.set())
        self._pool.submit(self._cancel_if_paused)

    def __enter__(self) -> _RunningJob:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ended.is_set():
            self._cancel()
        self._ended.set()
        self._pool.shutdown(wait=True)

    def wait(self, timeout: float) -> bool:
        """Waits until the job has ended, for up to `timeout` seconds, and returns whether it has."""
        return self._ended.wait(timeout)

    @property
    def was_paused(self) -> bool:
        """Whether a pause cancelled the job."""
        return self._paused

    def results(self) -> list[dict[str, float]]:
        """Returns the seconds of the stages of each part; nothing if a pause cancelled the job.

        Raises:
            SpamscoreError: the job failed.
        """
        error = self._future.exception()
        if error is None:
            return self._future.result()
        if self._paused:
            return []
        raise _to_error(error) from None

    def _run(self, job: ExecutorJob, parts: list[list[int]]) -> list[dict[str, float]]:
        context = self._connection.context
        context.setJobGroup(self._group, f"score {sum(map(len, parts))} chunks")
        score: Any = partial(score_part, describe_software(), job)
        return list(context.parallelize(parts, len(parts)).mapPartitions(score).collect())

    def _cancel_if_paused(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            if self._progress.paused:
                self._paused = True
                self._cancel()

    def _cancel(self) -> None:
        from py4j.protocol import Py4JError

        try:
            self._connection.context.cancelJobGroup(self._group)
        except (Py4JError, OSError) as error:  # the JVM has ended, and the job with it
            log.debug("the job was not cancelled: %s", describe_failure(error))


def _to_error(error: BaseException) -> SpamscoreError:
    """Returns the error of this program that made a task fail, or a ClusterError."""
    text = read_message(error)
    found = [match.groups() for match in _EXECUTOR_ERROR.finditer(text) if match[1] != "org.apache.spark.api.python"]
    if not found:
        cause = describe_failure(error)
        return ClusterError(f"Spark: {cause}. {_MEMORY_ADVICE if _MEMORY_ERROR.search(cause) else _KEPT}")
    module, name, message = found[-1]
    if module == models.errors.__name__:
        return cast("SpamscoreError", getattr(models.errors, name)(message))
    advice = _PACKAGE_ADVICE if name == "ModuleNotFoundError" else _KEPT
    if _MEMORY_ERROR.search(f"{name}: {message}"):
        advice = _MEMORY_ADVICE
    return ClusterError(f"an executor failed: {name}: {message}. {advice}")
