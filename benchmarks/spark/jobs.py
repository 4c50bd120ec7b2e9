"""The jobs of the benchmark: `python jobs.py NAME FOLDER SNAPSHOT MASTER DRIVER` runs one and prints its figures."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import sqlalchemy as sa
from luigi.configuration import LuigiConfigParser

from tasks.database.ledger import BatchPlan
from tasks.database.schema import open_database
from tasks.scoring.batch import score_snapshot
from tasks.settings.scoring import ScoringSettings
from tasks.settings.storage import DatabaseSettings

Figures = dict[str, Any]
URL = os.environ["SPAMSCORE_DATABASE_URL"]
CHUNK = ScoringSettings().chunk_size
WARM_UP_CHUNK = 50


def empty_database() -> sa.Engine:
    """Opens the database without tables of earlier runs."""
    engine = sa.create_engine(URL, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
        connection.exec_driver_sql("CHECKPOINT")
    engine.dispose()
    return open_database(DatabaseSettings(url=URL))


def score(engine: Any, database: sa.Engine, snapshot: Path, day: int, chunk: int) -> Figures:
    """Scores a snapshot and publishes the batch."""
    date = datetime.date(2026, 1, day)
    plan = BatchPlan(date, os.urandom(4).hex(), "spam_ham", 1, "bench", "bench", 0.5, "cpu:0", chunk)
    started = time.monotonic()
    row = score_snapshot(
        database, plan, snapshot, engine, lambda *_: None, started, lambda _: None, lambda: None
    )  # fmt: skip
    seconds = time.monotonic() - started
    stages = {
        name: getattr(row, f"seconds_{name}") for name in ("read", "text", "network", "write", "wait", "processor")
    }
    return {"messages": row.messages_read, "seconds": seconds, "checksum": row.checksum, **stages}


def local(folder: Path, snapshot: Path, *_: str) -> Figures:
    """Scores in this process, with one thread, on one core as an executor."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    os.environ["OMP_NUM_THREADS"] = "1"
    set_values("devices", threads="1")
    from tasks.scoring.local import LocalEngine

    engine = LocalEngine(1, training(folder))
    database = empty_database()
    score(engine, database, warm_up(folder), 1, WARM_UP_CHUNK)
    return score(engine, database, snapshot, 2, CHUNK)


def on_cluster(
    executors: int, folder: Path, snapshot: Path, master: str, meanwhile: Callable[[], None] = lambda: None
) -> Figures:
    """Scores on executors of one core; a small batch before it makes them load the model."""
    set_values("spark", master=master, executors=str(executors), cores="1")
    from tasks.scoring.spark.engine import SparkEngine

    progress: Any = SimpleNamespace(paused=False, link=lambda _: None)
    with contextlib.closing(SparkEngine(training(folder), None, progress)) as engine:
        started = time.monotonic()
        connection = engine._connection
        session = time.monotonic() - started
        database = empty_database()
        model = score(engine, database, warm_up(folder), 1, WARM_UP_CHUNK)["seconds"]
        threading.Thread(target=meanwhile, daemon=True).start()
        figures = score(engine, database, snapshot, 2, CHUNK)
        memory = sum(read_peak(pid) for pid in (os.getpid(), connection._jvm.pid))
    return {**figures, "session": session, "model": model, "driver_memory": memory}


def one(folder: Path, snapshot: Path, master: str, _: str) -> Figures:
    """Scores on one executor."""
    return on_cluster(1, folder, snapshot, master)


def two(folder: Path, snapshot: Path, master: str, _: str) -> Figures:
    """Scores on two executors."""
    return on_cluster(2, folder, snapshot, master)


def killed(folder: Path, snapshot: Path, master: str, _: str) -> Figures:
    """Scores on two executors, of which one is killed in the middle."""

    def kill_one() -> None:
        time.sleep(5)
        executors = [
            process
            for process in psutil.process_iter()
            if "CoarseGrainedExecutorBackend" in " ".join(_command_line(process))
        ]
        executors[0].kill()

    return on_cluster(2, folder, snapshot, master, kill_one)


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def script(folder: Path, snapshot: Path, master: str, driver: str) -> Figures:
    """Does what people write: `mapInPandas` with the SavedModel, and `df.write.jdbc`, with two executors."""
    from pyspark.sql import SparkSession

    export = next(folder.glob("artifacts/exports/*/1"))
    settings = {
        "spark.cores.max": "2", "spark.executor.cores": "1", "spark.executor.memory": "1g", "spark.jars": driver,
        "spark.ui.enabled": "false", "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",
    }  # fmt: skip
    builder = SparkSession.builder.master(master)
    for key, value in settings.items():
        builder = builder.config(key, value)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")

    def predict(frames: Iterator[Any]) -> Iterator[Any]:
        import tensorflow as tf

        signature = tf.saved_model.load(str(export)).signatures["predict_spam"]
        for frame in frames:
            outputs = signature(tf.constant(frame["text"].tolist()))
            frame["spam_probability"] = outputs["scores"].numpy().ravel()
            yield frame[["message_id", "spam_probability"]]

    jdbc = "jdbc:" + URL.replace("+psycopg", "").replace("postgres:bench@", "")
    frame = session.read.parquet(str(snapshot / "messages.parquet")).select("message_id", "text")
    schema = "message_id string, spam_probability float"

    def write(rows: Any, table: str) -> None:
        scored = rows.repartition(8).mapInPandas(predict, schema)
        scored.write.jdbc(
            jdbc, table, "overwrite", {"user": "postgres", "password": "bench", "driver": "org.postgresql.Driver"}
        )

    write(frame.limit(100), "warm_up")
    started = time.monotonic()
    write(frame, "scored")
    seconds, messages = time.monotonic() - started, frame.count()
    session.stop()
    return {"messages": messages, "seconds": seconds}


def training(folder: Path) -> Path:
    """Returns the folder of the trained model."""
    return next(path.parent for path in folder.glob("artifacts/training/*/model.json"))


def warm_up(folder: Path) -> Path:
    """Returns the folder of a small snapshot."""
    return folder / "snapshots" / "distinct-1000"


def read_peak(pid: int) -> float:
    """Returns the peak memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def set_values(section: str, **values: str) -> None:
    """Sets settings for this process."""
    parser: Any = LuigiConfigParser.instance()
    for key, value in values.items():
        parser.set(section, key, value)


if __name__ == "__main__":
    name, folder, snapshot_name, *others = sys.argv[1:]
    jobs: dict[str, Callable[..., Figures]] = {
        "local": local, "one": one, "two": two, "killed": killed, "script": script,
    }  # fmt: skip
    print(json.dumps(jobs[name](Path(folder), Path(folder) / "snapshots" / snapshot_name, *others)))
