"""The fault drill of the Spark engine, on a standalone master with two workers and a PostgreSQL server.

After each fault every message is published once, with the score of a local run; or the run ends with one line, and the
same command without the fault publishes them. All the time a reader sees all rows or none.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from drill.baseline import PROJECT
from eventually import eventually
from luigid import Luigid
from servers import postgresql
from spark_cluster import require_spark, spark_cluster
from spark_drill import SparkDrill, send

from tasks.database.connection import connect
from tasks.database.ledger import withdraw_batch
from tasks.settings.storage import DatabaseSettings


@pytest.fixture(scope="module")
def drill(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkDrill]:
    require_spark()
    with spark_cluster() as cluster, postgresql() as server:
        yield SparkDrill(tmp_path_factory.mktemp("drill"), trained, cluster, server)


@pytest.mark.slow
def test_executors_killed_in_mid_commit_and_in_mid_chunk_are_replaced(drill: SparkDrill) -> None:
    with drill.open_batch() as batch:
        run = batch.start_held()
        before = drill.cluster.find_python_workers()
        drill.cluster.find_executors()[0].kill()
        eventually(drill.cluster.find_python_workers, lambda workers: len(workers) == 2 and workers != before)
        with batch.stopped_between_commits() as workers:
            workers[0].kill()
        batch.require_result(batch.finish(run))


@pytest.mark.slow
def test_a_batch_survives_the_restart_of_the_master_and_the_loss_of_a_worker(drill: SparkDrill) -> None:
    cluster = drill.cluster
    with drill.open_batch() as batch:
        run = batch.start_held()
        cluster.restart_master()
        cluster.workers[0].kill()
        cluster.wait_for_workers(1)
        batch.open_gate()
        batch.require_result(batch.finish(run))
    cluster.restart_worker(0)


@pytest.mark.slow
def test_the_task_of_an_executor_that_hangs_runs_again_on_another(drill: SparkDrill) -> None:
    with drill.open_batch() as batch:
        run = batch.start_held()
        with batch.stopped_between_commits() as workers:
            send(workers[1:], signal.SIGCONT)
            batch.require_result(batch.finish(run))


@pytest.mark.slow
def test_a_machine_that_hangs_in_mid_commit_does_not_keep_its_chunk(drill: SparkDrill) -> None:
    cluster = drill.cluster
    timeouts = "spark.executor.heartbeatInterval=2s spark.network.timeoutInterval=5s spark.network.timeout=20s"
    with drill.open_batch(timeouts) as batch:
        run = batch.start_held()
        cluster.workers[0].send(signal.SIGSTOP)
        batch.open_gate()
        batch.require_result(batch.finish(run))
        cluster.workers[0].send(signal.SIGCONT)
        eventually(cluster.find_executors, lambda executors: executors == [])
        batch.require_outcome()  # also after the executor has gone on


@pytest.mark.slow
def test_a_batch_survives_a_restart_of_postgresql_in_mid_commit(drill: SparkDrill) -> None:
    with drill.open_batch() as batch:
        run = batch.start_held()
        drill.server.stop()
        drill.server.start()
        batch.require_result(batch.finish(run))


@pytest.mark.slow
def test_a_batch_withdrawn_in_the_middle_ends_with_one_line_and_is_scored_anew(drill: SparkDrill) -> None:
    with drill.open_batch() as batch:
        run = batch.start_held()
        database = connect(DatabaseSettings(url=batch.url.render_as_string(hide_password=False)))
        with batch.stopped_between_commits():
            withdraw_batch(database, 1)
        batch.require_one_line(batch.finish(run), "batch 1 is withdrawn")
        result = batch.run()
        assert result.code == 0, result.output
        assert batch.read_rows() == drill.outcome.rows


@pytest.mark.slow
def test_a_paused_batch_frees_its_executors_and_goes_on_when_it_is_resumed(drill: SparkDrill, tmp_path: Path) -> None:
    with drill.open_batch() as batch, Luigid(tmp_path / "luigid") as luigid:
        run = batch.start_held(SPAMSCORE_LUIGID_URL=luigid.url)
        eventually(luigid.send_message("ScoreBatch", "pause"))
        eventually(drill.cluster.find_python_workers, lambda workers: workers == [])
        batch.open_gate()
        run.require_running()
        eventually(luigid.send_message("ScoreBatch", "resume"))
        batch.require_result(batch.finish(run))


@pytest.mark.slow
def test_executors_take_the_database_url_from_their_own_environment_or_from_the_driver(
    drill: SparkDrill, tmp_path: Path
) -> None:
    with drill.open_batch() as batch:
        batch.configure(database_url="executor")
        batch.require_one_line(batch.run(), "SPAMSCORE_DATABASE_URL is not set on this machine")
        url, file = batch.url.render_as_string(hide_password=False), tmp_path / "database-url"
        file.write_text(f"{url}\n", encoding="utf-8")
        drill.cluster.restart_worker(0, SPAMSCORE_DATABASE_URL=url)
        drill.cluster.restart_worker(1, SPAMSCORE_DATABASE_URL_FILE=str(file))
        batch.require_result(batch.run())
    with drill.open_batch() as batch:  # the driver's value takes precedence over both
        batch.require_result(batch.run())
    for number in range(2):
        drill.cluster.restart_worker(number)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_runs_that_fail_end_with_one_line_and_the_next_run_goes_on(drill: SparkDrill, tmp_path: Path) -> None:
    """Each run starts from what the one before has left: refused, out of memory, terminated, killed."""
    with drill.open_batch() as batch:
        refusals = [
            ({"master": "spark://127.0.0.1:1"}, r"\[spark\] master = spark://127.0.0.1:1: cannot be reached"),
            ({"options": "spark.network.timeout=20s"}, r"Spark did not start: .*spark\.network\.timeout"),
            # More cores than any worker has: no executor starts, however quick the machine is.
            ({"cores": "8", "timeout": "10"}, r"no chunk was committed for 10 s \(\[spark\] timeout\)"),
            # The Python that the virtual environment was made with has no packages.
            ({"python": str(Path(sys.executable).resolve())}, r"No module named .*\[spark\] python"),
            ({"options": f"spark.executorEnv.PYTHONPATH={copy_project(tmp_path)}"}, "hash of its modules"),
            ({"options": "spark.executor.pyspark.memory=600m"}, r"raise \[spark\] memory"),
        ]
        for spark, pattern in refusals:
            batch.configure(**spark)
            batch.require_one_line(batch.run(), pattern)
        batch.configure()

        run = batch.start()
        while run.process.poll() is None:
            send(drill.cluster.find_python_workers(), signal.SIGKILL)  # as the kernel does if memory runs out
            time.sleep(0.1)
        batch.require_one_line(batch.finish(run), r"raise \[spark\] memory")

        run = batch.start_held()
        run.process.terminate()
        result = batch.finish(run)
        assert result.code == 143, result.output
        batch.require_one_line(result, "ended by SIGTERM; run the same command again")

        batch.open_gate()
        run = batch.start_held()
        send(run.find_java(), signal.SIGKILL)
        batch.require_one_line(batch.finish(run), "Spark: its JVM has ended. Committed chunks are kept")

        batch.open_gate()
        run = batch.start_held()
        java = run.find_java()
        run.kill()
        eventually(lambda: [process for process in java if process.is_running()], lambda running: running == [])
        run = batch.start()
        batch.open_gate()
        batch.require_result(batch.finish(run))


def copy_project(folder: Path) -> Path:
    """Copies the packages, and changes a comment."""
    for package in ("models", "tasks"):
        shutil.copytree(PROJECT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "tasks" / "scoring" / "spark" / "__init__.py").open("a") as file:
        file.write("# changed\n")
    return folder
