"""What a Spark executor does: loads the model once per process, scores its chunks, and commits them.

Nothing here reads luigi.cfg: an executor gets every setting from the driver, with its chunks.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ArtifactError, ClusterError, DatabaseError, SpamscoreError
from models.settings import DeviceSettings
from tasks.scoring.spark.software import require_same_software

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from models.inference.scorer import Scorer
    from tasks.scoring.batch import BatchWork

DATABASE_URL = "SPAMSCORE_DATABASE_URL"
_IDLE_SECONDS = 15  # of a transaction, between two statements
# The second setting came with PostgreSQL 17. A limit that an administrator has set takes precedence.
_LIMIT_TRANSACTION = """
SELECT set_config(name, value, true)
FROM (VALUES ('idle_in_transaction_session_timeout', '{}s'), ('transaction_timeout', '{}s')) AS limits(name, value)
WHERE current_setting(name, true) = '0'
"""


@dataclass(frozen=True)
class ArtifactReference:
    """A folder of artifacts that executors read.

    Attributes:
        path: the folder on the driver, which all machines share unless there is an address.
        address: address of its copy in [artifacts] shared; None if that is not set.
        seal: hash of its manifest, as the driver read it.
    """

    path: Path
    address: str | None
    seal: str


@functools.lru_cache(maxsize=16)  # a process reads the same folders in many tasks, and a check reads all of their files
def _find_artifact(artifact: ArtifactReference) -> Path:
    """Returns the folder on this machine. Downloads it if it has an address.

    Raises:
        ArtifactError: it does not exist, is damaged, or is not the one of the driver.
    """
    folder = artifact.path
    if artifact.address:
        from pyspark import SparkFiles

        from tasks.artifacts.shared import fetch_folder

        # A folder of the application, which Spark deletes at its end: snapshots have the texts of messages.
        folder = fetch_folder(artifact.address, Path(SparkFiles.getRootDirectory()) / "artifacts")
    require_same_artifact(folder, artifact.seal)
    return folder


@dataclass(frozen=True)
class ModelReference:
    """The model that executors load.

    Attributes:
        training: the folder of the training.
        checkpoint: the checkpoint whose weights are loaded; None for the final weights of the training.
        devices: the devices to compute on, and the number of threads.
        batch_size: messages in one call of the network, or "auto".
        tensorflow_log: lowest level of TensorFlow's log lines that are shown.
    """

    training: ArtifactReference
    checkpoint: str | None
    devices: DeviceSettings
    batch_size: int | str
    tensorflow_log: str


@dataclass(frozen=True)
class ExecutorJob:
    """What executors need to score chunks of a batch.

    Attributes:
        work: the batch; the chunks come separately.
        snapshot: the folder of the snapshot.
        model: the model.
        queue: maximum number of chunks that wait between two stages.
        connect_timeout: seconds to wait for a connection to the database.
        transaction_timeout: seconds after which PostgreSQL ends a transaction.
    """

    work: BatchWork
    snapshot: ArtifactReference
    model: ModelReference
    queue: int
    connect_timeout: int
    transaction_timeout: int


def score_part(software: dict[str, str], job: ExecutorJob, parts: Iterable[list[int]]) -> Iterator[dict[str, float]]:
    """Scores and commits chunks in an executor. Spark calls it once for each partition.

    Args:
        software: the software of the driver.
        job: the batch and the model.
        parts: numbers of chunks.

    Yields:
        Seconds of each stage, for each part.

    Raises:
        SpamscoreError: the error of the local engine, with the name of the machine; or the executor's software, its
            artifacts or its database are not those of the driver.
    """
    require_same_software(software)
    try:
        for part in parts:
            yield _score_chunks(job, part)
    except SpamscoreError as error:
        raise type(error)(f"executor on {platform.node()}: {error}") from error


def _score_chunks(job: ExecutorJob, chunk_numbers: list[int]) -> dict[str, float]:
    from tasks.database.ledger import find_committed_chunks
    from tasks.settings.loading import read_secret

    # Before the model is loaded, which takes seconds: Spark runs a task that failed again.
    database = _open_database(read_secret(DATABASE_URL), job.connect_timeout, job.transaction_timeout)
    _require_same_batch(database, job.work)
    snapshot = _find_artifact(job.snapshot)
    scorer = _load_scorer(job.model)
    from tasks.scoring.local import Concurrency, score_and_commit
    from tasks.scoring.overlap import StageSeconds

    seconds = StageSeconds()
    committed = find_committed_chunks(database, job.work.batch_id)  # by an earlier attempt of this task
    left = [number for number in chunk_numbers if number not in committed]
    work = dataclasses.replace(job.work, snapshot=snapshot, chunk_numbers=left)
    for _ in score_and_commit(
        database, scorer, work, Concurrency(scorer.threads or job.model.devices.threads, job.queue), seconds
    ):
        pass
    return seconds.totals()


@functools.lru_cache(maxsize=1)  # a process scores many parts with one model
def _load_scorer(model: ModelReference) -> Scorer:
    from models.network.devices import start_tensorflow
    from tasks.scoring.scorer import create_scorer

    training = _find_artifact(model.training)
    start_tensorflow(model.devices, model.tensorflow_log)
    scorer, _ = create_scorer(training, model.checkpoint, model.devices, model.batch_size)
    return scorer


def require_same_artifact(folder: Path, seal: str) -> None:
    """Checks that a folder of artifacts is the one of the driver.

    Raises:
        ArtifactError: it does not exist on this machine, or has another manifest.
    """
    from tasks.artifacts.folders import MANIFEST, read_seal

    if not (folder / MANIFEST).is_file():
        raise ArtifactError(
            f"{folder}: no such folder with a manifest on this machine. Expected [artifacts] folder on a path that all "
            "machines share, or [artifacts] shared."
        )
    received = read_seal(folder)
    if received != seal:
        raise ArtifactError(
            f"{folder / MANIFEST}: not the one of the driver: expected SHA-256 {seal[:16]}…, received "
            f"{received[:16]}…. Is [artifacts] folder the same folder on all machines?"
        )


@functools.lru_cache(maxsize=1)
def _open_database(url: str, connect_timeout: int, transaction_timeout: int) -> Engine:
    import sqlalchemy as sa

    from tasks.database.connection import connect
    from tasks.settings.storage import DatabaseSettings

    if not url:
        raise ClusterError(
            f"{DATABASE_URL} is not set on this machine, nor {DATABASE_URL}_FILE, and [spark] database_url = executor. "
            "Set one where executors start, or set [spark] database_url = driver."
        )
    engine = connect(DatabaseSettings(url=url, connect_timeout=connect_timeout))
    if engine.dialect.name == "postgresql":
        # Of all engines, because chunks are committed with another one, which keeps its connection.
        sa.event.listen(sa.Engine, "begin", functools.partial(_limit_transaction, transaction_timeout))
    return engine


def _limit_transaction(seconds: int, connection: Connection) -> None:
    """Has the server end a transaction whose executor has vanished: nobody else can commit its chunk before.

    Otherwise, the server learns that a machine is gone from TCP, which takes two hours by default.
    """
    connection.exec_driver_sql(_LIMIT_TRANSACTION.format(_IDLE_SECONDS, seconds))


def _require_same_batch(database: Engine, work: BatchWork) -> None:
    """Checks that the database of this machine has the batch of the driver, and that nobody has withdrawn it.

    Raises:
        DatabaseError: it has another batch with this number, or none; or the batch is withdrawn.
    """
    from tasks.database.batches import find_batch
    from tasks.settings.masking import mask_password

    batch = find_batch(database, work.batch_id)
    if batch is None or (batch.recipe, batch.batch_date) != (work.plan.recipe, work.plan.batch_date):
        received = "no such batch" if batch is None else f"recipe {batch.recipe} of {batch.batch_date}"
        raise DatabaseError(
            f"{mask_password(database.url)}: expected batch {work.batch_id} with recipe {work.plan.recipe} of "
            f"{work.plan.batch_date}, as in the driver's database, received {received}. Do driver and executors have "
            f"the same {DATABASE_URL}?"
        )
    if batch.state == "withdrawn":
        raise DatabaseError(
            f"{mask_password(database.url)}: batch {work.batch_id} is withdrawn (of {work.plan.batch_date}). Another "
            "run replaced it or a person withdrew it: run the date again."
        )
